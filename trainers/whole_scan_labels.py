"""Pseudo-labels of whole scans, which the network makes in one or several rounds of its training."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, isnan
from os.path import isfile, join

import blosc2
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_cmc.data.loading.cases import WEIGHT, UnlabeledDataset
from nnunet_cmc.trainers.validation import mean_dice
from nnunet_cmc.utils.files import atomic_write


@dataclass(frozen=True)
class WholeScanLabels:
    """Label the unlabelled scans whole and from all their modalities, and learn from these labels from then on.

    The moving average of the weights labels them: while the learning rate is high, it predicts better than the weights
    of any one step (Izmailov et al., UAI 2018). Each round replaces the labels, and the training goes on with the
    network as it is; the winner of FLARE22 (Huang et al. 2022) and ST++ (Yang et al., CVPR 2022) train a new one. From
    the second round on a scan weighs as much as its label is stable (:func:`stability`), where these leave out the
    least stable scans; before, every scan weighs 1.

    Until there are labels unlabelled scans are not read. Then their pairs take the place of labelled ones, so that a
    step costs the same all the time.

    Attributes:
        at: shares of the training after which a round is made, rising.
        share: of the pairs of a batch that are of scans labelled so; one labelled pair stays at least.

    Raises:
        ValueError: there is no round, they do not rise within 0 and 1, or the share is not between 0 and 1.
    """

    at: tuple[float, ...] = (0.5,)
    share: float = 0.5

    def __post_init__(self):
        if not self.at or any(before >= after for before, after in zip((0.0, *self.at), (*self.at, 1.0), strict=True)):
            raise ValueError(
                f"Rounds at {self.at} are not increasing fractions of a training: give one or more between 0 and 1."
            )
        if not 0 < self.share < 1:
            raise ValueError(f"A share {self.share} of a batch is impossible: give one between 0 and 1.")

    def rounds_before(self, epoch: int, epochs: int) -> int:
        """Return how many rounds are made before ``epoch`` of so many epochs."""
        return sum(ceil(share * epochs) <= epoch for share in self.at)


def label_scans(
    predictor: nnUNetPredictor,
    dataset: UnlabeledDataset,
    cases: Iterable[str],
    folder: str,
) -> None:
    """Write the predicted label ``(1, D, H, W)`` int16 of each preprocessed case to ``folder``, but for those there.

    A case that has a label of an earlier round gets its weight, in the same file. No label but such a one is read, and
    one scan is in memory at a time.

    Args:
        predictor: of the network that labels.
        dataset: reads the images, and the labels of the round before.
    """
    for case in cases:
        file = join(folder, f"{case}_seg.b2nd")
        if not isfile(file):
            on_disk, before, _, _ = dataset.load_case(case)
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(on_disk[:])))
            label = logits.argmax(0, keepdim=True).to(torch.int16).cpu().numpy()
            weight = {} if before is None else {WEIGHT: stability(before[:], label, len(logits))}
            with atomic_write(file) as temporary:
                blosc2.asarray(label, urlpath=str(temporary), meta=weight)


def stability(before: np.ndarray, after: np.ndarray, num_classes: int) -> float:
    """Compute the mean Dice over the foreground classes between two labels of a scan, in [0, 1].

    A class that is in neither does not count, and one that is in one of them alone counts 0. Without any foreground in
    both the labels agree, which is 1.

    Args:
        before, after: ``(1, D, H, W)``, label values 0 to ``num_classes`` - 1.
    """
    confusion = np.zeros(num_classes**2, dtype=np.int64)
    for first, second in zip(before[0], after[0], strict=True):  # by slice: the sum below takes 8 bytes a voxel
        pairs = first.astype(np.int64) * num_classes + second
        confusion += np.bincount(pairs.ravel(), minlength=num_classes**2)
    dice = mean_dice(confusion.reshape(num_classes, num_classes))
    return 1.0 if isnan(dice) else dice
