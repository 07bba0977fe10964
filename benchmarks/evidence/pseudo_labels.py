"""Iterated pseudo-labels: nnU-Net labels the unlabelled scans and is trained again on all."""

import json
import shutil
from pathlib import Path

import SimpleITK as sitk

from nnunet_cmc.utils.files import write_json


def make_dataset(teacher_raw: Path, predicted: Path, unlabeled: list[str], raw: Path) -> None:
    """Copy the teacher's raw dataset, with its predictions in place of the labels of the unlabelled cases.

    Args:
        teacher_raw: the dataset that the teacher was trained on.
        predicted: its predictions, named as the cases.
        unlabeled: the cases, all of which it predicted.
        raw: the folder to make.
    """
    shutil.copytree(teacher_raw, raw)
    for case in unlabeled:
        label = sitk.ReadImage(str(predicted / f"{case}.nii.gz"), sitk.sitkUInt8)
        sitk.WriteImage(label, str(raw / "labelsTr" / f"{case}.nii.gz"))
    description = json.loads((raw / "dataset.json").read_text())
    write_json(raw / "dataset.json", description | {"name": raw.name})


def fold_with_pseudo_labels(fold: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the fold, whose unlabelled cases are labelled now."""
    return {"train": sorted(fold["train"] + fold["unlabeled"]), "val": fold["val"]}


def put_unlabeled(teacher_raw: Path, unlabeled: list[str], cases: Path) -> None:
    """Copy the scans of the cases to predict."""
    shutil.rmtree(cases, ignore_errors=True)
    cases.mkdir(parents=True)
    for case in unlabeled:
        for file in (teacher_raw / "imagesTr").glob(f"{case}_????.nii.gz"):
            shutil.copy(file, cases)
