"""Folds of ``splits_final.json``, nnU-Net's list of ``{"train": [...], "val": [...]}``, with two further lists.

``unlabeled`` lists training cases whose label must not be used, ``left_out`` cases of ``imagesUn`` that the fold
excludes. Stock nnU-Net ignores both, which makes it the supervised baseline on exactly the same labels.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.utils.files import read_json, require_plain_names, write_json

SPLITS = "splits_final.json"
REMEDY = "make it again with `nnunet_cmc split`"


@dataclass(frozen=True)
class Fold:
    """Disjoint lists of cases of ``imagesTr``, and ``left_out``, the excluded cases of ``imagesUn``."""

    train: list[str]
    val: list[str]
    unlabeled: list[str]
    left_out: list[str] = field(default_factory=list)


def splits_in_force(dataset_name: str) -> Path | None:
    """Find the ``splits_final.json`` of a dataset: the preprocessed one, else the raw one, else None.

    Planning copies the raw file, which also applies without a copy. The preprocessed file may have further folds.

    Raises:
        ValueError: a fold of the raw file differs in the preprocessed file, or a file is malformed.
    """
    files = [Path(root.get() or "", dataset_name, SPLITS) for root in (nnUNet_raw, nnUNet_preprocessed) if root.get()]
    found = [file for file in files if file.is_file()]
    if len(found) < 2:
        return found[0] if found else None
    raw, copy = found
    copied = _read(copy)
    for number, fold in enumerate(_read(raw)):
        moved = moved_case(_lists(fold), _lists(copied[number]) if number < len(copied) else {})
        if moved is not None:
            case, in_raw, in_copy = moved
            raise ValueError(
                f"Fold {number} of {raw} is another one in {copy} (case {case} is in {in_raw}, and in {in_copy}): copy "
                "the file that is meant over the other, or make both with `nnunet_cmc split`."
            )
    return copy


def moved_case(before: Mapping[str, Iterable[str]], after: Mapping[str, Iterable[str]]) -> tuple[str, str, str] | None:
    """Find the first case in different lists of two folds, with text for its lists before and after; or None."""
    first, second = ({(case, key) for key, cases in fold.items() for case in cases} for fold in (before, after))
    case = min((case for case, _ in first ^ second), default=None)
    if case is None:
        return None
    in_first, in_second = (sorted(f'"{key}"' for name, key in fold if name == case) for fold in (first, second))
    return case, " and ".join(in_first) or "no list", " and ".join(in_second) or "no list"


def load_fold(splits_file: str | os.PathLike, fold: int) -> Fold:
    """Read a fold. ValueError: no such file or fold, a missing list, a case in two lists or that is no file name."""
    if not Path(splits_file).is_file():
        raise ValueError(f"There is no {splits_file}: make one with `nnunet_cmc split`.")
    splits = _read(splits_file)
    if not 0 <= fold < len(splits):
        raise ValueError(
            f"{splits_file} has no fold {fold} but {len(splits)} in all, numbered from 0: give another number, or make "
            "more with `nnunet_cmc split`."
        )
    entry = {"unlabeled": [], "left_out": [], **splits[fold]}
    owner: dict[str, str] = {}
    for key in ("train", "val", "unlabeled", "left_out"):
        cases = entry.get(key)
        if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
            raise ValueError(f'Fold {fold} of {splits_file} must have a list of cases "{key}", but it is {cases!r}.')
        if not cases and key in ("train", "val"):
            raise ValueError(f'Fold {fold} of {splits_file} has no case in "{key}": make it with `nnunet_cmc split`.')
        require_plain_names(cases, f"Fold {fold} of {splits_file}")
        for case in cases:
            if case in owner:
                raise ValueError(
                    f'Case {case} is in "{owner[case]}" and again in "{key}" of fold {fold} of {splits_file}: '
                    "leave it in one list, once."
                )
            owner[case] = key
    return Fold(entry["train"], entry["val"], entry["unlabeled"], entry["left_out"])


def hidden_cases(splits_file: str | os.PathLike) -> set[str]:
    """Read the cases whose label is hidden in any fold; empty without such a file."""
    if not Path(splits_file).is_file():
        return set()
    hidden = [fold.get("unlabeled", []) for fold in _read(splits_file)]
    if not all(isinstance(cases, list) and all(isinstance(case, str) for case in cases) for cases in hidden):
        raise ValueError(f'A fold of {splits_file} has an "unlabeled" that is no list of cases: {REMEDY}.')
    require_plain_names(names := {case for cases in hidden for case in cases}, f"A fold of {splits_file}")
    return names


def make_splits(
    description: DatasetDescription, cases: Iterable[str], *, labeled: Sequence[float], val: float, seed: int
) -> list[dict]:
    """Make one fold for each fraction in ``labeled``, over the same validation cases.

    Subjects with the same modalities are a group, and training cases with the same modalities are. As far as whole
    numbers allow it, validation has the same share of every group of subjects, and a fraction of labels the same share
    of every group of cases. No subject is both in training and in validation. Each modality is validated if it has
    enough subjects, and always keeps a labelled training case. A larger fraction includes all labels of a smaller one.
    The result depends on the seed and on the set of cases, not on their order.

    Args:
        cases: the labelled cases, of ``imagesTr``.
        labeled: fractions of the training cases that keep their labels, in (0, 1].
        val: fraction of the subjects used for validation, in (0, 1).

    Raises:
        ValueError: a fraction is out of range, a modality has no case, or there is nothing to validate on.
    """
    if not labeled or not all(0 < fraction <= 1 for fraction in labeled):
        raise ValueError(
            f"The labelled fractions must be above 0 and at most 1, but are {list(labeled)}: correct --labeled."
        )
    if not 0 < val < 1:
        raise ValueError(f"The validation fraction must be between 0 and 1, but is {val}: correct --val.")
    subjects = _shuffled_subjects(description, cases, seed)
    require_every_modality(description, [case for scans in subjects.values() for case in scans], "the training set")

    spare = [group[:-1] for group in _by_modalities(description, subjects).values()]  # one of each group stays
    held_out = set(_interleaved(spare)[: _rounded(val * len(subjects))])
    _validate_every_modality(description, subjects, held_out)
    if not held_out:
        raise ValueError(
            f"No subject can be used for validation: with {len(subjects)} subject(s), every modality would not "
            "remain in the training part; add subjects, or train with fold all."
        )

    validation = sorted(case for subject in held_out for case in subjects[subject])
    strata: dict[tuple, list[str]] = defaultdict(list)  # subjects stay in their random order: labels go by patient
    for case in (case for subject, scans in subjects.items() if subject not in held_out for case in scans):
        strata[description.possible_channels(case)].append(case)
    order = _interleaved(list(strata.values()))
    needed: list[str] = []
    for channel in range(len(description.modalities)):
        if not any(channel in description.possible_channels(case) for case in needed):
            needed.append(next(case for case in order if channel in description.possible_channels(case)))
    order = [*needed, *(case for case in order if case not in needed)]
    folds = []
    for fraction in labeled:
        train = order[: max(len(needed), _rounded(fraction * len(order)))]
        hidden = order[len(train) :]
        fold = {"train": sorted(train), "val": validation}
        folds.append({**fold, "unlabeled": sorted(hidden)} if hidden else fold)
    return folds


def make_folds(description: DatasetDescription, cases: Iterable[str], folds: int, seed: int) -> list[dict]:
    """Make a cross-validation by subject with all labels: disjoint ``val`` lists that together hold all cases.

    ValueError: fewer than two folds, fewer subjects than folds, or a fold would train without some modality.
    """
    subjects = _shuffled_subjects(description, cases, seed)
    if folds < 2:
        raise ValueError(f"A cross-validation needs at least 2 folds, but --folds is {folds}: give a larger K.")
    if folds > len(subjects):
        raise ValueError(
            f"A cross-validation by subject needs as many subjects as folds, but there are {len(subjects)} subject(s) "
            f"for {folds} folds: add subjects, or give --folds a smaller K, at least 2."
        )
    dealt = [subject for group in _by_modalities(description, subjects).values() for subject in group]
    everyone = {case for scans in subjects.values() for case in scans}
    result = []
    for fold in range(folds):
        validation = {case for subject in dealt[fold::folds] for case in subjects[subject]}
        train = sorted(everyone - validation)
        require_every_modality(description, train, f"fold {fold} of {folds}")
        result.append({"train": train, "val": sorted(validation)})
    return result


def held_out_scans(
    description: DatasetDescription,
    train: Iterable[str],
    val: Iterable[str],
    test: Iterable[str],
    unlabeled: Iterable[str],
) -> list[str]:
    """List the ``unlabeled`` cases that are scans of subjects of ``val`` (and not of ``train``) or of ``test``.

    A training that sees them, even without a label, is transductive: it has seen subjects that it is evaluated on.
    """
    of_train, of_val, of_test = ({description.subject_of(case) for case in cases} for cases in (train, val, test))
    held_out = (of_val - of_train) | of_test
    return sorted(case for case in unlabeled if description.subject_of(case) in held_out)


def require_every_modality(
    description: DatasetDescription,
    labeled_cases: Iterable[str],
    where: str,
    remedy: str = "move one from validation to training, train with fold all, or leave the modality out",
) -> None:
    """Raise a ValueError, ending in ``remedy``, if a modality has no labelled case; ``where`` names the part."""
    seen = {channel for case in labeled_cases for channel in description.possible_channels(case)}
    for channel, name in enumerate(description.modalities):
        if channel not in seen:
            raise ValueError(
                f"Modality {name} (channel {channel}) has no labelled case in {where}: every modality needs at least "
                f"one, so label a case of it, {remedy}."
            )


def write_splits(dataset_name: str, splits: list[dict]) -> list[Path]:
    """Write ``splits_final.json`` into the folder of the raw dataset and, if it exists, of the preprocessed one.

    nnU-Net refuses to plan if the two differ. Returns the files. ValueError: there is no such raw dataset.
    """
    root = nnUNet_raw.get()
    if root is None or not Path(root, dataset_name).is_dir():
        raise ValueError(f"There is no dataset {dataset_name} in nnUNet_raw ({root}): convert it first.")
    roots = (root, nnUNet_preprocessed.get())
    files = [Path(root, dataset_name, SPLITS) for root in roots if root and Path(root, dataset_name).is_dir()]
    for file in files:
        write_json(file, splits)
    return files


def _read(splits_file: str | os.PathLike) -> list[dict]:
    splits = read_json(splits_file, REMEDY)
    if not isinstance(splits, list) or not all(isinstance(fold, dict) for fold in splits):
        raise ValueError(f"{splits_file} must be a list of folds: {REMEDY}.")
    return splits


def _lists(fold: dict) -> dict[str, list[str]]:
    """Return the lists of cases of a fold, without other entries."""
    return {key: list(map(str, cases)) for key, cases in fold.items() if isinstance(cases, list)}


def _shuffled_subjects(description: DatasetDescription, cases: Iterable[str], seed: int) -> dict[str, list[str]]:
    """Shuffle the subjects, each with its cases, sorted."""
    scans: dict[str, list[str]] = defaultdict(list)
    for case in sorted(set(cases)):
        scans[description.subject_of(case)].append(case)
    names = sorted(scans)
    return {names[i]: scans[names[i]] for i in np.random.default_rng(seed).permutation(len(names))}


def _by_modalities(description: DatasetDescription, subjects: dict[str, list[str]]) -> dict[tuple, list[str]]:
    """Group the subjects whose scans show the same modalities, in a fixed order of groups."""
    groups: dict[tuple, list[str]] = defaultdict(list)
    for subject, scans in subjects.items():
        groups[tuple(sorted({c for case in scans for c in description.possible_channels(case)}))].append(subject)
    return dict(sorted(groups.items()))


def _interleaved(groups: Sequence[list[str]]) -> list[str]:
    """Merge the groups so that each beginning of the list has the same share of every group, as far as it can."""
    placed = [((i + 0.5) / len(group), g, name) for g, group in enumerate(groups) for i, name in enumerate(group)]
    return [name for *_, name in sorted(placed)]


def _validate_every_modality(
    description: DatasetDescription, subjects: dict[str, list[str]], held_out: set[str]
) -> None:
    """Add subjects to ``held_out`` until each modality is validated, as far as training keeps every modality."""
    shows = {s: {c for case in scans for c in description.possible_channels(case)} for s, scans in subjects.items()}
    modalities = range(len(description.modalities))
    for modality in modalities:
        if any(modality in shows[s] for s in held_out):
            continue
        for candidate in (s for s in subjects if modality in shows[s]):
            if set().union(*(shows[s] for s in subjects if s != candidate and s not in held_out)) >= {*modalities}:
                held_out.add(candidate)
                break


def _rounded(count: float) -> int:
    """Round to the nearest integer, halves up (``round`` takes halves to the even neighbour)."""
    return int(count + 0.5)
