"""Folders of scans: the files that are read, their cases, and scans that would silently be left out."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.utils.files import visible

# Any format of volumes, packed or not.
SCAN = re.compile(
    r".*\.(nii|nrrd|nhdr|mha|mhd|hdr|img|dcm|dicom|ima|gipl|mgh|mgz|mnc|tiff?)(\.(gz|bz2|xz|zst|zip))?", re.IGNORECASE
)
# Files of other formats or without an ending, if they have a channel number.
NUMBERED = re.compile(r".+_0\d{3}(\.(png|jpe?g|bmp|gz|zip))?", re.IGNORECASE)
COMPANIONS = {".hdr": ".img", ".img": ".hdr"}  # the file with the second ending is read with the first one


def split_name(image_file: str, file_ending: str) -> tuple[str, int] | None:
    """Split ``folder/CASE_0001.nii.gz`` into ``("CASE", 1)``; None without a four-digit channel number."""
    match = re.fullmatch(r"(.+)_(\d{4})" + re.escape(file_ending), os.path.basename(image_file))
    return (match[1], int(match[2])) if match else None


def case_of(image_file: str, file_ending: str) -> str:
    """Return the case of a file; without a channel number, its name without the ending."""
    found = split_name(image_file, file_ending)
    return found[0] if found else os.path.basename(image_file).removesuffix(file_ending)


def visible_files(folder: str | os.PathLike, ending: str = "") -> list[str]:
    """List the :func:`~nnunet_cmc.utils.files.visible` paths that end in ``ending``, as texts."""
    return [str(path) for path in visible(folder) if path.name.endswith(ending)]


def looks_like_a_scan(name: str) -> bool:
    """Tell whether a file or folder of this name is likely to be a scan, even if it is not read."""
    return bool(SCAN.fullmatch(name) or NUMBERED.fullmatch(name))


def unread_scans(folder: str | os.PathLike, file_ending: str) -> list[str]:
    """Describe each file or folder that is or holds a likely scan or label without this ending."""
    read = (file_ending, COMPANIONS.get(file_ending, file_ending))
    problems = []
    for path in visible_files(folder):
        is_folder = os.path.isdir(path)
        if looks_like_a_scan(os.path.basename(path)):
            if is_folder or not path.endswith(read):
                problems.append(
                    f"{path} looks like a scan, but is no file that ends in {file_ending}, so it would be left out: "
                    f"convert it to {file_ending}, or move it to another folder."
                )
        elif is_folder and (scan := _scan_below(path)):
            problems.append(
                f"{path} is a folder that holds {scan}, which looks like a scan and would be left out: move it to "
                f"{folder}, if it belongs there, or the folder {os.path.basename(path)} to another one."
            )
    return problems


def _scan_below(folder: str) -> str | None:
    """Find a file that looks like a scan in a folder or below it, except in folders of predictions."""
    if os.path.isfile(os.path.join(folder, "dataset.json")):  # which prediction writes there
        return None
    for path in visible_files(folder):
        if os.path.isdir(path):
            if found := _scan_below(path):
                return found
        elif looks_like_a_scan(os.path.basename(path)):
            return path
    return None


def files_of(folder: str | os.PathLike, file_ending: str) -> list[str]:
    """List the files of this ending in a folder, if it exists. ValueError: something else looks like a scan."""
    if unread := unread_scans(folder, file_ending):
        raise ValueError("\n".join(unread))
    return visible_files(folder, file_ending)


def scans_of(folder: str | os.PathLike, file_ending: str) -> list[str]:
    """List files as :func:`files_of`. ValueError also if the folder does not exist or has no such file."""
    if not os.path.isdir(folder):
        raise ValueError(f"There is no folder {folder}: give the folder of the scans.")
    if not (files := files_of(folder, file_ending)):
        raise ValueError(f"{folder} has no file that ends in {file_ending}: give the folder of the scans.")
    return files


def by_case(files: Iterable[str], file_ending: str) -> dict[str, list[str]]:
    """Group files by case; one without a channel number is a case of its own, which ``check_case`` refuses."""
    cases: dict[str, list[str]] = {}
    for file in files:
        cases.setdefault(case_of(file, file_ending), []).append(file)
    return cases


def require_one_case(files: Iterable[str], file_ending: str) -> list[str]:
    """Return ``files``; ``check_case`` checks their channels. ValueError: there is none, or of several cases."""
    files = list(files)
    if not files:
        raise ValueError(f"A case has no channel file: give a CASE_0000{file_ending} or more.")
    named = [(file, found[0]) for file in files if (found := split_name(file, file_ending))]
    for file, case in named[1:]:
        if case != named[0][1]:
            raise ValueError(
                f"{named[0][0]} and {file} are of different cases, as their names say: predict each case by itself, or "
                "rename the files of one case to CASE_0000, CASE_0001, ..."
            )
    return files


def unnumbered(file: str, description: DatasetDescription) -> str:
    """Say that a scan's name has no channel number."""
    ending, names = description.file_ending, description.modalities
    return f"{file} has no channel number: name it CASE_0000{ending} for {names[0]}, and so on."


def case_and_channel(file: str, description: DatasetDescription) -> tuple[str, int]:
    """Split the name of a scan into case and channel. ValueError: it has no number, or that of no modality."""
    names = description.modalities
    found = split_name(file, description.file_ending)
    if found is None:
        raise ValueError(unnumbered(file, description))
    case, channel = found
    if channel >= len(names):
        raise ValueError(
            f"Case {case}: {file} is of channel {channel}, but the dataset has {len(names)} channel(s), "
            f"0 to {len(names) - 1} ({', '.join(names)}): rename or remove it."
        )
    return case, channel


def cases_of(folder: str | os.PathLike, description: DatasetDescription) -> dict[str, list[str]]:
    """Group the files ``CASE_000N`` of a folder, if it exists, by case.

    ValueError: see :func:`files_of` and :func:`case_and_channel`.
    """
    cases: dict[str, list[str]] = {}
    for file in files_of(folder, description.file_ending):
        cases.setdefault(case_and_channel(file, description)[0], []).append(file)
    return cases


def cases_to_read(folder: str | os.PathLike, description: DatasetDescription) -> dict[str, list[str]]:
    """Group files as :func:`cases_of`. ValueError: see there and :func:`scans_of`."""
    scans_of(folder, description.file_ending)
    return cases_of(folder, description)


def by_channel(files: Iterable[str], file_ending: str) -> dict[int, str]:
    """Map each channel of one case to its file; files without a channel number are left out."""
    found = ((split_name(file, file_ending), file) for file in files)
    return dict(sorted((name[1], file) for name, file in found if name))


def by_modality(files: Iterable[str], case: str, description: DatasetDescription) -> dict[str, Path]:
    """Map each modality that ``case`` may have to its file among ``files``."""
    found = by_channel(files, description.file_ending)
    possible = description.possible_channels(case)
    return {description.modalities[channel]: Path(file) for channel, file in found.items() if channel in possible}


def name_problem(case: str) -> str | None:
    """Explain why a case of a dataset cannot have this name; None if it can."""
    why = "ends in _seg, as the names that nnU-Net gives to preprocessed labels: rename its files."
    return why if case.endswith("_seg") else None
