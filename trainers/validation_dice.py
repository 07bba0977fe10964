"""Dice of each modality alone on the patches that nnU-Net validates on during training."""

import numpy as np
import torch
from torch import Tensor, nn

SHARPNESS = 10.0  # a modality whose Dice is 0.1 higher weighs e times as much
MEMORY = 0.5  # weight of earlier epochs in the moving average
KNOWN = 1e-6  # the least reliability that is known: 0 says that nothing is
UNTAUGHT = -100.0  # the log-weight of a modality for a class that it was never taught


def confusion_alone(network: nn.Module, data: Tensor, target: Tensor) -> np.ndarray:
    """Count voxels by modality, true class and class predicted from that modality alone: ``(M, K, K)`` int64.

    It takes one forward pass, and equals the prediction for a case scanned in that modality only.

    Args:
        data: ``(B, M, D, H, W)``; an absent modality, zero everywhere, is not counted.
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


def dice_per_class(confusion: np.ndarray) -> np.ndarray:
    """Compute Dice ``(..., K)`` of every class of ``confusion (..., K, K)``; NaN where no voxel is of it."""
    there = confusion.sum(-1) + confusion.sum(-2)
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.where(there > 0, 2 * hit / np.maximum(there, 1), np.nan)


def mean_dice(confusion: np.ndarray) -> float:
    """Compute the mean Dice of the foreground classes of ``confusion (K, K)`` that occur; NaN if none does."""
    return _mean_of_known(dice_per_class(confusion)[1:])


def dice_of_shown(confusion: np.ndarray) -> np.ndarray:
    """Compute Dice ``(..., K)`` of the foreground classes that are true somewhere; NaN for the others."""
    dice = np.where(confusion.sum(-1) > 0, dice_per_class(confusion), np.nan)
    dice[..., 0] = np.nan
    return dice


def mean_dice_of_shown(confusion: np.ndarray) -> float:
    """Compute :func:`mean_dice` without the classes that are predicted, but nowhere true; NaN if no class is."""
    return _mean_of_known(dice_of_shown(confusion))


def _mean_of_known(dice: np.ndarray) -> float:
    return float(np.nanmean(dice)) if np.isfinite(dice).any() else float("nan")


def comparable_dice(dice: Tensor) -> Tensor:
    """Average ``dice (M, K)`` of each modality, ``(M)``, over the classes that all modalities show, if there are such.

    A modality that is labelled with the easy classes alone is not better. NaN for one that shows no class.
    """
    known = ~dice.isnan()
    common = known[known.any(1)].all(0)
    return (dice[:, common] if common.any() else dice).nanmean(1)


def updated_reliability(reliability: Tensor, confusion: np.ndarray, taught: np.ndarray | None = None) -> Tensor:
    """Update how reliable each modality is about each class, as logarithms of weights, from validation Dice.

    It is the Dice of that modality alone on labelled validation patches, which the network does not train on: training
    patches may be memorised (overfitting), so that even a modality of pure noise looks good there. The combination is
    thus fitted to the validation cases, and its Dice on them is slightly optimistic. Nearly all background is easy, so
    it gets the mean of the other classes, and so does a class without a known Dice: see :func:`comparable_dice`.

    Args:
        reliability: ``(M, K)``, the present values; 0 where nothing is known yet.
        confusion: ``(M, K, K)``, voxels by true and predicted class.
        taught: ``(M, K)`` bool, classes that labelled training cases of each modality have; None: all. A modality that
            was never shown a class gets a weight near 0 for it: it has learned that the class is background.
    """
    dice = torch.from_numpy(dice_of_shown(confusion))
    of_modality = comparable_dice(dice)
    of_modality = torch.where(of_modality.isnan(), of_modality.nanmean(), of_modality)[:, None].expand_as(dice)
    if of_modality.isnan().all():
        return reliability
    kept = dice.isnan() & (reliability.cpu() != 0)
    kept[:, 0] = False
    kept |= (dice.isnan() & (reliability.cpu() != 0)).all(1, keepdim=True)  # no patch shows the modality this time
    new = (SHARPNESS * torch.where(dice.isnan(), of_modality, dice)).clamp_min(KNOWN).to(reliability)
    if taught is not None:
        new[:, 1:][~torch.from_numpy(taught[:, 1:]).to(new.device)] = UNTAUGHT
    moved = torch.where(reliability == 0, new, torch.lerp(new, reliability, MEMORY))
    return torch.where(kept.to(reliability.device), reliability, moved)
