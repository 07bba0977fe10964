"""Checks of plans, labels and cases before a training."""

import os
from os.path import join

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.plans_json import planned_configuration, require_ours
from nnunet_cmc.data.loading.sampling import CaseSampler
from nnunet_cmc.trainers.recipe import Recipe


def require_supported(plans: dict, configuration: str, description: DatasetDescription, trainer: str) -> None:
    """Raise a ValueError if these plans or labels are not for this trainer."""
    require_ours(plans, configuration, trainer)
    description.require_plain_labels(trainer)


def require_preprocessed(plans: dict, configuration: str) -> None:
    """Raise ValueError if the dataset was not preprocessed with this ``configuration`` of the ``plans``."""
    identifier = planned_configuration(plans, configuration)["data_identifier"]
    folder = join(nnUNet_preprocessed, plans["dataset_name"], identifier)
    if not os.path.isdir(folder):
        number = convert_dataset_name_to_id(plans["dataset_name"])
        raise ValueError(
            f"There is no {folder}: run nnUNetv2_preprocess -d {number} -plans_name {plans['plans_name']} -c "
            f"{configuration} first."
        )


def require_registered(recipe: Recipe, labeled: CaseSampler, trainer: str, fold: str) -> None:
    """Raise ValueError if the recipe needs cases with several modalities on one grid, and no labelled one has them."""
    for term in recipe.terms:
        if term.loss.needs_registered and max(map(len, labeled.present.values())) == 1:
            raise ValueError(
                f"{trainer} needs labelled cases with several modalities on one grid, and {fold} has none: "
                f"{term.loss.needs_registered}; train with -tr CMCTrainer."
            )
