"""A whole dataset in raw format: its unlabelled cases, and a look at all cases that takes seconds."""

import os
from collections import defaultdict
from os.path import join

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_cmc.data.dataset_json import check_dataset_json
from nnunet_cmc.data.presence import channel_names, present_channels
from nnunet_cmc.data.raw_case import check_case, split_name


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
    names, folder = channel_names(dataset_json), join(raw_folder, "imagesUn")
    for case, images in unlabeled_cases(raw_folder, dataset_json["file_ending"]).items():
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
