"""Planning and writing the files of a case in the raw dataset."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.reading.grid import Grid, is_for_itk
from nnunet_cmc.data.reading.voxels import write_volume
from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.volume import has_label_type, resample, suffix_of, volume_grid, volume_image

FILE_ENDING = ".nii.gz"
UNCHANGED, REWRITTEN, RESAMPLED, ZEROS = "unchanged", "rewritten", "resampled", "zeros"


class Step(NamedTuple):
    """A file of the dataset: its path in it, the source (None for an absent modality), and how it is made."""

    target: str
    source: Path | None
    how: str


def plan_case(case: Case, channel_count: int) -> list[Step]:
    """Plan the files of ``case``; of its sources, only headers are read."""
    part = "Ts" if case.test else "Un" if case.label is None else "Tr"
    grid = volume_grid(case.grid_source)
    steps = []
    for channel in range(channel_count):
        target = f"images{part}/{case.name}_{channel:04d}{FILE_ENDING}"
        if channel in case.images:
            steps.append(Step(target, case.images[channel], _how(case.images[channel], grid)))
        elif part == "Tr":
            steps.append(Step(target, None, ZEROS))
    if case.label is not None:
        how = _how(case.label, grid)
        if how == UNCHANGED and (case.label_values is not None or not has_label_type(case.label)):
            how = REWRITTEN
        steps.append(Step(f"labels{part}/{case.name}{FILE_ENDING}", case.label, how))
    return steps


def write_case(dataset: Path, case: Case, steps: list[Step], link: bool = False) -> None:
    """Write the files that :func:`plan_case` planned to the folder ``dataset``.

    Args:
        link: make unchanged images hard links to their sources where the file system can; labels are copied.
    """
    grid = volume_grid(case.grid_source)
    for target, source, how in steps:
        file = dataset / target
        if source is None:
            image = sitk.Image(grid.size, sitk.sitkUInt8)
        elif how == UNCHANGED:
            _copy(source, file, link and source != case.label)
            continue
        elif source == case.label:
            label = _renumbered(volume_image(source), case.label_values)
            image = resample(label, grid, sitk.sitkNearestNeighbor) if how == RESAMPLED else label
        elif how == RESAMPLED:
            image = resample(volume_image(source), grid)
        else:
            image = volume_image(source)
        write_volume(grid.place(image), file)


def _how(source: Path, grid: Grid) -> str:
    own = volume_grid(source)
    if own.differences(grid):
        return RESAMPLED
    unchanged = own == grid and suffix_of(source) == FILE_ENDING and not source.is_dir() and is_for_itk(source)
    return UNCHANGED if unchanged else REWRITTEN


def _copy(source: Path, target: Path, link: bool) -> None:
    if link:
        with suppress(OSError):  # another disk, or a file system without hard links
            return os.link(source.resolve(), target)
    shutil.copyfile(source, target)


def _renumbered(label: sitk.Image, values: Mapping[int, int] | None) -> sitk.Image:
    """Round and replace each value of the label, as uint8 or, above 255, uint16."""
    old = new = np.round(sitk.GetArrayViewFromImage(label))
    if values is not None:
        new = np.zeros(old.shape, np.uint16)
        for value, number in values.items():
            new[old == value] = number
    result = sitk.GetImageFromArray(new.astype(np.uint8 if new.max() < 256 else np.uint16))
    result.CopyInformation(label)
    return result
