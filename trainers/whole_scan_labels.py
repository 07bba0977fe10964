"""Pseudo-labels of whole scans, which the network makes once in its training."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from os.path import isfile, join

import blosc2
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_cmc.data.loading.cases import UnlabeledDataset
from nnunet_cmc.utils.files import atomic_write


@dataclass(frozen=True)
class WholeScanLabels:
    """Label the unlabelled scans once, whole and from all their modalities, and learn from these labels from then on.

    Attributes:
        at: share of the training after which.
    """

    at: float = 0.5

    def epoch(self, epochs: int) -> int:
        """Return the first epoch, of so many, that learns from the labels."""
        return ceil(self.at * epochs)


def label_scans(
    predictor: nnUNetPredictor, dataset: UnlabeledDataset, cases: list[str], folder: str, after_each: Callable[[], None]
) -> None:
    """Write the predicted label ``(1, D, H, W)`` int16 of each preprocessed case to ``folder``, but for those there.

    No label is read, and one scan is in memory at a time.

    Args:
        predictor: of the network that labels.
        after_each: is called after each case.
    """
    for case in cases:
        file = join(folder, f"{case}_seg.b2nd")
        if not isfile(file):
            image = torch.from_numpy(np.array(dataset.load_case(case)[0][:]))
            label = predictor.predict_sliding_window_return_logits(image).argmax(0, keepdim=True)
            with atomic_write(file) as temporary:
                blosc2.asarray(label.to(torch.int16).cpu().numpy(), urlpath=str(temporary))
        after_each()
