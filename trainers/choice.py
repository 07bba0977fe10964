"""The choice between a recipe and the one that it names for lesions, from the labelled cases alone."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_cmc.data.loading.places import KEPT, overlap_of_places
from nnunet_cmc.trainers.recipe import Recipe


def choose(recipe: Recipe, dataset: nnUNetBaseDataset, labels: Mapping[str, int]) -> tuple[Recipe, str]:
    """Choose the recipe for these labelled cases, and say why in a sentence.

    Where classes keep their places in the body from patient to patient they are shapes that every contrast shows, as
    organs are; where they do not they are told by their contrast, as lesions are. Without two cases of any class they
    are taken for shapes.

    Args:
        dataset: preprocessed labelled cases of the training.
        labels: class name -> label.
    """
    assert recipe.for_lesions is not None
    overlap = overlap_of_places(dataset)
    shapes = replace(recipe, for_lesions=None)
    if not overlap:
        return shapes, "No class is shown by two labelled cases, so classes are taken for shapes, not for lesions."
    mean = float(np.mean(list(overlap.values())))
    names = {label: name for name, label in labels.items()}
    found = ", ".join(f"{names.get(label, label)} {value:.2f}" for label, value in sorted(overlap.items()))
    reason = f"their places in two labelled cases overlap by {mean:.2f} in the mean, kept from {KEPT} on: {found}"
    if mean >= KEPT:
        return shapes, f"Classes keep their places in the body, so they are taken for shapes ({reason})."
    lesions = replace(recipe.for_lesions, length=recipe.length)
    return lesions, f"Classes keep no place in the body, so they are taken for lesions ({reason})."
