"""The cases that compared systems are evaluated on: scans with labels, shown with one modality and with all they have.

Each set of modalities that is shown of a case is a case of its own, ``CASE_CT``, ``CASE_MR`` or ``CASE_CT+MR``, so that
nnU-Net predicts them all in one run, and the evaluation finds them by the modalities that were shown.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import cases_of
from nnunet_cmc.data.format.splits import Fold, load_fold, splits_in_force
from nnunet_cmc.data.reading.raw_case import empty_case
from nnunet_cmc.data.reading.raw_dataset import labeled_cases
from nnunet_cmc.evaluation.label_maps import label_maps
from nnunet_cmc.evaluation.results import Evaluation
from nnunet_cmc.evaluation.shown_channels import Condition, input_files, present_files
from nnunet_cmc.utils.files import atomic_write, read_json, write_json

_SOURCES = "files.json"  # what a folder of cases was made of
Labeled = dict[str, tuple[list[str], Path]]  # case -> files of its scans, and its label map


@dataclass(frozen=True)
class EvaluatedCases:
    """A folder of what is shown of labelled cases.

    Attributes:
        images: links to the scans, and volumes of zeros in place of what is not shown; as new as these scans.
        labels: links to the label map of each.
        description: the dataset's, with the modalities shown and the subject of each.
        fold: whose validation cases they are; None for test cases.
    """

    images: Path
    labels: Path
    description: DatasetDescription
    fold: Fold | None = None


def labeled_test_cases(raw: Path, description: DatasetDescription) -> Labeled:
    """Find the cases of ``labelsTs`` with their scans in ``imagesTs``; empty without labels.

    ValueError: a label has no scan there, or a file looks like a scan and would not be read.
    """
    labels = label_maps(raw / "labelsTs", description.file_ending) if (raw / "labelsTs").is_dir() else {}
    scans = cases_of(raw / "imagesTs", description)
    if missing := sorted(set(labels) - set(scans)):
        raise ValueError(
            f"Case {missing[0]} of {raw / 'labelsTs'} has no scan in {raw / 'imagesTs'} ({len(missing)} in all): "
            "add the scans, or remove the labels."
        )
    return {case: (scans[case], label) for case, label in labels.items()}


def validation_fold(raw: Path, name: str) -> Fold:
    """Read a fold that has validation cases. ValueError: there are no folds, or not this one."""
    splits = splits_in_force(raw.name)
    if name == "all" or splits is None:
        raise ValueError(
            f"{raw} has no labelled test cases (imagesTs and labelsTs), and fold {name} no validation cases of its "
            "own to evaluate on instead: make folds with `nnunet_cmc split`, or add test cases."
        )
    return load_fold(splits, int(name))


def validation_cases(raw: Path, fold: Fold, description: DatasetDescription) -> Labeled:
    """Find the validation cases of a fold. ValueError: not all are there."""
    files = labeled_cases(raw, description)
    if missing := sorted(set(fold.val) - set(files)):
        raise ValueError(
            f"Case {missing[0]} of splits_final.json is not in {raw} ({len(missing)} in all): make the folds again "
            "with `nnunet_cmc split`."
        )
    return {case: (files[case]["images"], Path(files[case]["label"])) for case in fold.val}


def lay_out(
    cases: Labeled, description: DatasetDescription, folder: str | PathLike, fold: Fold | None = None
) -> EvaluatedCases:
    """Write what is shown of the cases, which may be the validation cases of a ``fold``, to a folder that may be there.

    The folder is written anew if scans of its cases were replaced since.

    Raises:
        ValueError: a case is malformed or empty; two would have one name; ``folder`` has other cases or is damaged.
    """
    folder, names, ending = Path(folder), description.modalities, description.file_ending
    files = {case: present_files(images, description) for case, (images, _) in cases.items()}
    shown: dict[str, tuple[str, Condition]] = {}
    for case, present in files.items():
        if not present:
            raise empty_case(case, cases[case][0])
        for channels in dict.fromkeys([*((channel,) for channel in present), tuple(present)]):
            condition = Condition("+".join(names[channel] for channel in channels), channels)
            name = f"{case}_{condition.folder}"
            if name in shown:
                raise ValueError(
                    f"What is shown of the cases {shown[name][0]} and {case} would both be named {name}: rename one."
                )
            shown[name] = case, condition
    scans, references = {}, {}  # links -> their files
    for name, (case, condition) in shown.items():
        references[f"labels/{name}{ending}"] = str(cases[case][1].resolve())
        for channel in condition.given or ():
            scans[f"images/{name}_{channel:04d}{ending}"] = str(Path(files[case][channel]).resolve())
    links, versions = scans | references, _versions(scans.values())
    if not _is_laid_out(folder, links, versions):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder) as new:
            for part in (images := new / "images", new / "labels"):
                part.mkdir(parents=True)
            write_json(new / _SOURCES, {"links": links, "versions": versions})
            for name, (case, condition) in tqdm(shown.items(), "Preparing", unit="case"):
                input_files(condition, name, files[case], len(names), ending, images)
            for link, file in links.items():
                (new / link).symlink_to(file)
    own = replace(
        description,
        present_channels={name: condition.given or () for name, (_, condition) in shown.items()},
        subjects={name: description.subject_of(case) for name, (case, _) in shown.items()},
        listed_files=None,
    )
    return EvaluatedCases(folder / "images", folder / "labels", own, fold)


def _is_laid_out(folder: Path, links: dict[str, str], versions: dict[str, list[int]]) -> bool:
    """Return whether ``folder`` holds these cases, and remove it if it does with earlier versions of their scans."""
    if not folder.is_dir():
        return False
    file = folder / _SOURCES
    before = read_json(file, f"remove {folder}") if file.is_file() else None
    if not isinstance(before, dict) or before.get("links") != links:
        raise ValueError(f"{folder} holds other cases than are to be evaluated now: name another folder with -o.")
    if before.get("versions") == versions:
        return True
    shutil.rmtree(folder)
    return False


def _versions(scans: Iterable[str]) -> dict[str, list[int]]:
    """Return size and time of each scan: a file that was moved into its place may be older than what was there."""
    states = {scan: Path(scan).stat() for scan in sorted(set(scans))}
    return {scan: [state.st_size, state.st_mtime_ns] for scan, state in states.items()}


def pool(of_folds: Mapping[str, Evaluation]) -> Evaluation:
    """Put the cases of several folds into one evaluation; a case is named with its fold."""
    first = next(iter(of_folds.values()))
    cases = [
        replace(case, case=name_in(of_folds, case.case, fold)) for fold, one in of_folds.items() for case in one.cases
    ]
    return replace(first, cases=sorted(cases, key=lambda case: case.case))


def name_in(folds: Mapping[str, Any], case: str, fold: str) -> str:
    """Name a case of one of ``folds``: as it is named, if there is only one."""
    return case if len(folds) == 1 else f"{case}, fold {fold}"
