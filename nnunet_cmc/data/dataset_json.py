"""``dataset.json`` as a file from anywhere: checked once, so that all others may rely on what it says."""

import os
import re
from typing import Any

from nnunet_cmc.data.files import read_json, require_plain_names
from nnunet_cmc.data.presence import channel_names, present_channels, subject_of

REMEDY = "convert the dataset again, or correct the file"


def read_dataset_json(file: str | os.PathLike) -> dict[str, Any]:
    """The checked content of a ``dataset.json``. ValueError: see :func:`check_dataset_json`; or it is no JSON."""
    content = read_json(file, REMEDY)
    check_dataset_json(content, file)
    return content


def check_dataset_json(content: Any, file: str | os.PathLike) -> None:
    """ValueError, which names ``file``, unless ``content`` has sound channels, labels, file ending and cmc key."""
    if not isinstance(content, dict):
        raise ValueError(f"{file} must be a JSON object, but is {_short(content)}: {REMEDY}.")
    try:
        channel_names(content)
        _check_file_ending(content.get("file_ending"))
        _check_labels(content.get("labels"))
        cmc = content.get("cmc")
        require_plain_names([*_keys(cmc, "present_channels"), *_keys(cmc, "subjects")], "The cmc key")
        for case in _keys(cmc, "present_channels"):
            present_channels(content, case)
        for case in _keys(cmc, "subjects"):
            subject_of(content, case)
        present_channels(content, ""), subject_of(content, "")  # what is wrong where nothing is listed
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    check_listed_cases(content, file)


def check_listed_cases(content: dict, file: str | os.PathLike) -> None:
    """ValueError unless nnU-Net's key ``dataset``, which may list the files of each case, is sound or not there."""
    if "dataset" not in content:
        return
    cases = content["dataset"]
    if not isinstance(cases, dict) or not cases:
        raise ValueError(
            f'{file}: "dataset" must map each case to its "images" and its "label", but is {_short(cases)}: {REMEDY}.'
        )
    require_plain_names(cases, f'{file}: "dataset"')
    for case, files in cases.items():
        images, label = (files.get("images"), files.get("label")) if isinstance(files, dict) else (None, None)
        if not isinstance(images, list) or not images or not all(isinstance(name, str) for name in [*images, label]):
            raise ValueError(
                f'{file}: Case {case} of "dataset" must have a list of files "images" and a file "label", but is '
                f"{_short(files)}: {REMEDY}."
            )


def require_plain_labels(dataset_json: dict, who: str) -> None:
    """ValueError if labels are regions, or one is to be ignored; ``who`` does not support either."""
    labels = dataset_json["labels"]
    kind = "an ignore label" if "ignore" in labels else None
    if any(isinstance(value, list) and len(value) > 1 for value in labels.values()):
        kind = "region-based labels"
    if kind:
        raise ValueError(f"{who} does not support {kind}, which dataset.json has: use one integer per class.")


def _check_file_ending(ending: Any) -> None:
    if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
        raise ValueError(f'"file_ending" must be one such as ".nii.gz", but is {_short(ending)}: {REMEDY}.')


def _check_labels(labels: Any) -> None:
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f'"labels" must map the name of each class to its value, but is {_short(labels)}: {REMEDY}.')
    values = [v for value in labels.values() for v in (value if isinstance(value, list) else [value])]
    numbered = all(type(value) is int for value in values) and set(values) == set(range(len(set(values))))
    distinct = len({str(value) for value in labels.values()}) == len(labels) and [] not in labels.values()
    if not numbered or not distinct or labels.get("background") not in (0, [0]):
        raise ValueError(
            f'"labels" must have the background 0 and classes 1, 2, 3, ..., but is {_short(labels)}: {REMEDY}.'
        )


def _keys(cmc: Any, key: str) -> list[str]:
    entries = cmc.get(key) if isinstance(cmc, dict) else None
    return list(entries) if isinstance(entries, dict) else []


def _short(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 200 else text[:200] + "..."
