"""Conversion of any dataset: a folder of scans for each modality, and folders of labels.

Files belong together by their names without suffix. Labels in one folder mean registered modalities: the files of one
name, of all modalities that have it, are one case. Labels in a folder for each modality mean scans on grids of their
own: each is a case ``NAME_MODALITY``, and scans of one name are the same patient's. A scan may be a folder that holds
one DICOM series. Other layouts are paths with ``*`` (:mod:`nnunet_cmc.dataset_conversion.path_pattern`).
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset
from nnunet_cmc.dataset_conversion.dicom import is_dicom
from nnunet_cmc.dataset_conversion.label_names import Classes, number_classes
from nnunet_cmc.dataset_conversion.modalities import require_usable
from nnunet_cmc.dataset_conversion.path_pattern import PathPattern
from nnunet_cmc.dataset_conversion.source_files import UnusedFiles, files_of_two_uses
from nnunet_cmc.dataset_conversion.volume import SUFFIXES, describe_unread_scan, suffix_of, volume_name
from nnunet_cmc.utils.files import visible_below

Source = str | Path
Sources = Mapping[str, Source]
MASKS = "One file shows all classes: merge masks of single ones, for example by SimpleITK.Maximum(liver, 2 * spleen)"
SLOW_LISTING = 5  # seconds from which on a bar is shown: DICOM folders are read


class NamedScan(NamedTuple):
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
        labels: one source (registered modalities), or one for each modality (unpaired scans).
        classes: value of each class in the label files, or such a mapping for each modality; the dataset numbers
            them 1, 2, 3, ... in the order of (the first modality's) values.
        test_images: the same for the test part, of any of the modalities.
        test_labels: labels of the test part, in the form of ``labels``; a test scan need not have one.
        options: of :func:`~nnunet_cmc.dataset_conversion.dataset_writer.write_raw_dataset`.

    Raises:
        ValueError: the sources do not fit together, or files are bad (all of them are listed).
    """
    channels, separate = list(images), isinstance(labels, Mapping)
    _require_matching(images, separate, test_images, test_labels)
    numbers, values = number_classes(classes, channels)
    if not separate and any(own != values[0] for own in values):
        raise ValueError("There are classes for each modality, but one folder of labels: give classes once.")
    unused = UnusedFiles()
    cases = []
    subjects: dict[str, NamedScan] = {}  # the first scan of each name
    of_two_subjects: dict[str, NamedScan] = {}
    for test, part_images, part_labels in ((False, images, labels), (True, test_images or {}, test_labels)):
        for group, label_source in _sharing_labels(part_images, part_labels, separate):
            scans, label_files = _files(group, label_source, unused)
            if not test or label_files:  # without labels, test cases may well have one modality each
                unused.errors += _named_otherwise(scans, label_files)
            for stem, scan in chain.from_iterable(files.items() for files in scans.values()):
                if subjects.setdefault(stem, scan).subject != scan.subject:
                    of_two_subjects.setdefault(stem, scan)
            for stem in dict.fromkeys(chain.from_iterable(scans.values())):
                files = {channels.index(m): found[stem].path for m, found in scans.items() if stem in found}
                case = f"{stem}_{next(iter(group))}" if separate else stem
                label_file = label_files[stem].path if stem in label_files else None
                cases.append(Case(case, subjects[stem].subject, files, label_file, test, values[min(files)]))
    for stem, other in list(of_two_subjects.items())[:1]:
        first = subjects[stem]
        unused.errors.append(
            f"{len(of_two_subjects)} name(s) of scans belong to two subjects, such as {stem}: {first.path} is of the "
            f"subject {first.subject}, {other.path} of {other.subject}; give paths in which the first * stands for the "
            "same subject, such as '*_*.nii.gz' beside '*/*/ct.nii.gz', or list the scans in a table (--table)."
        )
    unused.errors += files_of_two_uses(cases, channels)
    _note_visits({case.subject for case in cases})
    return write_raw_dataset(dataset_id, name, channels, numbers, cases, unused=unused, **options)


def _require_matching(
    images: Sources, separate: bool, test_images: Sources | None, test_labels: Source | Sources | None
) -> None:
    """Raise a ValueError if a modality's name is impossible, or the test part does not fit the training part.

    Args:
        separate: whether each modality has its own source of labels.
    """
    require_usable(images)
    for part in (images, test_images or {}):
        given: dict[Path, str] = {}
        for modality, source in part.items():
            if (first := given.setdefault(Path(source).resolve(), modality)) != modality:
                example = _further_down(Path(source))
                own = f"a path with a *, such as '{example}'" if example else "a folder"
                raise ValueError(f"{first} and {modality} have the same source, {source}: give each {own} of its own.")
    if test_labels is not None and isinstance(test_labels, Mapping) != separate:
        raise ValueError("The test labels must come as the training labels do: one folder, or one for each modality.")
    if test_labels is not None and not test_images:
        raise ValueError("There are test labels but no test images: give both, or neither.")
    if unknown := [modality for modality in test_images or () if modality not in images]:
        raise ValueError(
            f"The test modality {unknown[0]} is none of the training modalities {', '.join(images)}: correct its name, "
            "or leave it out."
        )


