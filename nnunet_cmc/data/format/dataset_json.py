"""``dataset.json``, which may come from anywhere, parsed and checked once into a frozen description."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_cmc.data.format.presence import channel_names, present_channels_of_all, subjects_of_all
from nnunet_cmc.utils.files import read_json, require_plain_names

REMEDY = "convert the dataset again, or correct the file"


@dataclass(frozen=True)
class DatasetDescription:
    """Content of a ``dataset.json``. See :mod:`nnunet_cmc.data.format.presence` for its ``cmc`` key.

    Attributes:
        modalities: names of the modalities, in channel order.
        normalization_names: nnU-Net's ``channel_names``, by which it chooses how to normalise each channel.
        labels: class -> value, or values where the class is a region; with ``background`` and, if any, ``ignore``.
        file_ending: of images and labels, such as ``.nii.gz``.
        present_channels: case -> indices of the modalities that it was scanned in, rising, where this is stated.
        subjects: case -> identifier of the patient, where this is stated.
        listed_files: nnU-Net's key ``dataset``, case -> its ``images`` and its ``label``; None if folders are searched.
        has_cmc_key: whether it was written for this package.
    """

    modalities: tuple[str, ...]
    normalization_names: tuple[str, ...]
    labels: Mapping[str, int | tuple[int, ...]]
    file_ending: str
    present_channels: Mapping[str, tuple[int, ...]]
    subjects: Mapping[str, str]
    listed_files: Mapping[str, Mapping[str, Any]] | None = None
    has_cmc_key: bool = False

    @classmethod
    def from_dict(cls, content: Any, file: str | os.PathLike = "dataset.json") -> "DatasetDescription":
        """Check the content of a ``dataset.json`` and parse it.

        Raises:
            ValueError: names ``file``; channels, labels, file ending, cmc key or listed files are unsound.
        """
        if not isinstance(content, dict):
            raise ValueError(f"{file} must be a JSON object, but is {_short(content)}: {REMEDY}.")
        try:
            modalities = channel_names(content)
            _check_file_ending(content.get("file_ending"))
            _check_labels(content.get("labels"))
            cmc = content.get("cmc")
            require_plain_names([*_keys(cmc, "present_channels"), *_keys(cmc, "subjects")], "The cmc key")
            present, subjects = present_channels_of_all(content), subjects_of_all(content)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        _check_listed_files(content, file)
        return cls(
            tuple(modalities),
            tuple(str(content["channel_names"][str(channel)]) for channel in range(len(modalities))),
            {name: tuple(value) if isinstance(value, list) else value for name, value in content["labels"].items()},
            content["file_ending"],
            present,
            subjects,
            content.get("dataset"),
            "cmc" in content,
        )

    @classmethod
    def of(cls, content: "DatasetDescription | dict[str, Any]") -> "DatasetDescription":
        """Return a description as it is, and parse a dict, as nnU-Net hands it around. ValueError: see from_dict."""
        return content if isinstance(content, cls) else cls.from_dict(content)

    @classmethod
    def read(cls, file: str | os.PathLike) -> "DatasetDescription":
        """Read and parse a file. ValueError: it is no JSON, or see :meth:`from_dict`."""
        return cls.from_dict(read_json(file, REMEDY), file)

    def subject_of(self, case: str) -> str:
        """Return the identifier of the patient whose scan ``case`` is: itself, where nothing else is stated."""
        return self.subjects.get(case, case)

    def possible_channels(self, case: str) -> tuple[int, ...]:
        """Return the channels of ``case``, all of them where it is not stated which it has."""
        return self.present_channels.get(case, tuple(range(len(self.modalities))))

    def label_values(self) -> list[int]:
        """List all values that a label map may have, rising; that of ``ignore``, if any, among them."""
        return sorted({v for value in self.labels.values() for v in (value if isinstance(value, tuple) else (value,))})

    def require_plain_labels(self, who: str) -> None:
        """ValueError if labels are regions, or one is to be ignored; ``who`` does not support either."""
        kind = "an ignore label" if "ignore" in self.labels else None
        if any(isinstance(value, tuple) and len(value) > 1 for value in self.labels.values()):
            kind = "region-based labels"
        if kind:
            raise ValueError(f"{who} does not support {kind}, which dataset.json has: use one integer per class.")


def read_dataset_json(file: str | os.PathLike) -> dict[str, Any]:
    """Read a ``dataset.json`` as nnU-Net takes it. ValueError: see :meth:`DatasetDescription.read`."""
    content = read_json(file, REMEDY)
    DatasetDescription.from_dict(content, file)
    return content


def check_dataset_json(content: Any, file: str | os.PathLike) -> None:
    """ValueError: see :meth:`DatasetDescription.from_dict`."""
    DatasetDescription.from_dict(content, file)


def require_plain_labels(dataset_json: dict, who: str) -> None:
    """ValueError: see :meth:`DatasetDescription.require_plain_labels`."""
    DatasetDescription.of(dataset_json).require_plain_labels(who)


def _check_listed_files(content: dict, file: str | os.PathLike) -> None:
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
