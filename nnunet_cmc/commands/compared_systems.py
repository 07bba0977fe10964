"""The compared systems, each a trainer with plans, and their checks before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.plans_json import NETWORK, planned_configuration, read_plans
from nnunet_cmc.trainers.checks import require_preprocessed, require_supported
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.utils.variables import require_set


@dataclass(frozen=True)
class System:
    """A row of the table.

    Attributes:
        name: the trainer's, followed by the plans if another row has the same trainer.
        model: nnU-Net's folder of the trained model.
    """

    name: str
    trainer: str
    plans: str
    model: Path


def find_systems(
    rows: Sequence[str], plans: str, dataset: str, configuration: str, description: DatasetDescription
) -> list[System]:
    """Check the rows of the table, ``TRAINER`` or ``TRAINER:PLANS``, and return their systems.

    Args:
        plans: default of rows that name none.
        dataset: whole name, ``DatasetNNN_NAME``.

    Raises:
        ValueError: a row is there twice, or its trainer or plans are unknown, do not fit, or are not preprocessed.
    """
    require_set(nnUNet_preprocessed, nnUNet_results)
    parts = [(trainer, own or plans) for trainer, _, own in (row.partition(":") for row in rows)]
    trainers = [trainer for trainer, _ in parts]
    systems = []
    for trainer, named in parts:
        if parts.count((trainer, named)) > 1:
            raise ValueError(f"The row {trainer} with the plans {named} is there twice in --trainers: name it once.")
        _check(trainer, named, dataset, configuration, description)
        name = trainer if trainers.count(trainer) == 1 else f"{trainer} {named}"
        model = Path(str(nnUNet_results), dataset, f"{trainer}__{named}__{configuration}")
        systems.append(System(name, trainer, named, model))
    return systems


def _check(trainer: str, plans_name: str, dataset: str, configuration: str, description: DatasetDescription) -> None:
    try:
        found = recursive_find_trainer_class_by_name(trainer)
    except ValueError:  # our own, of a name that resembles those of our trainers
        raise
    except Exception as error:
        if "Could not find" in str(error):  # nnU-Net's own text, which is about folders
            raise ValueError(
                f"There is no trainer {trainer}, neither nnU-Net's nor of nnunet_cmc: correct its name."
            ) from error
        raise ValueError(
            f"The search for the trainer {trainer} imports all of nnU-Net's, and one failed ({error}): correct its "
            "name, or see what `nnunet_cmc doctor` says."
        ) from error
    file = Path(str(nnUNet_preprocessed), dataset, f"{plans_name}.json")
    if not file.is_file():
        raise ValueError(
            f"There is no {file}, for the trainer {trainer}: plan and preprocess with the planner of {plans_name}, or "
            f"name other plans with -p or {trainer}:PLANS."
        )
    plans = read_plans(file)
    if issubclass(found, CMCTrainer):
        require_supported(plans, configuration, description, trainer)
    elif planned_configuration(plans, configuration).get("architecture", {}).get("network_class_name") == NETWORK:
        raise ValueError(
            f"{trainer} cannot train the plans {plans_name} of a CMC planner: name nnU-Net's own plans for it, such as "
            f"{trainer}:nnUNetPlans."
        )
    require_preprocessed(plans, configuration)
