"""What CMCTrainer refuses before anything is written."""

import os
from os.path import join
from types import FunctionType

import torch
from nnunetv2.paths import nnUNet_preprocessed

from nnunet_cmc.data.dataset_json import check_dataset_json, require_plain_labels
from nnunet_cmc.data.plans_json import planned_configuration, require_ours


def require_supported(plans: dict, configuration: str, dataset_json: dict, trainer: str) -> None:
    """Raise a ValueError if these plans or labels are not for this trainer."""
    require_ours(plans, configuration, trainer)
    check_dataset_json(dataset_json, "dataset.json")
    require_plain_labels(dataset_json, trainer)


def require_device(device: torch.device) -> None:
    """ValueError if torch has no such device here."""
    if (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise ValueError(
            f"torch {torch.__version__} finds no GPU here ({device.type}): compute on the CPU, with -device cpu (in "
            'Python device="cpu"), or see what `nnunet_cmc doctor` says about the GPU.'
        )


def require_preprocessed(plans: dict, configuration: str) -> None:
    """ValueError if the dataset was not preprocessed with this ``configuration`` of the ``plans``."""
    identifier = planned_configuration(plans, configuration)["data_identifier"]
    folder = join(nnUNet_preprocessed, plans["dataset_name"], identifier)
    if not os.path.isdir(folder):
        raise ValueError(
            f"There is no {folder}: run nnUNetv2_preprocess -d {plans['dataset_name']} -plans_name "
            f"{plans['plans_name']} -c {configuration} first."
        )


def require_no_lost_part(trainer: type, base: type) -> None:
    """Raise a ValueError if ``trainer`` inherits an attribute of two parts that are not made for each other.

    Methods call their ``super()``, so that trainers can be combined in any order. Of an attribute, such as the loader
    of pairs, there is one, and Python would take the first part's and pass over the other's without a word.
    """
    parts = [part for part in trainer.__mro__ if issubclass(part, base)]
    for name in sorted({name for part in parts for name in vars(part) if not name.startswith("_")}):
        first, *others = (part for part in parts if name in vars(part))
        value = vars(first)[name]
        if isinstance(value, (FunctionType, classmethod, staticmethod, property)):
            continue
        for other in others:
            if not issubclass(first, other) and vars(other)[name] != value:
                raise ValueError(
                    f"{trainer.__name__} cannot be {first.__name__} and {other.__name__} at once, which have each a "
                    f"{name} of its own: leave one of them out, or give {trainer.__name__} its own {name}."
                )
