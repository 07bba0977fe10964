"""A whole dataset in raw format: its unlabelled cases, and a look at all cases that takes seconds."""

import codecs
import os
from collections import defaultdict
from os.path import join
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_cmc.data.dataset_json import REMEDY, check_dataset_json, check_listed_cases
from nnunet_cmc.data.files import read_json, write_text
from nnunet_cmc.data.presence import channel_names, present_channels
from nnunet_cmc.data.raw_case import check_case, split_name


def raw_dataset_json(dataset_name_or_id: int | str, only_ours: bool = False) -> dict[str, Any]:
    """The checked ``dataset.json`` of a raw dataset.

    Args:
        only_ours: leave the content of one without our ``cmc`` key to nnU-Net.

    Raises:
        ValueError: nnU-Net's variables are not set, there is no such dataset, or the file is missing or unsound.
    """
    require_set(nnUNet_raw, nnUNet_preprocessed)
    try:
        file = join(nnUNet_raw, maybe_convert_to_dataset_name(dataset_name_or_id), "dataset.json")
    except RuntimeError as error:  # nnU-Net's own text spans several lines
        raise ValueError(
            f"There is not exactly one dataset with the ID {dataset_name_or_id} in {nnUNet_raw}."
        ) from error
    content = read_json(file, REMEDY)
    for read_by_nnunet in (file, join(os.path.dirname(file), "splits_final.json")):
        _remove_byte_order_mark(read_by_nnunet)
    if not only_ours or not isinstance(content, dict) or "cmc" in content:
        check_dataset_json(content, file)
    else:
        check_listed_cases(content, file)
    return content


def _remove_byte_order_mark(file: str) -> None:
    """Write ``file`` without the mark that it may begin with: nnU-Net, which reads it next, cannot read the mark."""
    if os.path.isfile(file):
        content = Path(file).read_bytes()
        if content.startswith(codecs.BOM_UTF8):
            print(f"Removing the byte order mark of {file}, which nnU-Net cannot read.")
            write_text(file, content.decode("utf-8-sig"))


def require_set(*paths) -> None:
    """ValueError if one of nnU-Net's variables, from ``nnunetv2.paths``, is not set."""
    for path in paths:
        if not path.is_set():
            raise ValueError(f"{path.env_var_name} is not set: set this variable to nnU-Net's folder of that name.")


def unlabeled_cases(raw_folder: str, file_ending: str) -> dict[str, list[str]]:
    """Channel files of each case in ``imagesUn``; empty where there is no such folder.

    A file without a channel number makes a case of its own, which :func:`check_case` refuses.
    """
    folder = join(raw_folder, "imagesUn")
    cases: dict[str, list[str]] = defaultdict(list)
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.endswith(file_ending):
            case, _ = split_name(name, file_ending) or (name.removesuffix(file_ending), None)
            cases[case].append(join(folder, name))
    return dict(cases)


def check_dataset(raw_folder: str, dataset_json: dict) -> None:
    """Look at the names and headers of all files of ``imagesTr``, ``labelsTr`` and ``imagesUn``.

    Raises:
        ValueError: ``dataset.json`` is unsound; or a sentence for each bad case, a line each.
    """
    check_dataset_json(dataset_json, join(raw_folder, "dataset.json"))
    problems = []
    labeled = get_filenames_of_train_images_and_targets(raw_folder, dataset_json)
    for case, files in labeled.items():
        try:
            check_case(files["images"], dataset_json, files["label"], case)
        except ValueError as error:
            problems.append(str(error))
    names, folder, ending = channel_names(dataset_json), join(raw_folder, "imagesUn"), dataset_json["file_ending"]
    unlabeled = unlabeled_cases(raw_folder, ending)
    if "dataset" not in dataset_json:  # which lists the labels that count
        problems += _labels_without_image(join(raw_folder, "labelsTr"), ending, {*labeled, *unlabeled})
    for case, images in unlabeled.items():
        try:
            _, files = check_case(images, dataset_json)
            if case in labeled:
                raise ValueError(f"Case {case} is both in imagesTr and in {folder}: rename or remove one of them.")
            for channel in set(present_channels(dataset_json, case) or ()) - set(files):
                raise ValueError(
                    f"Case {case}: dataset.json says that it has channel {channel} ({names[channel]}), "
                    f"but {folder} has no file of it: add the file or correct dataset.json."
                )
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def _labels_without_image(folder: str, ending: str, cases: set[str]) -> list[str]:
    """A sentence for each label that nnU-Net would pass over."""
    labels = [name for name in sorted(os.listdir(folder)) if name.endswith(ending)] if os.path.isdir(folder) else []
    return [
        f"Case {case} has the label {join(folder, name)}, but no file in imagesTr: add its images, or remove the label."
        for name in labels
        if (case := name.removesuffix(ending)) not in cases
    ]
