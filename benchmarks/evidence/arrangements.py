"""The datasets of the glioma benchmark, made of 80 training subjects with FLAIR and T1 post-contrast on one grid.

*Registered*: both sequences of every subject. *Unpaired*: every training subject keeps one, in turns. *Misaligned*: T1
post-contrast and its label are moved and turned, at random for each subject; the two sequences of a subject are two
cases, each with its own label, but nnU-Net's own two-channel training gets both stacked on the grid of FLAIR with the
label of FLAIR. Beside them, each sequence alone, for nnU-Net's one-channel trainings.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_cmc.evaluation.misalignment import misalign, random_direction

SEQUENCES = ("FLAIR", "T1post")
ARRANGEMENTS = ("registered", "unpaired", "misaligned")
INPUTS = {"FLAIR": (0,), "T1post": (1,), "both": (0, 1)}
LABELED = {0.1: 8, 0.2: 16, 1.0: 72}  # fraction of labels -> labelled subjects
SEEDS = 5
VALIDATION = 8
DEGREES_PER_MM = 0.5
MOVED = "moved_T1post"

# name -> ID in nnU-Net. Ours and nnU-Net's have their own, since both write a fingerprint.
DATASETS = {
    "registered": 911, "unpaired": 912, "misaligned": 913,
    "stock_registered": 921, "stock_unpaired": 922, "stock_misaligned": 923,
    "FLAIR": 931, "T1post": 932, MOVED: 933,
    "pseudo1_both": 941, "pseudo1_FLAIR": 942, "pseudo1_T1post": 943,
    "pseudo2_both": 951, "pseudo2_FLAIR": 952, "pseudo2_T1post": 953,
}  # fmt: skip


class Subjects:
    """Who trains, validates and tests, from the ``split.json`` of the data.

    Attributes:
        pool: the subjects that may be labelled, in the order of ``train_order``.
        validation: the last of ``train_order``.
        test: the test subjects.
    """

    def __init__(self, data: Path):
        split = json.loads((data / "split.json").read_text())
        self.pool = split["train_order"][:-VALIDATION]
        self.validation = split["train_order"][-VALIDATION:]
        self.test = split["test"]
        self._turn = {subject: number % 2 for number, subject in enumerate(split["train_order"])}

    @property
    def train(self) -> list[str]:
        """All that a training may see: those of the pool, and those for validation."""
        return [*self.pool, *self.validation]

    def kept(self, subject: str) -> str:
        """The one sequence that the subject keeps where scans are unpaired."""
        return SEQUENCES[self._turn[subject]]

    def labeled(self, fraction: float, seed: int) -> list[str]:
        """The labelled subjects: of seed 0 the first, of another seed drawn; as many keep FLAIR as T1 post-contrast.

        More labels of one seed are a superset of fewer.
        """
        order = self.pool if seed == 0 else np.random.default_rng(seed).permutation(self.pool).tolist()
        halves = [[subject for subject in order if self._turn[subject] == turn] for turn in (0, 1)]
        half = LABELED[fraction] // 2
        return [*halves[0][:half], *halves[1][:half]]

    def unlabeled(self, fraction: float, seed: int) -> list[str]:
        """The others of the pool."""
        labeled = set(self.labeled(fraction, seed))
        return [subject for subject in self.pool if subject not in labeled]


def fold_number(arrangement: str, fraction: float, seed: int) -> int:
    """The fold of every dataset's ``splits_final.json`` that is this experiment."""
    return (ARRANGEMENTS.index(arrangement) * len(LABELED) + list(LABELED).index(fraction)) * SEEDS + seed


def folds(dataset: str, subjects: Subjects) -> list[dict[str, list[str]]]:
    """All experiments on this dataset, in the order of :func:`fold_number`."""

    def cases(arrangement: str, chosen: Iterable[str]) -> list[str]:
        return sorted(case for subject in chosen for case in _cases(dataset, arrangement, subject, subjects))

    return [
        {
            "train": cases(arrangement, subjects.labeled(fraction, seed)),
            "val": cases(arrangement, subjects.validation),
            "unlabeled": cases(arrangement, subjects.unlabeled(fraction, seed)),
        }
        for arrangement in ARRANGEMENTS
        for fraction in LABELED
        for seed in range(SEEDS)
    ]


def _cases(dataset: str, arrangement: str, subject: str, subjects: Subjects) -> list[str]:
    """The cases of a subject in a dataset that an experiment in this arrangement may see."""
    if dataset in ("unpaired", "stock_unpaired"):
        return [f"{subject}_{subjects.kept(subject)}"]
    if dataset == "misaligned":
        return [f"{subject}_{sequence}" for sequence in SEQUENCES]
    if dataset in SEQUENCES and arrangement == "unpaired" and subjects.kept(subject) != dataset:
        return []
    return [subject]


