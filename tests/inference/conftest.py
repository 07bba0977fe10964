"""A model of two modalities that is planned, trained and validated in seconds, once for all tests here."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from processes import use_threads

from nnunet_cmc.planners.nnunet import CMCPlannerNNUNetSmall
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.logger import SeriesLogger
from nnunet_cmc.trainers.recipe import Length
from nnunet_cmc.trainers.registry import trainer_class

NAME = "Dataset903_Blocks"
VARIABLES = ("raw", "preprocessed", "results")
PLANS = "CMCNNUNetSmallPlans"


class Tiny(NamedTuple):
    root: Path  # with nnU-Net's folders
    raw: Path
    preprocessed: Path
    model: Path  # of CMCTrainer_smoke
    other: Path  # of CMCTrainerPaper_noMIA
    new: Path  # cases to predict: "both", "ct", "mr", "oblique", "mirrored", "small"


def block(shape, rng) -> tuple[list[np.ndarray], np.ndarray]:
    """Volumes of both modalities, and their label."""
    label = np.zeros(shape, np.uint8)
    label[3:9, 4:12, 5:13] = 1
    volumes = [100 + channel * 50 + label * (80.0 - 120 * channel) + rng.normal(0, 9, shape) for channel in (0, 1)]
    return [volume.astype(np.float32) for volume in volumes], label


def write(file: Path, array: np.ndarray, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), spacing=(1.0, 1.0, 1.0)) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetDirection(direction)
    image.SetSpacing(spacing)
    image.SetOrigin((5.0, -3.0, 20.0))
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file))


def write_dataset(raw: Path) -> None:
    rng = np.random.default_rng(0)
    for case in ("a", "b", "c", "d"):
        volumes, label = block((20, 24, 22), rng)
        for channel, volume in enumerate(volumes):
            write(raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz", volume)
        write(raw / "labelsTr" / f"{case}.nii.gz", label)
    write(raw / "imagesUn" / "u_0001.nii.gz", block((20, 24, 22), rng)[0][1])
    dataset_json = {
        "channel_names": {"0": "CT", "1": "MR"},
        "labels": {"background": 0, "block": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "cmc": {"version": 1, "present_channels": {"u": [1]}, "subjects": {}},
    }
    (raw / "dataset.json").write_text(json.dumps(dataset_json))
    (raw / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c", "d"]}]))


def write_new_cases(folder: Path) -> None:
    rng = np.random.default_rng(1)
    geometries = {
        "both": {},
        "oblique": {"direction": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)},
        "mirrored": {"direction": (1, 0, 0, 0, 1, 0, 0, 0, -1)},
        "small": {"spacing": (1.2, 0.9, 1.5)},
    }
    for case, geometry in geometries.items():
        shape = (10, 13, 14) if case == "small" else (22, 20, 26)
        for channel, volume in enumerate(block(shape, rng)[0]):
            write(folder / f"{case}_{channel:04d}.nii.gz", volume, **geometry)
    shutil.copy(folder / "both_0000.nii.gz", folder / "ct_0000.nii.gz")
    shutil.copy(folder / "both_0001.nii.gz", folder / "mr_0001.nii.gz")


def plan(preprocessed: Path) -> None:
    """Plans of a network of a few channels on patches of 16."""
    fingerprint = {"spacings": [[1.0] * 3] * 4, "shapes_after_crop": [[20, 24, 22]] * 4}
    fingerprint["foreground_intensity_properties_per_channel"] = {}
    preprocessed.mkdir(exist_ok=True)
    (preprocessed / "dataset_fingerprint.json").write_text(
        json.dumps({**fingerprint, "median_relative_size_after_cropping": 1.0})
    )
    CMCPlannerNNUNetSmall(
        903, overwrite_target_spacing=[1.0] * 3, channels=4, patch_size=(16, 16, 16)
    ).plan_experiment()


def train(trainer: type[CMCTrainer], preprocessed: Path) -> Path:
    plans, dataset_json = (json.loads((preprocessed / f"{name}.json").read_text()) for name in (PLANS, "dataset"))
    plans["continue_training"] = False
    running = trainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    running.run_training()
    running.perform_actual_validation(save_probabilities=True)
    return Path(running.output_folder_base)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            (root / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(root / name))
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("NNUNET_CMC_SEED", "0")
        raw, preprocessed = root / "raw" / NAME, root / "preprocessed" / NAME
        write_dataset(raw)
        write_new_cases(root / "new")
        plan(preprocessed)
        use_threads(patch)
        # a picture takes longer than the training
        patch.setattr(SeriesLogger, "plot_progress_png", lambda self, folder: Path(folder, "progress.png").touch())
        preprocess_dataset(903, PLANS, ("3d_fullres",), (1,))
        trainers = {"CMCTrainer_smoke": Length(2, 4, 2), "CMCTrainerPaper_noMIA": Length(1, 2, 1)}
        for name, length in trainers.items():
            cls = trainer_class(name)
            patch.setattr(cls, "recipe", replace(cls.recipe, length=length))
        model, other = (train(trainer_class(name), preprocessed) for name in trainers)
    return Tiny(root, raw, preprocessed, model, other, root / "new")


@pytest.fixture
def in_tiny(tiny, monkeypatch) -> Tiny:
    """The model, with nnU-Net's variables set to its folders and its pools without processes."""
    for name in VARIABLES:
        monkeypatch.setenv(f"nnUNet_{name}", str(tiny.root / name))
    use_threads(monkeypatch)
    return tiny
