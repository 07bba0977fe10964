"""``dataset.json``, untrusted, parsed and checked once into a frozen description.

Its ``cmc`` key, ``{"version": 1, "present_channels": {case: [0]}, "subjects": {case: id}}``, states the modalities and
the subject of each case. For a case that it does not list, a channel is absent exactly if all its voxels are zero, and
the case is its own subject. It may also list the names of the ``modalities``, such as ``["CT early", "CT late"]``,
since ``channel_names`` tell nnU-Net how to normalise them.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_cmc.utils.files import read_json, require_plain_names
from nnunet_cmc.utils.names import numbered_if_equal

REMEDY = "convert the dataset again, or correct the file"
VERSION = 1  # of the cmc key


@dataclass(frozen=True)
class DatasetDescription:
    """Content of a ``dataset.json``.

    Attributes:
        modalities: in channel order.
        normalization_names: nnU-Net's ``channel_names``, by which it chooses how to normalise each channel.
        labels: class -> value, or several values if the class is a region; with ``background`` and, if any, ``ignore``.
        file_ending: of images and labels, such as ``.nii.gz``.
        present_channels: case -> indices of its modalities in ascending order, if stated.
        subjects: case -> identifier of the patient, if stated.
        listed_files: nnU-Net's key ``dataset``, case -> its ``images`` and its ``label``; None if folders are searched.
        has_cmc_key: whether it has a ``cmc`` key.
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
        """Parse the content of a ``dataset.json``. ValueError names ``file`` and the invalid entry."""
        if not isinstance(content, dict):
            raise ValueError(f"{file} must be a JSON object, but is {_short(content)}: {REMEDY}.")
        try:
            modalities = modality_names(content)
            ending = content.get("file_ending")
            if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
                raise ValueError(f'"file_ending" must be one such as ".nii.gz", but is {_short(ending)}: {REMEDY}.')
            _check_labels(content.get("labels"))
            present, subjects = _entries_of_cmc(content.get("cmc", {"version": VERSION}))
            require_plain_names([*present, *subjects], "The cmc key")
            stated = {case: channels for case, channels in present.items() if channels is not None}
            for case, channels in stated.items():
                _check_channels(case, channels, len(modalities))
            for case, subject in subjects.items():
                if not isinstance(subject, str):
                    raise ValueError(
                        f'Case {case}: its entry of "subjects" in dataset.json must be a text, but is {subject!r}.'
                    )
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        if "dataset" in content:
            _check_listed_files(content["dataset"], file)
        return cls(
            tuple(modalities),
            tuple(str(content["channel_names"][str(channel)]) for channel in range(len(modalities))),
            {name: _plain(value) for name, value in content["labels"].items()},
            ending,
            {case: tuple(sorted(channels)) for case, channels in stated.items()},
            subjects,
            content.get("dataset"),
            "cmc" in content,
        )

    @classmethod
    def of(cls, content: "DatasetDescription | dict[str, Any]") -> "DatasetDescription":
        """Return a description as it is, or parse nnU-Net's dict. ValueError: see :meth:`from_dict`."""
        return content if isinstance(content, cls) else cls.from_dict(content)

    @classmethod
    def read(cls, file: str | os.PathLike) -> "DatasetDescription":
        """Read and parse a file. ValueError: it is no JSON, or see :meth:`from_dict`."""
        return cls.from_dict(read_dataset_json(file), file)

    def subject_of(self, case: str) -> str:
        """Return the identifier of the patient of ``case``: by default the case itself."""
        return self.subjects.get(case, case)

    def possible_channels(self, case: str) -> tuple[int, ...]:
        """Return the channels of ``case``: all, if they are not stated."""
        return self.present_channels.get(case, tuple(range(len(self.modalities))))

    def label_values(self) -> list[int]:
        """List all values that a label map may have in ascending order, including that of ``ignore``."""
        return sorted({v for value in self.labels.values() for v in (value if isinstance(value, tuple) else (value,))})

    def require_plain_labels(self, who: str) -> None:
        """Raise ValueError if labels are regions or one is ``ignore``, which ``who`` does not support."""
        kind = "an ignore label" if "ignore" in self.labels else None
        if any(isinstance(value, tuple) for value in self.labels.values()):
            kind = "region-based labels"
        if kind:
            raise ValueError(f"{who} does not support {kind}, which dataset.json has: use one integer per class.")


