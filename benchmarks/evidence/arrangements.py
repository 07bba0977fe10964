"""The datasets that are made of one set of subjects with two modalities.

*Registered*: both modalities of every subject. *Unpaired*: every training subject keeps one, in turns. *Misaligned*:
the second modality and its label are moved and turned, at random for each subject; the two scans of a subject are two
cases, each with its own label, but nnU-Net's own two-channel training gets both stacked on the grid of the first with
the label of the first. Beside them, each modality alone, for nnU-Net's one-channel trainings.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from sources import ARRANGEMENTS, Source

from nnunet_cmc.evaluation.misalignment import misalign, random_direction

DEGREES_PER_MM = 0.5


class Subjects:
    """Who is labelled, validates and tests with a seed.

    Every subject is in one of the source's test folds: fold 0 is the ``test`` of ``split.json``, the others are cut
    from its ``train_order``. Seed s tests on fold s. Of the other subjects seed 0 takes the first as labelled and the
    last for validation, and so does each other seed of an order that it draws, in which those that keep the first
    modality where scans are unpaired and those that keep the second take turns.

    Attributes:
        fold: of the test subjects.
        test: the test subjects.
        pool: the subjects that may be labelled, in the order in which they are.
        validation: the validation subjects.
    """

    def __init__(self, data: Path, source: Source, seed: int):
        split = json.loads((data / "split.json").read_text())
        everybody = [*split["train_order"], *split["test"]]
        self.source, self.fold = source, seed % source.folds
        self._turn = {subject: number % 2 for number, subject in enumerate(everybody)}
        cut = np.array_split(split["train_order"], source.folds - 1) if source.folds > 1 else []
        self.test: list[str] = [split["test"], *(part.tolist() for part in cut)][self.fold]
        others = [subject for subject in everybody if subject not in self.test]
        if seed:
            drawn = np.random.default_rng(seed).permutation(others).tolist()
            halves = ([subject for subject in drawn if self._turn[subject] == turn] for turn in (0, 1))
            others = [subject for pair in zip(*halves, strict=True) for subject in pair]
        self.pool, self.validation = others[: -source.validation], others[-source.validation :]

    @property
    def train(self) -> list[str]:
        """All that a training may see: those of the pool, and those for validation."""
        return [*self.pool, *self.validation]

    def kept(self, subject: str) -> str:
        """Return the one modality that the subject keeps where scans are unpaired."""
        return self.source.modalities[self._turn[subject]]

    def labeled(self, fraction: float) -> list[str]:
        """Return the labelled subjects; half of them keep the first modality, and more are a superset of fewer."""
        return self.pool[: self.source.labeled[fraction]]

    def unlabeled(self, fraction: float) -> list[str]:
        """Return the others of the pool."""
        return self.pool[self.source.labeled[fraction] :]


def fold_number(source: Source, arrangement: str, fraction: float) -> int:
    """Return the fold of every dataset's ``splits_final.json`` that is this experiment."""
    fractions = list(source.labeled)
    return ARRANGEMENTS.index(arrangement) * len(fractions) + fractions.index(fraction)


def folds(dataset: str, subjects: Subjects) -> list[dict[str, list[str]]]:
    """List all experiments on this dataset with the subjects of one seed, in the order of :func:`fold_number`."""

    def cases(arrangement: str, chosen: Iterable[str]) -> list[str]:
        return sorted(case for subject in chosen for case in _cases(dataset, arrangement, subject, subjects))

    return [
        {
            "train": cases(arrangement, subjects.labeled(fraction)),
            "val": cases(arrangement, subjects.validation),
            "unlabeled": cases(arrangement, subjects.unlabeled(fraction)),
        }
        for arrangement in ARRANGEMENTS
        for fraction in subjects.source.labeled
    ]


def _cases(dataset: str, arrangement: str, subject: str, subjects: Subjects) -> list[str]:
    """Return the cases of a subject in a dataset that an experiment in this arrangement may see."""
    if dataset in ("unpaired", "stock_unpaired"):
        return [f"{subject}_{subjects.kept(subject)}"]
    if dataset == "misaligned":
        return [f"{subject}_{modality}" for modality in subjects.source.modalities]
    if dataset in subjects.source.modalities and arrangement == "unpaired" and subjects.kept(subject) != dataset:
        return []
    return [subject]


