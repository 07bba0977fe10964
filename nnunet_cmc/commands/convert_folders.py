"""``nnunet_cmc convert folders``: any dataset, as folders of scans or as a table."""

import argparse
import re
from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_cmc.dataset_conversion.label_names import Classes

HELP = "convert any data, as folders of scans or a table"
DESCRIPTION = """\
Make nnUNet_raw/DatasetID_NAME from scans (.nii.gz .nii .nrrd .mha .mhd, or folders of one DICOM series each).

Registered scans, all of a patient on one grid: one folder of labels. Files of the same name are one case.
  nnunet_cmc convert folders -d 502 --name Abdomen --images CT=ct/ MR=mr/ --labels labels/ --classes liver=1 spleen=2
Unpaired scans, each on its own grid or of its own patient: a folder of labels for each modality.
  nnunet_cmc convert folders -d 502 --name Abdomen --images CT=ct/ MR=mr/ --labels CT=ct_labels/ MR=mr_labels/ \\
      --classes liver=1 spleen=2
A scan without a label is used as an unlabelled one. Instead of a folder, a path with a * (in quotes) may be given,
which stands for the name: --images FLAIR='scans/*_flair.nii.gz' T1='scans/*_t1.nii.gz' --labels 'scans/*_label.nii.gz'
Several * after the same words stand for one text, as in BraTS: T1C='scans/*/*-t1c.nii.gz'; after different words they
stand for parts of the name, the first for the subject: CT='patient*/visit*.nii.gz' (cases 1_1, 1_2 of subject 1), or in
BIDS T1='sub-*/ses-*/anat/sub-*_ses-*_T1w.nii.gz' (cases 01_pre, 01_post of subject 01). So do those after the same
words where one text fits none of the files: CT='scans/*/*/ct.nii.gz' (cases p1_2024, p1_2025 of subject p1).
Modalities that are CT, but not named so: --images CTart=arterial/ CTven=venous/ --ct CTart CTven
A table instead of folders: a CSV file with the columns subject, modality, image, label, part (train or test), and case
where some scans of a subject share a grid and others do not: rows of one case are on one grid.
  nnunet_cmc convert folders -d 502 --name Abdomen --table scans.csv --classes labels.json
"""


def add_folders_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="name of the dataset")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--images", nargs="+", metavar="NAME=FOLDER", help="scans of each modality, in channel order")
    source.add_argument("--table", metavar="CSV", help="file with a row for each scan")
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="[NAME=]FOLDER",
        help="labels: one folder (registered scans), or one for each modality (unpaired scans)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        required=True,
        metavar="CLASS=VALUE",
        help="value of each class in the labels (t=1 t=4 merges two); or a file of them, JSON (as in a dataset.json) "
        "or ITK-SNAP's; or NAME=FILE for each modality, where their values differ",
    )
    parser.add_argument(
        "--ct",
        nargs="+",
        default=[],
        metavar="NAME",
        help="modalities that are CT, in HU, under another name, such as phases of contrast: nnU-Net normalises by the "
        "name, and takes only what is named CT for it",
    )
    parser.add_argument("--test-images", nargs="+", metavar="NAME=FOLDER", help="scans of the test part")
    parser.add_argument("--test-labels", nargs="+", metavar="[NAME=]FOLDER", help="labels of the test part")
    parser.add_argument("--licence", default="", help="licence of the data, for dataset.json")
    parser.add_argument("--reference", default="", help="reference of the data, for dataset.json")


def convert(
    dataset_id: int,
    name: str,
    classes: Sequence[str],
    table: str | None,
    images: Sequence[str] | None,
    labels: Sequence[str] | None,
    test_images: Sequence[str] | None,
    test_labels: Sequence[str] | None,
    **options: Any,
) -> Path:
    from nnunet_cmc.dataset_conversion.folders import convert_folders
    from nnunet_cmc.dataset_conversion.table import convert_table

    values = _classes(classes)
    if table:
        if labels or test_images or test_labels:
            raise ValueError("A table names the labels and the test part itself: leave out --labels and --test-*.")
        return convert_table(dataset_id, name, table, values, **options)
    if not labels:
        raise ValueError("--images needs --labels: give one folder, or one for each modality.")
    return convert_folders(
        dataset_id,
        name,
        _pairs(images or (), "--images"),
        _labels(labels, "--labels"),
        values,
        _pairs(test_images, "--test-images") if test_images else None,
        _labels(test_labels, "--test-labels") if test_labels else None,
        **options,
    )


def _has_name(entry: str) -> bool:
    """Tell whether an entry begins with NAME=, which an = within a path is not."""
    return "=" in entry.partition("/")[0]


def _pairs(entries: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} takes NAME=FOLDER for each modality, such as CT=scans/ct, but got {entry!r}.")
        if name in pairs:
            raise ValueError(
                f"{option} names {name} twice: give each modality a name of its own, and list "
                "those that are CT in --ct."
            )
        pairs[name] = expanduser(value)  # which shells leave as it is after an =
    return pairs


def _labels(entries: Sequence[str], option: str) -> str | dict[str, str]:
    from nnunet_cmc.dataset_conversion.folders import MASKS

    if any(map(_has_name, entries)):
        return _pairs(entries, option)
    if len(entries) > 1:
        raise ValueError(
            f"{option} takes one folder (registered scans) or NAME=FOLDER for each modality, but got {len(entries)}: "
            f"put a path with a * in quotes, and give one folder of labels. {MASKS}."
        )
    return expanduser(entries[0])


def _classes(entries: Sequence[str]) -> "Classes":
    from nnunet_cmc.dataset_conversion.label_names import read_classes

    if len(entries) == 1 and not _has_name(entries[0]) and Path(entries[0]).suffix:
        return read_classes(entries[0])
    values: dict[str, list[int]] = {}
    files: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        number = re.fullmatch(r"[\d.]*", value)
        if not name or not (value.isdecimal() if number else Path(value).suffix):
            raise ValueError(
                "--classes takes CLASS=VALUE, such as liver=1, for each class, or a file of them, but got "
                f"{entry!r}: write whole numbers, and blanks between the classes."
            )
        if number:
            values.setdefault(name, []).append(int(value))
        elif name in files:
            raise ValueError(f"--classes names {name} twice: name it once.")
        else:
            files[name] = expanduser(value)
    if values and files:
        raise ValueError("--classes takes CLASS=VALUE for each class or NAME=FILE for each modality, but not both.")
    return values or {modality: read_classes(file) for modality, file in files.items()}
