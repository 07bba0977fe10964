"""The folder of a trained model, read without executing anything in it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_cmc.data.format.dataset_json import DatasetDescription, read_dataset_json
from nnunet_cmc.data.format.plans_json import read_plans
from nnunet_cmc.inference.checked_predictor import CheckedPredictor
from nnunet_cmc.inference.resolved_names import check_plans_names
from nnunet_cmc.trainers.build import build_network
from nnunet_cmc.trainers.checks import require_supported
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.utils.checkpoints import load_checkpoint, require_structure
from nnunet_cmc.utils.devices import require_device


class CheckpointHeader(NamedTuple):
    """What a checkpoint says beside its weights."""

    trainer: str
    configuration: str
    mirroring_axes: tuple[int, ...] | None


class TrainedModel:
    """Plans, ``dataset.json`` and checkpoints of a model of ours, checked against each other.

    Attributes:
        checkpoints, weights: the file and the tensors of each fold; ``network`` has those of the first.
        mirroring_axes: along which the training mirrored, of (D, H, W); None for none.

    Raises:
        FileNotFoundError: a fold has no such checkpoint.
        ValueError: another file is missing, or one is unreadable, holds more than tensors and plain values, or does not
            fit the others.
    """

    def __init__(self, folder: str | os.PathLike, folds: Sequence[int | str] | int | str | None, checkpoint: str):
        folder = Path(folder)
        if not (folder / "plans.json").is_file():
            raise ValueError(
                f"{folder} is no trained model: give the folder TRAINER__PLANS__CONFIGURATION that has a plans.json."
            )
        self.plans = read_plans(folder / "plans.json")
        self.dataset_json = read_dataset_json(folder / "dataset.json")
        self.description = DatasetDescription.from_dict(self.dataset_json, folder / "dataset.json")
        files = [folder / f"fold_{fold}" / checkpoint for fold in _folds(folder, folds, checkpoint)]
        self.checkpoints = list(map(str, files))
        checkpoints = [load_checkpoint(file, "copy or export the model again") for file in files]
        headers = [_header(content, file) for content, file in zip(checkpoints, files, strict=True)]
        trainer, self.configuration, self.mirroring_axes = headers[0]
        self.trainer = _trainer(trainer, files[0])
        require_supported(self.plans, self.configuration, self.description, trainer)
        try:
            check_plans_names(self.plans)
        except ValueError as error:
            raise ValueError(f"{folder / 'plans.json'}: {error}") from error
        self.network = build_network(self.trainer, self.plans, self.configuration, self.description)
        self.weights = []
        for file, header, content in zip(files, headers, checkpoints, strict=True):
            if (header.trainer, header.configuration) != (trainer, self.configuration):
                raise ValueError(f"{file} is of another trainer or configuration than {files[0]}: give folds of one.")
            weights = content["network_weights"]
            what = f"network of {folder / 'plans.json'} and {folder / 'dataset.json'}"
            require_structure(self.network.state_dict(), weights, file, what, "use files of one training")
            self.weights.append(weights)
        self.network.load_state_dict(self.weights[0])

    def predictor(self, **options: Any) -> CheckedPredictor:
        """Make a predictor with this model; ``options`` are nnU-Net's. ValueError if there is no such device."""
        predictor = CheckedPredictor(**options)
        require_device(predictor.device)
        predictor.checkpoints = self.checkpoints
        manager = PlansManager(self.plans)
        configuration, trainer = manager.get_configuration(self.configuration), self.trainer.__name__
        model = (self.network, manager, configuration, self.weights, self.dataset_json, trainer, self.mirroring_axes)
        predictor.manual_initialization(*model)
        return predictor


def _folds(folder: Path, folds: Sequence[int | str] | int | str | None, checkpoint: str) -> list[str]:
    if isinstance(folds, int | str):
        folds = [folds]
    if folds is None:
        found = sorted(path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}"))
        folds = [fold for fold in found if fold != "all"] or found
    if not folds:
        raise ValueError(f"{folder} has no fold with a {checkpoint}: train the model to its end.")
    return list(map(str, folds))


def _header(checkpoint: dict[str, Any], file: Path) -> CheckpointHeader:
    arguments = checkpoint.get("init_args")
    trainer = checkpoint.get("trainer_name")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    axes = checkpoint.get("inference_allowed_mirroring_axes")
    weights = checkpoint.get("network_weights")
    if (
        not isinstance(trainer, str)
        or not isinstance(configuration, str)
        or not isinstance(weights, dict)
        or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values())
        or not (axes is None or (isinstance(axes, list | tuple) and axes and {*map(repr, axes)} <= {"0", "1", "2"}))
    ):
        raise ValueError(f"{file} is no checkpoint that nnU-Net saved: give one of a trained model.")
    return CheckpointHeader(trainer, configuration, None if axes is None else tuple(axes))


def _trainer(name: str, file: Path) -> type[CMCTrainer]:
    try:
        trainer = recursive_find_trainer_class_by_name(name)
    except Exception:  # nnU-Net imports all it has to find a class that it does not know
        trainer = None
    if not (isinstance(trainer, type) and issubclass(trainer, CMCTrainer)):
        raise ValueError(
            f"{file} is of {name}, which is no trainer of this package: name a model of one, or predict with "
            "nnUNetv2_predict."
        )
    return trainer
