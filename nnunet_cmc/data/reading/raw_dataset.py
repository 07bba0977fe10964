"""A dataset in raw format: its folder, its labelled and unlabelled cases, and a quick check of all headers."""

import os
from codecs import BOM_UTF8
from copy import deepcopy
from os.path import basename, join
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_cmc.data.format.dataset_json import DatasetDescription, read_dataset_json
from nnunet_cmc.data.format.scan_folder import (
    by_case,
    cases_of,
    name_problem,
    split_name,
    unnumbered,
    unread_scans,
    visible_files,
)
from nnunet_cmc.data.format.splits import SPLITS
from nnunet_cmc.data.reading.raw_case import check_case
from nnunet_cmc.utils.files import write_text
from nnunet_cmc.utils.variables import dataset_folder, require_set


def raw_description(dataset_name_or_id: int | str) -> DatasetDescription:
    """Read ``dataset.json`` of a raw dataset. ValueError: nnU-Net's variables, the dataset or the file is invalid."""
    require_set(nnUNet_raw, nnUNet_preprocessed)
    folder = dataset_folder(nnUNet_raw, dataset_name_or_id)
    file = folder / "dataset.json"
    content = read_dataset_json(file)
    for read_by_nnunet in (file, folder / SPLITS):
        remove_byte_order_mark(read_by_nnunet)
    return DatasetDescription.from_dict(content, file)


def remove_byte_order_mark(file: str | os.PathLike) -> None:
    """Remove the byte order mark that ``file`` may begin with, which nnU-Net cannot read."""
    if os.path.isfile(file) and (content := Path(file).read_bytes()).startswith(BOM_UTF8):
        print(f"Removing the byte order mark of {file}, which nnU-Net cannot read.")
        write_text(file, content.decode("utf-8-sig"))


def labeled_cases(raw_folder: str | os.PathLike, description: DatasetDescription) -> dict[str, dict[str, Any]]:
    """Find the cases with a label as nnU-Net does: case -> its files ``images`` and its ``label``."""
    content: dict[str, Any] = {"file_ending": description.file_ending}
    if description.has_cmc_key:
        content["cmc"] = {}  # then the hook leaves out names that begin with a dot
    if description.listed_files is not None:
        content["dataset"] = deepcopy(dict(description.listed_files))  # in which nnU-Net writes
    return get_filenames_of_train_images_and_targets(str(raw_folder), content)


def cases_of_part(
    raw_folder: str | os.PathLike, part: str, description: DatasetDescription
) -> dict[str, tuple[list[str], Path]]:
    """Find the scans and the label, which need not exist, of each case of a part: ``Tr``, ``Un`` or ``Ts``.

    ValueError: see :func:`cases_of`.
    """
    if part == "Tr" and description.listed_files is not None:  # folders may have cases without a label
        listed = labeled_cases(raw_folder, description)
        return {case: (files["images"], Path(files["label"])) for case, files in listed.items()}
    labels, ending = Path(raw_folder, f"labels{part}"), description.file_ending
    scans = cases_of(Path(raw_folder, f"images{part}"), description)
    return {case: (files, labels / f"{case}{ending}") for case, files in scans.items()}


def check_dataset(raw_folder: str, description: DatasetDescription) -> None:
    """Check names and headers of all files of the dataset. ValueError: a line for each bad case."""
    folder, ending, listed = join(raw_folder, "imagesUn"), description.file_ending, description.listed_files
    parts = ("imagesUn",) if listed else ("imagesTr", "labelsTr", "imagesUn")
    problems = [sentence for part in parts for sentence in unread_scans(join(raw_folder, part), ending)]
    labeled = labeled_cases(raw_folder, description)
    if not listed:
        for file in visible_files(join(raw_folder, "imagesTr"), ending):
            if split_name(file, ending) is None:
                problems.append(unnumbered(file, description))
        # nnU-Net takes such a file, less five characters of its name, for a case without files
        labeled = {case: files for case, files in labeled.items() if files["images"]}
    unlabeled = by_case(visible_files(folder, ending), ending)
    problems += [f"Case {case} {why}" for case in (*labeled, *unlabeled) if (why := name_problem(case))]
    for case, files in labeled.items():
        try:
            check_case(files["images"], description, files["label"], case)
        except ValueError as error:
            problems.append(str(error))
    for file in [] if listed else visible_files(join(raw_folder, "labelsTr"), ending):  # nnU-Net would ignore them
        if (case := basename(file).removesuffix(ending)) not in {*labeled, *unlabeled}:
            problems.append(
                f"Case {case} has the label {file}, but no file in imagesTr: add its images, or remove the label."
            )
    for case, images in unlabeled.items():
        try:
            _, by_channel = check_case(images, description)
            if case in labeled:
                raise ValueError(f"Case {case} is both in imagesTr and in {folder}: rename or remove one of them.")
            for channel in set(description.present_channels.get(case, ())) - set(by_channel):
                name = description.modalities[channel]
                raise ValueError(
                    f"Case {case}: dataset.json says that it has channel {channel} ({name}), "
                    f"but {folder} has no file of it: add the file or correct dataset.json."
                )
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))
