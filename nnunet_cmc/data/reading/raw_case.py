"""Reading a case of nnU-Net's raw format in which channel files may be missing."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import case_and_channel
from nnunet_cmc.data.reading.grid import read_grid
from nnunet_cmc.data.reading.reader_writer import CMCReaderWriter
from nnunet_cmc.data.reading.voxels import count_not_finite, format_value, out_of_memory

SEPARATE = "resample it onto that grid, or make separate cases of scans that do not share one"


def check_case(
    image_files: Sequence[str], description: DatasetDescription, label_file: str | None = None, case: str | None = None
) -> tuple[str, dict[int, str]]:
    """Check names and headers of the files of a case; return its name and the file of each channel, in order.

    Args:
        image_files: ``_000N`` files in any order; with a ``label_file``, one of every channel.
        case: name for the error message if there is no file.

    Raises:
        ValueError: a file has no, an unknown or a repeated channel number, is missing, unreadable or on another grid.
    """
    names = description.modalities
    files: dict[int, str] = {}
    for file in sorted(image_files):
        case, channel = case_and_channel(file, description)
        if channel in files:
            raise ValueError(f"Case {case}: {files[channel]} and {file} are both of channel {channel}: remove one.")
        files[channel] = file
    if case is None or not files:
        who = f"Case {case}" if case else "A case"
        raise ValueError(f"{who} has no channel file: give a CASE_0000{description.file_ending} or more.")
    if label_file is not None:
        for channel in set(range(len(names))) - set(files):
            raise ValueError(
                f"Case {case}: the file of channel {channel} ({names[channel]}) is missing from "
                f"{os.path.dirname(image_files[0])}: a labelled case needs a file for every channel, "
                "a volume of zeros for a modality that it was not scanned in."
            )
        if not os.path.isfile(label_file):
            raise ValueError(f"Case {case}: its label {label_file} is missing: add it, or move the images to imagesUn.")
    require_one_grid(case, [*files.values(), *([label_file] if label_file else [])])
    return case, dict(sorted(files.items()))


def read_case(
    image_files: Sequence[str], description: DatasetDescription, label_file: str | None = None
) -> tuple[np.ndarray, dict]:
    """Read volumes ``(M, D, H, W)`` float32 of a case, zeros for a missing file, and the reader's properties.

    ValueError: see :func:`check_case`; or all voxels are zero, one is not finite, or ``dataset.json`` disagrees.
    """
    case, files = check_case(image_files, description, label_file)
    data = np.zeros(0, np.float32)
    for channel, file in files.items():
        volume, properties = read_finite_volume(case, file)
        if not data.size:
            data = np.zeros((len(description.modalities), *volume.shape), np.float32)
        data[channel] = volume
    present = shown_channels(data)
    if not present:
        raise empty_case(case, files.values())
    declared = description.possible_channels(case)
    for channel in set(present) - set(declared):
        raise ValueError(
            f"Case {case}: {files[channel]} has voxels other than zero, but dataset.json says that the case has only "
            f"the channel(s) {', '.join(map(str, declared))}: correct dataset.json, or rename the case."
        )
    if label_file is not None:
        require_declared(present, description, case)
    return data, properties


def empty_case(case: str, files: Iterable[str | os.PathLike]) -> ValueError:
    """Make the error of a case that shows no modality."""
    scans = ", ".join(map(str, files))
    return ValueError(f"Case {case} is empty: all voxels of {scans} are zero; replace the files or remove the case.")


def shown_channels(data: Any) -> list[int]:
    """List the channels of ``data (M, D, H, W)``, an array or a tensor, with a voxel other than exactly zero."""
    return [channel for channel in range(len(data)) if data[channel].any()]


def measured_channels(case: str, files: Mapping[int, str]) -> tuple[int, ...]:
    """List the channels of ``case`` whose file has a voxel other than zero. ValueError: one is unreadable or NaN."""
    return tuple(channel for channel, file in sorted(files.items()) if read_finite_volume(case, file)[0].any())


def require_declared(present: Sequence[int], description: DatasetDescription, case: str) -> None:
    """Raise ValueError if a channel that ``dataset.json`` states is all zero; new cases may lack some."""
    declared = description.present_channels.get(case, ())
    for channel in set(declared) - set(present):
        raise ValueError(
            f"Case {case}: all voxels of channel {channel} ({description.modalities[channel]}) are zero, but "
            f"dataset.json says that the case has the channel(s) {', '.join(map(str, declared))}: correct one of them."
        )


def read_label(label_file: str, description: DatasetDescription) -> np.ndarray:
    """Read a label map ``(1, D, H, W)`` float32. ValueError: it is damaged, or has unknown values."""
    case = os.path.basename(label_file).removesuffix(description.file_ending)
    labels = read_finite_volume(case, label_file)[0][None]
    known = description.label_values()
    unknown = np.unique(labels[~np.isin(labels, known)])
    if len(unknown):
        raise ValueError(
            f"Case {case}: {label_file} has the label value(s) {', '.join(map(format_value, unknown[:10]))}, "
            f"but dataset.json names {', '.join(map(str, known))}: correct one of them."
        )
    return labels


def read_finite_volume(case: str, file: str) -> tuple[np.ndarray, dict]:
    """Read a volume ``(D, H, W)`` float32 of ``case`` and its properties. ValueError: unreadable, NaN or infinite."""
    try:
        (volume,), properties = CMCReaderWriter().read_images([file])
        count = count_not_finite(volume)
    except MemoryError as error:
        raise ValueError(f"Case {case}: {file} {out_of_memory(read_grid(file).size)}: leave it out.") from error
    except ValueError as error:
        raise ValueError(f"Case {case}: {file} {error}: copy or write it again.") from error
    if count:
        raise ValueError(f"Case {case}: {file} has {count} voxel(s) that are NaN or infinite: replace them.")
    return volume, properties


def require_one_grid(case: str, files: Sequence[str | os.PathLike], remedy: str = SEPARATE) -> None:
    """Raise a ValueError if a file of ``case`` is unreadable or, ending in ``remedy``, not on the first one's grid."""
    grids = []
    for file in files:
        try:
            grids.append(read_grid(file))
        except ValueError as error:
            raise ValueError(f"Case {case}: {file} {error}.") from error
        if differences := grids[-1].differences(grids[0]):
            raise ValueError(
                f"Case {case}: {file} is not on the grid of {files[0]} ({', '.join(differences)}): {remedy}."
            )
