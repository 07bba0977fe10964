"""Planning and writing the files of a case in the raw dataset."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.reading.grid import Grid, is_nifti2
from nnunet_cmc.data.reading.voxels import write_volume
from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.volume import pixel_type, read_image, resample, suffix_of, volume_grid

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
        if how == UNCHANGED and (
            case.label_values is not None or pixel_type(case.label) not in (sitk.sitkUInt8, sitk.sitkUInt16)
        ):
            how = REWRITTEN
        steps.append(Step(f"labels{part}/{case.name}{FILE_ENDING}", case.label, how))
    return steps


def write_case(dataset: Path, case: Case, steps: list[Step], link: bool = False) -> None:
    """Write the files that :func:`plan_case` planned to the folder ``dataset``.

    Args:
        link: make unchanged images hard links to their sources where the file system can, in place of copies.
    """
    grid = volume_grid(case.grid_source)
    for target, source, how in steps:
        file = dataset / target
        if source is None:
            _write(sitk.Image(grid.size, sitk.sitkUInt8), grid, file)
        elif how == UNCHANGED and link and source != case.label:
            _link_or_copy(source, file)
        elif how == UNCHANGED:
            shutil.copyfile(source, file)  # what is changed in place here must not change in the archive
        elif source == case.label:
            _write(_renumbered(read_image(source), case.label_values), grid, file)
        elif how == RESAMPLED:
            _write(resample(read_image(source), grid), grid, file)
        else:
            _write(read_image(source), grid, file)


def _how(source: Path, grid: Grid) -> str:
    own = volume_grid(source)
    if own.differences(grid):
        return RESAMPLED
    unchanged = own == grid and suffix_of(source) == FILE_ENDING and not source.is_dir() and not is_nifti2(source)
    return UNCHANGED if unchanged else REWRITTEN


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without hard links
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


def _write(image: sitk.Image, grid: Grid, file: Path) -> None:
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    write_volume(image, file)
