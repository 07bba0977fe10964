"""The channels of a case that are shown to a model: those that it has, some of them, or one of them misaligned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import SimpleITK as sitk

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.reading.raw_case import check_case, measured_channels
from nnunet_cmc.data.reading.voxels import read_image, write_volume
from nnunet_cmc.evaluation.misalignment import misalign, random_direction


class Condition(NamedTuple):
    """Change of the scans of every case that it applies to."""

    name: str
    given: tuple[int, ...] | None = None  # the only channels shown, others are zero; None for all that the case has
    moved: int | None = None  # channel that is misaligned
    millimetres: float = 0.0  # that it is shifted
    degrees: float = 0.0  # that it is turned

    @property
    def folder(self) -> str:
        """Name of the folder of its predictions."""
        return self.name.replace(" ", "_").replace("/", "-")

    def applies_to(self, present: Sequence[int]) -> bool:
        """Return whether it makes a difference for a case that has the channels ``present``."""
        if self.given is not None:
            return set(self.given) < set(present)
        return self.moved is None or self.moved in present


def present_files(images: Sequence[str], description: DatasetDescription) -> dict[int, str]:
    """Return the files by channel of the modalities that a case has: those stated, or those that are not all zero.

    ValueError: see :func:`check_case`; or a file cannot be read, or has NaN.
    """
    case, by_channel = check_case(images, description)
    declared = description.present_channels.get(case)
    if declared is None:
        declared = measured_channels(case, by_channel)
    return {channel: file for channel, file in by_channel.items() if channel in declared}


def present_scans(images: Sequence[str], description: DatasetDescription) -> dict[str, Path]:
    """Return :func:`present_files` by the name of each modality."""
    present = present_files(images, description)
    return {description.modalities[channel]: Path(file) for channel, file in present.items()}


def input_files(
    condition: Condition, case: str, files: Mapping[int, str], channels: int, ending: str, made: Path, seed: int = 0
) -> list[str]:
    """Return a file for every channel: the case's own, moved, or zero; new ones are written to ``made``.

    ValueError: a file of the case cannot be read.
    """
    given = set(files if condition.given is None else condition.given)
    result = []
    for channel in range(channels):
        new = made / f"{case}_{channel:04d}{ending}"
        if channel not in given:
            write_volume(_read(case, next(iter(files.values()))) * 0, new)
        elif channel == condition.moved:
            direction = random_direction(seed, channel, *case.encode())
            scan = _read(case, files[channel])
            write_volume(misalign(scan, direction, condition.millimetres, condition.degrees), new)
        result.append(str(new) if new.exists() else files[channel])
    return result


def _read(case: str, file: str) -> sitk.Image:
    try:
        return read_image(file)
    except ValueError as error:
        raise ValueError(f"Case {case}: {file} {error}: copy or write it again.") from error
