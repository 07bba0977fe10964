"""Anybody's data: a folder of scans for each modality, and folders of labels.

Files belong together by their names without suffix. Labels in one folder mean registered modalities: the files of one
name, of all modalities that have it, are one case. Labels in a folder for each modality mean scans on grids of their
own: each is a case ``NAME_MODALITY``, and scans of one name are the same patient's. A scan may be a folder that holds
one DICOM series. Other layouts are paths with ``*`` (:mod:`nnunet_cmc.dataset_conversion.path_pattern`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.label_names import Classes, numbered
from nnunet_cmc.dataset_conversion.path_pattern import PathPattern
from nnunet_cmc.dataset_conversion.raw_dataset import write_raw_dataset
from nnunet_cmc.dataset_conversion.volume import SUFFIXES, overlooked, volume_name

Source = str | Path
Sources = Mapping[str, Source]


class Volume(NamedTuple):
    path: Path
    subject: str


def convert_folders(
    dataset_id: int,
    name: str,
    images: Sources,
    labels: Source | Sources,
    classes: Classes,
    test_images: Sources | None = None,
    test_labels: Source | Sources | None = None,
    **options: Any,
) -> Path:
    """Write the raw dataset ``Dataset{ID:03d}_{name}`` and return its folder.

    A source of files is a folder, or a path with ``*`` that stand for the scan's name, as in ``scans/*_flair.nii.gz``
    or ``*/*_flair.nii.gz``. Scans without a label become unlabelled cases (``imagesUn``).

    Args:
        images: source of the scans of each modality; their order is the order of the channels.
        labels: one source (registered modalities), or one for each modality (separate scans).
        classes: value of each class in the label files, or such a mapping for each modality; the dataset numbers
            them 1, 2, 3, ... in the order of (the first modality's) values.
        test_images: the same for the test part, of any of the modalities.
        test_labels: labels of the test part, in the form of ``labels``; a test scan need not have one.
        options: of :func:`~nnunet_cmc.dataset_conversion.raw_dataset.write_raw_dataset`.

    Raises:
        ValueError: the sources do not fit together, or files are bad (all of them are listed).
    """
    channels = list(images)
    for modality in channels:
        if not re.fullmatch(r"[\w.+-]+", modality):
            raise ValueError(f"A modality's name may have letters, digits and _ . + - only, but one is {modality!r}.")
    if test_labels is not None and isinstance(test_labels, Mapping) != isinstance(labels, Mapping):
        raise ValueError("The test labels must come as the training labels do: one folder, or one for each modality.")
    if test_labels is not None and not test_images:
        raise ValueError("There are test labels but no test images: give both, or neither.")
    numbers, values = numbered(classes, channels)
    if not isinstance(labels, Mapping) and any(own != values[0] for own in values):
        raise ValueError("There are classes for each modality, but one folder of labels: give classes once.")
    parts = [(images, labels, False), *([(test_images, test_labels, True)] if test_images else [])]
    cases: list[Case] = []
    left_out: dict[Path, str] = {}
    faults: list[str] = []
    for part_images, part_labels, test in parts:
        if isinstance(labels, Mapping):
            assert part_labels is None or isinstance(part_labels, Mapping)
            cases += _separate_scans(channels, part_images, part_labels or {}, test, values, left_out, faults)
        else:
            assert not isinstance(part_labels, Mapping)
            cases += _registered_scans(channels, part_images, part_labels, test, values, left_out, faults)
    return write_raw_dataset(dataset_id, name, channels, numbers, cases, left_out=left_out, faults=faults, **options)


def _registered_scans(
    channels: Sequence[str],
    images: Sources,
    labels: Source | None,
    test: bool,
    values: Sequence[dict[int, int] | None],
    left_out: dict[Path, str],
    faults: list[str],
) -> list[Case]:
    """One case for each name, with the scans of all modalities that have it."""
    scans = {_channel(channels, modality): _volumes(source, left_out, faults) for modality, source in images.items()}
    subjects = {name: scan.subject for files in scans.values() for name, scan in files.items()}
    label_files = {} if labels is None else _volumes(labels, left_out, faults)
    faults += _without_scans(label_files, subjects, f"in {' or '.join(map(str, images.values()))}")
    cases = []
    for name in sorted(subjects):
        images_of_case = {channel: files[name].path for channel, files in scans.items() if name in files}
        cases.append(Case(name, subjects[name], images_of_case, _path(label_files, name), test, values[0]))
    return cases


def _separate_scans(
    channels: Sequence[str],
    images: Sources,
    labels: Sources,
    test: bool,
    values: Sequence[dict[int, int] | None],
    left_out: dict[Path, str],
    faults: list[str],
) -> list[Case]:
    """One case for each scan of each modality."""
    for modality in labels:
        if modality not in images:
            raise ValueError(f"There are labels but no images of {modality}: the images are of {', '.join(images)}.")
    cases = []
    for modality, source in images.items():
        channel = _channel(channels, modality)
        scans = _volumes(source, left_out, faults)
        label_files = _volumes(labels[modality], left_out, faults) if modality in labels else {}
        faults += _without_scans(label_files, scans, f"in {source}")
        cases += [
            Case(
                f"{name}_{modality}",
                scan.subject,
                {channel: scan.path},
                _path(label_files, name),
                test,
                values[channel],
            )
            for name, scan in scans.items()
        ]
    return cases


def _channel(channels: Sequence[str], modality: str) -> int:
    if modality not in channels:
        raise ValueError(f"The test modality {modality} is none of the training modalities {', '.join(channels)}.")
    return channels.index(modality)


def _path(volumes: Mapping[str, Volume], name: str) -> Path | None:
    return volumes[name].path if name in volumes else None


def _without_scans(labels: Mapping[str, Volume], scans: Iterable[str], where: str) -> list[str]:
    names = set(scans)
    orphans = [str(label.path) for name, label in labels.items() if name not in names]
    if not orphans:
        return []
    return [
        f"{len(orphans)} label(s) have no scan of the same name {where} (the first is named {min(names)}): "
        f"{_listed(orphans)}; rename or remove them, or give a path with a * where the name is."
    ]


def _volumes(source: Source, left_out: dict[Path, str], faults: list[str]) -> dict[str, Volume]:
    """Volumes of a source, files or DICOM folders, by the name that they share with those of other sources.

    What is no volume goes to ``left_out``, with the reason; of two volumes of one name, ``faults`` gets a sentence.
    """
    if "*" not in str(source) and not Path(source).is_dir():
        raise ValueError(f"There is no folder {source}: give a folder, or a path with a * where the name is.")
    pattern = PathPattern(source if "*" in str(source) else Path(source, "*"))
    volumes: dict[str, Volume] = {}
    for path in pattern.paths():
        if (stem := volume_name(path)) is None:
            if fault := overlooked(path):
                faults.append(fault)
            else:
                left_out[path] = "not a volume"
            continue
        name, subject = pattern.name_and_subject(path, path.name.removeprefix(stem))
        if name in volumes:
            faults.append(f"case {name}: {volumes[name].path} and {path} have the same name: remove one of them.")
        volumes.setdefault(name, Volume(path, subject))
    if not volumes:
        raise ValueError(
            f"There is no volume in {source}: volumes end in {' '.join(SUFFIXES)}, or are folders of one DICOM series; "
            "files that lie otherwise can be listed in a table (--table)."
        )
    return volumes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
