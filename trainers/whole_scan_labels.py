"""Pseudo-labels of whole scans: when a training predicts them, and how good and how stable they are."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, isnan, nan
from os.path import isfile, join

import blosc2
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor

from nnunet_cmc.data.loading.cases import WEIGHT, UnlabeledDataset
from nnunet_cmc.trainers.validation_dice import mean_dice
from nnunet_cmc.utils.files import atomic_write

EXPECTED = "expected"  # entry of the metadata of a pseudo-label's file: the Dice that the network expects of it


@dataclass(frozen=True)
class WholeScanLabels:
    """Predict pseudo-labels of whole unlabelled scans from all their modalities, and train on them from then on.

    The moving average of the weights predicts them: while the learning rate is high, it is better than the weights of
    any one step (Izmailov et al., UAI 2018). Each round replaces the pseudo-labels, and the training continues with the
    same network; the winner of FLARE22 (Huang et al. 2022) and ST++ (Yang et al., CVPR 2022) train a new one. From the
    second round on, a scan is weighted by the stability of its pseudo-label (:func:`stability`), where these leave out
    the least stable scans; before, every scan weighs 1.

    Or there is one round, as soon as the network expects good labels (:func:`expected_dice`): it labels the scans at
    the first of the given times, and again at the next one as long as they are not good enough.

    Before the first round, unlabelled scans are not read. Afterwards their pairs replace labelled ones, so that the
    cost of a step does not change.

    Attributes:
        at: fractions of the training after which scans are labelled, increasing.
        share: of the pairs of a batch that are pseudo-labelled; at least one labelled pair stays.
        sure: mean expected Dice of the one round, which the last time need not have; None: each time is a round.

    Raises:
        ValueError: there is no time, they do not increase within 0 and 1, or another number is not between 0 and 1.
    """

    at: tuple[float, ...] = (0.5,)
    share: float = 0.5
    sure: float | None = None

    def __post_init__(self):
        if not self.at or any(before >= after for before, after in zip((0.0, *self.at), (*self.at, 1.0), strict=True)):
            raise ValueError(
                f"Rounds at {self.at} are not increasing fractions of a training: give one or more between 0 and 1."
            )
        if not 0 < self.share < 1:
            raise ValueError(f"A share {self.share} of a batch is impossible: give one between 0 and 1.")
        if self.sure is not None and not 0 < self.sure < 1:
            raise ValueError(f"An expected Dice of {self.sure} is impossible: give one between 0 and 1.")

    def times_before(self, epoch: int, epochs: int) -> int:
        """Return how many of the times are before ``epoch`` of so many epochs, or at its start."""
        return sum(ceil(share * epochs) <= epoch for share in self.at)

    def accepts(self, number: int, epochs: int, folder: str) -> bool:
        """Tell whether the labels in ``folder`` are trained on, which were made at this time, counted from 1.

        Args:
            epochs: of the training, in which some of the times may be the same epoch, or the end.
        """
        last = self.times_before(epochs - 1, epochs)
        return self.sure is None or number >= last or mean_expected(folder) >= self.sure


def label_scans(
    predictor: nnUNetPredictor,
    dataset: UnlabeledDataset,
    cases: Iterable[str],
    folder: str,
) -> None:
    """Write the predicted label ``(1, D, H, W)`` int16 of each preprocessed case to ``folder``, unless it is there.

    The file says which Dice the network expects of it. A case with a label of an earlier round also gets a weight. No
    other label is read, and one scan is in memory at a time.

    Args:
        predictor: of the labelling network.
        dataset: reads the images, and the labels of the round before.
    """
    for case in cases:
        file = join(folder, f"{case}_seg.b2nd")
        if not isfile(file):
            on_disk, before, _, _ = dataset.load_case(case)
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(on_disk[:])))
            label = logits.argmax(0, keepdim=True).to(torch.int16).cpu().numpy()
            meta = {EXPECTED: expected_dice(logits, label)}
            if before is not None:
                meta[WEIGHT] = stability(before[:], label, len(logits))
            with atomic_write(file) as temporary:
                blosc2.asarray(label, urlpath=str(temporary), meta=meta)


def mean_expected(folder: str) -> float:
    """Return the mean of the expected Dice of all labels that :func:`label_scans` wrote; NaN without any."""
    files = sorted(file for file in os.listdir(folder) if file.endswith("_seg.b2nd"))  # in one order on all ranks
    labels = [blosc2.open(join(folder, file), mode="r") for file in files]
    expected = [label.schunk.meta[EXPECTED] for label in labels]
    return sum(expected) / len(expected) if expected else nan


def expected_dice(logits: Tensor, label: np.ndarray) -> float:
    """Compute the Dice that a network expects of its own label, in [0, 1].

    It is the soft Dice between probabilities and label, the mean over the foreground classes of the label; 0 without
    any. It is low where probabilities are far from 0 and 1. It is too high, and compares scans within a training, not
    two trainings.

    Args:
        logits: ``(K, D, H, W)``.
        label: ``(1, D, H, W)``, the class of the largest logit.
    """
    hit, size = np.zeros((2, len(logits)))
    count = np.zeros(len(logits), dtype=np.int64)
    for of_slice, labelled in zip(logits.unbind(1), label[0], strict=True):  # by slice: float32 takes twice the memory
        probability = of_slice.float().softmax(0)
        most = probability.amax(0).flatten().cpu().numpy()
        hit += np.bincount(labelled.ravel(), most, minlength=len(logits))
        size += probability.flatten(1).sum(1, dtype=torch.float64).cpu().numpy()
        count += np.bincount(labelled.ravel(), minlength=len(logits))
    there = np.flatnonzero(count[1:]) + 1
    return float(np.mean(2 * hit[there] / (size + count)[there])) if len(there) else 0.0


def stability(before: np.ndarray, after: np.ndarray, num_classes: int) -> float:
    """Compute the mean Dice over the foreground classes between two labels of a scan, in [0, 1].

    A class in neither label is left out, and a class in only one of them counts 0. Two labels without foreground agree:
    1.

    Args:
        before, after: ``(1, D, H, W)``, label values 0 to ``num_classes`` - 1.
    """
    confusion = np.zeros(num_classes**2, dtype=np.int64)
    for first, second in zip(before[0], after[0], strict=True):  # by slice: the sum below takes 8 bytes a voxel
        pairs = first.astype(np.int64) * num_classes + second
        confusion += np.bincount(pairs.ravel(), minlength=num_classes**2)
    dice = mean_dice(confusion.reshape(num_classes, num_classes))
    return 1.0 if isnan(dice) else dice
