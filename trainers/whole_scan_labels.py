"""Pseudo-labels of whole scans, predicted in one or several rounds of the training."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan
from os.path import isfile, join

import blosc2
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

from nnunet_cmc.data.loading.cases import WEIGHT, UnlabeledDataset
from nnunet_cmc.trainers.validation_dice import mean_dice
from nnunet_cmc.utils.files import atomic_write


@dataclass(frozen=True)
class WholeScanLabels:
    """Predict pseudo-labels of whole unlabelled scans from all their modalities, and train on them from then on.

    The moving average of the weights predicts them: while the learning rate is high, it is better than the weights of
    any one step (Izmailov et al., UAI 2018). Each round replaces the pseudo-labels, and the training continues with the
    same network; the winner of FLARE22 (Huang et al. 2022) and ST++ (Yang et al., CVPR 2022) train a new one. From the
    second round on, a scan is weighted by the stability of its pseudo-label (:func:`stability`), where these leave out
    the least stable scans; before, every scan weighs 1.

    Before the first round, unlabelled scans are not read. Afterwards their pairs replace labelled ones, so that the
    cost of a step does not change with two modalities.

    Attributes:
        at: fractions of the training after which a round is made, increasing.
        share: of the pairs of a batch that are pseudo-labelled; at least one labelled pair stays.

    Raises:
        ValueError: there is no round, they do not increase within 0 and 1, or the share is not between 0 and 1.
    """

    at: tuple[float, ...] = (0.7,)
    share: float = 0.5

    def __post_init__(self):
        if not self.at or any(before >= after for before, after in zip((0.0, *self.at), (*self.at, 1.0), strict=True)):
            raise ValueError(
                f"Rounds at {self.at} are not increasing fractions of a training: give one or more between 0 and 1."
            )
        if not 0 < self.share < 1:
            raise ValueError(f"A share {self.share} of a batch is impossible: give one between 0 and 1.")

    def rounds_before(self, epoch: int, epochs: int) -> int:
        """Return how many rounds are made before ``epoch`` of so many; each is at the start of the nearest epoch."""
        return sum(max(1, round(share * epochs)) <= epoch for share in self.at)


def label_scans(
    predictor: nnUNetPredictor,
    dataset: UnlabeledDataset,
    cases: Iterable[str],
    folder: str,
) -> None:
    """Write the predicted label ``(1, D, H, W)`` int16 of each preprocessed case to ``folder``, unless it is there.

    A case with a label of an earlier round gets a weight, in the same file. No other label is read, and one scan is in
    memory at a time.

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
            weight = {} if before is None else {WEIGHT: stability(before[:], label, len(logits))}
            patch_size = predictor.configuration_manager.patch_size
            blocks, chunks = comp_blosc2_params(label.shape, patch_size, label.itemsize)
            with atomic_write(file) as temporary:
                blosc2.asarray(label, urlpath=str(temporary), blocks=blocks, chunks=chunks, meta=weight)


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