def read_dataset_json(file: str | os.PathLike) -> Any:
    """Read the content of a ``dataset.json``, unchecked. ValueError: it is no JSON, or not there."""
    return read_json(file, REMEDY)


def modality_names(content: dict) -> list[str]:
    """Return the names of the modalities, in channel order: the ``cmc`` key's, else those of ``channel_names``.

    Equal names, such as CT twice, become ``CT 0`` and ``CT 1``. ValueError: ``channel_names`` is not numbered 0, 1, 2,
    ..., or the modalities do not fit it.
    """
    names = content.get("channel_names")
    if not isinstance(names, dict) or not names or sorted(names) != sorted(str(i) for i in range(len(names))):
        raise ValueError(
            f'dataset.json must have "channel_names" numbered "0", "1", ... but has {names!r}: '
            "name every modality there, in the order of the files' _0000, _0001, ..."
        )
    cmc = content.get("cmc")
    if isinstance(cmc, dict) and "modalities" in cmc:
        own = cmc["modalities"]
        texts = isinstance(own, list) and all(isinstance(name, str) and name for name in own)
        if not texts or not len(own) == len(set(own)) == len(names):
            raise ValueError(
                f'"modalities" in the cmc key of dataset.json must be a list of {len(names)} different names, one for '
                f"each of channel_names, but is {own!r}: correct it, or remove it."
            )
        return own
    return numbered_if_equal([str(names[str(i)]) for i in range(len(names))])


def _entries_of_cmc(cmc: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return ``present_channels`` and ``subjects`` of the ``cmc`` key, each by case."""
    if not isinstance(cmc, dict) or cmc.get("version") != VERSION:
        found = cmc.get("version") if isinstance(cmc, dict) else cmc
        raise ValueError(
            f"The cmc key of dataset.json has version {found!r}, but this nnunet_cmc reads version {VERSION}: "
            "convert the dataset again or install the nnunet_cmc that wrote it."
        )
    entries = {key: cmc.get(key, {}) for key in ("present_channels", "subjects")}
    for key, value in entries.items():
        if not isinstance(value, dict):
            raise ValueError(f'"{key}" in the cmc key of dataset.json must map cases to values, but is {value!r}.')
    return entries["present_channels"], entries["subjects"]


def _check_channels(case: str, channels: Any, count: int) -> None:
    integers = isinstance(channels, list) and all(isinstance(c, int) and not isinstance(c, bool) for c in channels)
    if not integers or not channels or len(set(channels)) < len(channels):
        raise ValueError(
            f'Case {case}: "present_channels" in the cmc key of dataset.json must be a list of different channel '
            f"numbers, such as [0], but is {channels!r}."
        )
    if min(channels) < 0 or max(channels) >= count:
        raise ValueError(
            f'Case {case}: "present_channels" in the cmc key of dataset.json is {channels}, '
            f"but the dataset has {count} channel(s), numbered from 0: correct the list or channel_names."
        )


def _check_listed_files(cases: Any, file: str | os.PathLike) -> None:
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


def _check_labels(labels: Any) -> None:
    if not isinstance(labels, dict) or not labels:
        raise ValueError(f'"labels" must map the name of each class to its value, but is {_short(labels)}: {REMEDY}.')
    values = [v for value in labels.values() for v in (value if isinstance(value, list) else [value])]
    numbered = all(type(value) is int for value in values) and set(values) == set(range(len(set(values))))
    distinct = len({str(value) for value in labels.values()}) == len(labels) and [] not in labels.values()
    # nnU-Net takes lists for neither
    if not numbered or not distinct or labels.get("background") != 0 or isinstance(labels.get("ignore"), list):
        raise ValueError(
            f'"labels" must have the background 0 and classes 1, 2, 3, ..., but is {_short(labels)}: {REMEDY}.'
        )


def _plain(value: int | list[int]) -> int | tuple[int, ...]:
    """Return the values of a region, or the one value of a class, which may be in a list."""
    if isinstance(value, int):
        return value
    return value[0] if len(value) == 1 else tuple(value)


def _short(content: Any) -> str:
    text = repr(content)
    return text if len(text) <= 200 else text[:200] + "..."