def _files(
    images: Sources, labels: Source | None, unused: UnusedFiles
) -> tuple[dict[str, dict[str, NamedScan]], dict[str, NamedScan]]:
    """Find the scans of each modality and their labels, by name; labels without a scan are errors of ``unused``."""
    scans = {modality: _volumes(source, unused) for modality, source in images.items()}
    label_files = {} if labels is None else _volumes(labels, unused)
    names = {name for files in scans.values() for name in files}
    if orphans := [name for name in label_files if name not in names]:
        paths = [str(label_files[name].path) for name in orphans]
        nearest = _nearest(orphans[0], names)
        example = _such_as(label_files, orphans[0], nearest) if len(orphans) == len(label_files) else ""
        unused.errors.append(
            f"{len(orphans)} label(s) have no scan of the same name in {' or '.join(map(str, images.values()))} (the "
            f"nearest is named {nearest}): {', '.join(paths[:5])}{', ...' if len(paths) > 5 else ''}; rename or remove "
            f"them, or give a path with a * where the name is{example}."
        )
    return scans, label_files


def _named_otherwise(scans: Mapping[str, Mapping[str, NamedScan]], labels: Mapping[str, NamedScan]) -> list[str]:
    """List modalities of several, none of whose files has the name of a label or of another modality's file."""
    found = []
    for modality, own in scans.items():
        others = [labels, *(files for other, files in scans.items() if other != modality)]
        if len(others) > 1 and not any(own.keys() & files.keys() for files in others):
            name = min(own)
            other = {name: volume.path for files in others for name, volume in files.items()}
            nearest = _nearest(name, other)
            found.append(
                f"No scan of {modality} is named as a label or a scan of another modality, as {own[name].path} and "
                f"{other[nearest]}: name them alike, or give a path with a * where the common name "
                f"is{_such_as(own, name, nearest)}."
            )
    return found


def _nearest(name: str, names: Collection[str]) -> str:
    return difflib.get_close_matches(name, sorted(names), 1, cutoff=0)[0]


def _such_as(files: Mapping[str, NamedScan], name: str, other: str) -> str:
    """Return an example of a path with ``*`` for what the name of a file has in common with another; "" if nothing."""
    match = difflib.SequenceMatcher(None, name, other, autojunk=False).find_longest_match()
    common = name[match.a : match.a + match.size].strip("_-. ")
    path = files[name].path
    return f", such as '{path.parent / path.name.replace(common, '*', 1)}'" if common not in ("", name) else ""


def _note_visits(subjects: Collection[str]) -> None:
    """Print a remark where most subjects look like several scans of one patient: p1_v1, p1_v2, p2_v1, p2_v2."""
    visits: dict[tuple[str, str], list[str]] = defaultdict(list)
    for subject in sorted(subjects):
        if match := re.fullmatch(r"(.+)([_-])([^_-]{1,4})", subject):
            visits[match[1], match[2]].append(match[3])
    several = {patient: own for patient, own in visits.items() if len(own) > 1}
    # fewer endings than beginnings: not the numbered patients of some hospitals
    if len(visits) >= len({*chain(*visits.values())}) and 2 * sum(map(len, several.values())) >= len(subjects) > 0:
        (patient, between), (first, second, *_) = next(iter(several.items()))
        print(
            f"{patient}{between}{first} and {patient}{between}{second} look like scans of one patient, but are two "
            "subjects, which a split may separate: if they are of one, give a path with a * for the patient and one "
            f"for the rest, such as '*{between}*.nii.gz'."
        )


def _sharing_labels(
    images: Sources, labels: Source | Sources | None, separate: bool
) -> list[tuple[Sources, Source | None]]:
    """Group the modalities that share labels, each group with its source of labels, if it has one."""
    if not separate:
        assert not isinstance(labels, Mapping)
        return [(images, labels)] if images else []
    assert labels is None or isinstance(labels, Mapping)
    if unknown := [modality for modality in labels or () if modality not in images]:
        raise ValueError(
            f"There are labels but no images of {unknown[0]}: the images are of {', '.join(images)}. {MASKS}."
        )
    return [({modality: source}, (labels or {}).get(modality)) for modality, source in images.items()]


def _volumes(source: Source, unused: UnusedFiles) -> dict[str, NamedScan]:
    """Find the volumes of a source, files or DICOM folders, by the name that they share with those of other sources."""
    if "*" not in str(source) and not Path(source).is_dir():
        raise ValueError(f"There is no folder {source}: give a folder, or a path with a * where the name is.")
    pattern = PathPattern(source if "*" in str(source) else Path(source, "*"))
    files: dict[str, Path] = {}
    subjects: dict[str, str] = {}
    for path in tqdm([*pattern.paths()], f"Listing {source}", unit="file", delay=SLOW_LISTING):
        if (stem := volume_name(path)) is None:
            if error := describe_unread_scan(path):
                unused.errors.append(error)
            else:
                unused.left_out[path] = "not a volume"
            continue
        name, subject = pattern.name_and_subject(path, path.name.removeprefix(stem))
        unused.enter(files, name, path, f"named {name}", "name them apart, remove one, or list the scans in a table")
        subjects.setdefault(name, subject)
    if not files and (example := _further_down(Path(source))):
        raise ValueError(f"There is no volume in {source} itself: give a path with a *, such as '{example}'.")
    if not files:
        raise ValueError(
            f"There is no volume in {source}: volumes end in {' '.join(SUFFIXES)}, or are folders of one DICOM series; "
            "files that lie otherwise can be listed in a table (--table)."
        )
    return {name: NamedScan(file, subjects[name]) for name, file in files.items()}


def _further_down(folder: Path) -> Path | None:
    """Return a path with ``*`` for a volume in a folder of ``folder`` and all that lie in the same way, if any does."""
    for file in visible_below(folder):
        if (volume := file if suffix_of(file) else file.parent) is file or is_dicom(file):
            first, *rest = volume.relative_to(folder).parts
            alone = rf"(?<![^\W_]){re.escape(first)}(?![^\W_])"
            return Path(folder, "*", *(re.sub(alone, "*", part) for part in rest)) if rest else None
    return None