def make_scans(data: Path, output: Path, millimetres: float) -> None:
    """``output/PART/SUBJECT.nii.gz`` of all subjects, for every part: the sequences, their labels, and those moved."""
    if (output / "complete").is_file():
        return
    subjects = Subjects(data)
    for number, subject in enumerate(sorted([*subjects.train, *subjects.test])):
        direction = random_direction(2019, number)
        for part, source in (*((s, f"images_{s}") for s in SEQUENCES), ("labels", "labels")):
            (output / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / source / f"{subject}.nii.gz", output / part)
        for source, target in (("T1post", MOVED), ("labels", "moved_labels")):
            (output / target).mkdir(exist_ok=True)
            scan = sitk.ReadImage(str(output / source / f"{subject}.nii.gz"), sitk.sitkFloat32)
            moved = misalign(scan, direction, millimetres, millimetres * DEGREES_PER_MM)
            moved = sitk.Cast(moved >= 0.5, sitk.sitkUInt8) if source == "labels" else moved
            sitk.WriteImage(moved, str(output / target / f"{subject}.nii.gz"))
    (output / "complete").touch()


def convert(dataset: str, scans: Path, subjects: Subjects, work: Path, command: Callable[..., None]) -> None:
    """Make the raw dataset with ``nnunet_cmc convert folders``, and its folds.

    Args:
        scans: what :func:`make_scans` made.
        work: folder for the folders that the converter is given.
        command: runs a command, given as strings, in an environment with ``nnUNet_raw``.
    """
    sources = work / "sources" / dataset
    shutil.rmtree(sources, ignore_errors=True)
    second = MOVED if dataset in ("misaligned", "stock_misaligned") else "T1post"
    channels: dict[str, str] = {"T1post": MOVED} if dataset == MOVED else {s: s for s in SEQUENCES if s == dataset}
    channels = channels or {"FLAIR": "FLAIR", "T1post": second}
    label_of = {channel: "moved_labels" if part == MOVED else "labels" for channel, part in channels.items()}
    separate = dataset in ("unpaired", "stock_unpaired", "misaligned")
    if not separate:
        label_of = {"": label_of[next(iter(channels))]}
    for subject in subjects.train:
        unpaired = dataset in ("unpaired", "stock_unpaired")
        shown = [channel for channel in channels if not unpaired or channel == subjects.kept(subject)]
        for channel in shown:
            _put(scans / channels[channel], subject, sources / channel)
        for channel, part in label_of.items():
            if not separate or channel in shown:
                _put(scans / part, subject, sources / f"labels{channel}")
    command(
        "nnunet_cmc", "convert", "folders", "-d", DATASETS[dataset], "--name", f"LGG_{dataset}",
        "--images", *(f"{channel}={sources / channel}" for channel in channels),
        "--labels", *(f"{channel}={sources / f'labels{channel}'}" if separate else sources / "labels"
                      for channel in label_of),
        "--classes", "tumour=1",
    )  # fmt: skip


def _put(folder: Path, subject: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / f"{subject}.nii.gz", target)


def put_cases(
    scans: Path, chosen: Sequence[str], moved: bool, given: str, channels: str, cases: Path, references: Path
) -> None:
    """New cases for nnUNetv2_predict, and the labels to judge them by.

    Args:
        moved: whether T1 post-contrast is the moved one. Alone it is judged by its own label, which moved with it;
            otherwise the label of FLAIR counts.
        given: key of :data:`INPUTS`, the sequences that are there.
        channels: what the model was trained on: "both" or a sequence. A stock model of both, "stacked", has to be
            given a volume of zeros for what is not there.
    """
    parts = {"FLAIR": "FLAIR", "T1post": MOVED if moved else "T1post"}
    for folder in (cases, references):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for subject in chosen:
        shown = [SEQUENCES[channel] for channel in INPUTS[given]]
        wanted = SEQUENCES if channels in ("both", "stacked") else (channels,)
        for channel, sequence in enumerate(wanted):
            file = cases / f"{subject}_{channel:04d}.nii.gz"
            if sequence in shown:
                shutil.copy(scans / parts[sequence] / f"{subject}.nii.gz", file)
            elif channels == "stacked":
                there = sitk.ReadImage(str(scans / parts[shown[0]] / f"{subject}.nii.gz"))
                sitk.WriteImage(there * 0, str(file))
        labels = "moved_labels" if moved and given == "T1post" else "labels"
        shutil.copy(scans / labels / f"{subject}.nii.gz", references)
