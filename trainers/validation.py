"""How well each modality does by itself, on the patches that nnU-Net validates on while it trains."""

import numpy as np
import torch
from torch import Tensor

from nnunet_cmc.networks import CMCNet


def confusion_alone(network: CMCNet, data: Tensor, target: Tensor) -> np.ndarray:
    """Voxels by modality, true class and class predicted from that modality alone: ``(M, K, K)`` int64.

    One forward pass; what it predicts is what the network predicts for a case scanned in that modality only.

    Args:
        data: ``(B, M, D, H, W)``; an absent modality, zero everywhere, has nothing to count.
        target: ``(B, 1, D, H, W)``, label values 0 to K - 1.
    """
    samples, modalities = data.shape[:2]
    alone = torch.eye(modalities, dtype=torch.bool, device=data.device).expand(samples, -1, -1)
    output = network(data, alone)
    classes = output.logits.shape[2]
    counts = torch.zeros(modalities, classes * classes, dtype=torch.int64)
    for m in range(modalities):
        rows = output.present[:, m]
        pairs = target[rows, 0].long() * classes + output.logits[rows, m].argmax(1)
        counts[m] = torch.bincount(pairs.flatten(), minlength=classes * classes).cpu()
    return counts.view(modalities, classes, classes).numpy()


def mean_dice(confusion: np.ndarray) -> float:
    """Mean Dice of the foreground classes of ``confusion (K, K)`` that occur; NaN if none does."""
    there = confusion.sum(0) + confusion.sum(1)
    dice = 2 * confusion.diagonal() / np.maximum(there, 1)
    foreground = np.arange(len(there)) > 0
    return float(dice[foreground & (there > 0)].mean()) if (foreground & (there > 0)).any() else float("nan")