def make_scans(data: Path, output: Path, subjects: Subjects, millimetres: float) -> None:
    """Write ``output/PART/SUBJECT.nii.gz`` of all subjects; parts: the modalities, their labels, and those moved."""
    if (output / "complete").is_file():
        return
    source = subjects.source
    for number, subject in enumerate(sorted([*subjects.train, *subjects.test])):
        direction = random_direction(2019, number)
        for part, folder in (*((m, f"images_{m}") for m in source.modalities), ("labels", "labels")):
            (output / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / folder / f"{subject}.nii.gz", output / part)
        scan = sitk.ReadImage(str(output / source.modalities[1] / f"{subject}.nii.gz"), sitk.sitkFloat32)
        labels = sitk.ReadImage(str(output / "labels" / f"{subject}.nii.gz"), sitk.sitkUInt8)
        move = partial(misalign, direction=direction, millimetres=millimetres, degrees=millimetres * DEGREES_PER_MM)
        moved_labels = labels * 0
        for value in source.classes.values():
            there = move(sitk.Cast(labels == value, sitk.sitkFloat32)) >= 0.5
            moved_labels = sitk.Maximum(moved_labels, sitk.Cast(there, sitk.sitkUInt8) * value)
        for part, moved in ((source.moved, move(scan)), ("moved_labels", moved_labels)):
            (output / part).mkdir(exist_ok=True)
            sitk.WriteImage(moved, str(output / part / f"{subject}.nii.gz"))
    (output / "complete").touch()


def convert(dataset: str, scans: Path, subjects: Subjects, work: Path, command: Callable[..., None]) -> None:
    """Make the raw dataset with ``nnunet_cmc convert folders``.

    Args:
        dataset: key of :attr:`Source.datasets`, but for pseudo-labels.
        scans: what :func:`make_scans` made.
        work: folder for the folders that the converter is given.
        command: runs a command, given as strings, in an environment with ``nnUNet_raw``.
    """
    source, sources = subjects.source, work / "sources" / dataset
    shutil.rmtree(sources, ignore_errors=True)
    first, second = source.modalities
    unpaired = dataset in ("unpaired", "stock_unpaired")
    separate = unpaired or dataset == "misaligned"
    # channel -> the folder of its scans
    if dataset == source.moved:
        channels = {second: source.moved}
    elif dataset in source.modalities:
        channels = {dataset: dataset}
    else:
        channels = {first: first, second: source.moved if dataset in ("misaligned", "stock_misaligned") else second}
    for subject in subjects.train:
        for channel, part in channels.items():
            if unpaired and channel != subjects.kept(subject):
                continue
            _put(scans / part, subject, sources / channel)
            if separate or channel == next(iter(channels)):
                labels = "moved_labels" if part == source.moved else "labels"
                _put(scans / labels, subject, sources / (f"labels_{channel}" if separate else "labels"))
    labels = (
        [f"{channel}={sources / f'labels_{channel}'}" for channel in channels] if separate else [sources / "labels"]
    )
    name = dataset_name(source, dataset).split("_", 1)[1]
    command(
        "nnunet_cmc", "convert", "folders", "-d", source.datasets[dataset], "--name", name,
        "--images", *(f"{channel}={sources / channel}" for channel in channels), "--labels", *labels,
        "--classes", *(f"{name}={value}" for name, value in source.classes.items()),
    )  # fmt: skip


def dataset_name(source: Source, dataset: str) -> str:
    """Return the name that nnU-Net gives its folder."""
    return f"Dataset{source.datasets[dataset]:03d}_{source.name.upper()}_{dataset}"


def _put(folder: Path, subject: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / f"{subject}.nii.gz", target)


def put_cases(
    source: Source,
    scans: Path,
    chosen: Sequence[str],
    moved: bool,
    given: str,
    channels: str,
    cases: Path,
    references: Path,
) -> None:
    """Write new cases for nnUNetv2_predict, and the labels to evaluate them by.

    Args:
        moved: whether the second modality is the moved one. Alone it is evaluated on its own label, which moved with
            it; otherwise the label of the first counts.
        given: key of :attr:`Source.inputs`, the modalities that are there.
        channels: what the model was trained on: "both" or a modality. A stock model of both, "stacked", has to be
            given a volume of zeros for what is not there.
    """
    second = source.modalities[1]
    shown = [source.modalities[channel] for channel in source.inputs[given]]
    for folder in (cases, references):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for subject in chosen:
        scan_of = {m: scans / (source.moved if moved and m == second else m) / f"{subject}.nii.gz" for m in shown}
        for channel, modality in enumerate([channels] if channels in source.modalities else source.modalities):
            file = cases / f"{subject}_{channel:04d}.nii.gz"
            if modality in shown:
                shutil.copy(scan_of[modality], file)
            elif channels == "stacked":
                sitk.WriteImage(sitk.ReadImage(str(scan_of[shown[0]])) * 0, str(file))
        labels = "moved_labels" if moved and given == second else "labels"
        shutil.copy(scans / labels / f"{subject}.nii.gz", references)
