"""Checks of the files of a case before anything is written."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.reading.grid import Grid, distance_of_transforms
from nnunet_cmc.data.reading.voxels import count_not_finite, out_of_memory
from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.volume import resample, volume_grid, volume_image, volume_voxels
from nnunet_cmc.utils.formatting import dimensions

ROUNDING = 1e-3  # tolerance for labels that are not whole numbers, as a header's slope makes them; they are rounded


def find_problems(case: Case, label_values: Collection[int], allow_empty_labels: bool = False) -> list[str]:
    """List all that is wrong with the files of ``case``, a sentence each.

    Args:
        label_values: those a label of the dataset may have, where the case has none of its own.
        allow_empty_labels: whether a label may show no class at all.
    """
    if case.label_values is not None:
        label_values = {0, *case.label_values}
    found: list[str] = []
    reference: tuple[Path, Grid] | None = None
    for file in dict.fromkeys(filter(None, (case.grid, *case.images.values(), case.label))):
        is_label = file == case.label
        size: Sequence[int] = ()
        wrong: list[str | None] = []
        try:
            grid = volume_grid(file)
            size = grid.size
            voxels = volume_voxels(file)
            if min(size) < 2:
                wrong.append(f"has a single slice ({dimensions(size)} voxels): leave it out")
            wrong.append(
                _label_problem(voxels, label_values, allow_empty_labels) if is_label else _image_problem(voxels)
            )
            reference = reference or (file, grid)
            if is_label or case.grid is None:
                wrong.append(_grid_problem(file, grid, *reference, is_label))
            else:
                wrong.append(_position_problem(file, grid, *reference))
        except ValueError as error:
            wrong = [str(error)]
        except MemoryError:
            wrong = [str(out_of_memory(size))]
        found += [f"case {case.name}, {file}: {problem}." for problem in wrong if problem]
    return found


def _grid_problem(file: Path, grid: Grid, reference: Path, reference_grid: Grid, is_label: bool) -> str | None:
    if not (differences := grid.differences(reference_grid)):
        return None
    if not is_label:
        remedy = (
            "resample it there, or give each modality a folder of labels (--labels NAME=FOLDER for each), which makes "
            "them unpaired"
        )
    elif not grid.is_part_of(reference_grid):
        remedy = "give the label of this scan, or resample it there by nearest neighbours"
    elif not reference_grid.is_part_of(grid):
        remedy = (
            "its voxels are some of that scan's, as 3D Slicer crops a label, so fill it up by "
            "SimpleITK.Resample(label, scan, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)"
        )
    else:  # its axes are in another order or direction, and are brought into place
        return None
    apart = "".join(
        f"; the qform and sform of {path} lie {distance:.3g} mm apart: make them equal"
        for path in (file, reference)
        if (distance := distance_of_transforms(path))
    )
    return f"is not on the grid of {reference} ({', '.join(differences)}{apart}): {remedy}"


def _position_problem(file: Path, grid: Grid, reference: Path, reference_grid: Grid) -> str | None:
    """Return what is wrong with the position of an image that will be resampled onto the reference's grid."""
    if not grid.differences(reference_grid):
        return None
    if not sitk.GetArrayFromImage(resample(volume_image(file), reference_grid)).any():
        return f"shows nothing of where {reference} lies: correct the position in one of them"
    return None


def _image_problem(voxels: np.ndarray) -> str | None:
    if bad := count_not_finite(voxels):
        return f"has {bad} voxel(s) that are NaN or infinite: replace them"
    if not voxels.any():
        return "is zero everywhere, which means an absent modality: leave the file out"
    return None


def _label_problem(voxels: np.ndarray, label_values: Collection[int], allow_empty: bool) -> str | None:
    values = np.unique(voxels)
    rounded = np.round(values)
    if len(strange := values[~(np.abs(values - rounded) <= ROUNDING)]):
        return (
            f"has values that are not integers, such as {strange[0]:g}: give the label as it was drawn, or resample "
            "it by nearest neighbours"
        )
    if unknown := sorted({int(value) for value in rounded} - set(label_values)):
        return f"has the label value(s) {unknown}, but the classes are {sorted(label_values)}: name every value"
    if not rounded.any() and not allow_empty:
        return (
            "shows no class at all: leave it out if the scan is not labelled; if it is, and nothing is to be seen, "
            "convert with --allow-empty-labels"
        )
    return None
