"""What a training step shows the network, and its pseudo-labels, by modality: numbers for the log."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.ranks import summed
from nnunet_cmc.trainers.logger import pseudo_foreground_of


def shown(batch: Batch, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Count in how many rows each modality is shown: labelled, fused with others and alone, and unlabelled.

    Rows are those of all ranks. Copies in the style of a modality are counted by themselves.
    """
    scans = batch.scans
    together = batch.fusion.sum(2) * scans  # (N, M), how many each is fused with, itself among them
    labeled, hidden = together[: batch.n_labeled], together[batch.n_labeled :]
    counts = {"fused": (labeled > 1).sum(0), "alone": (labeled == 1).sum(0), "unlabelled": (hidden > 0).sum(0)}
    if batch.swaps is not None:
        counts["restyled"] = (batch.present & ~scans).sum(0)
    (numbers,) = summed(torch.stack([*counts.values()]).float())
    names = [f"shown/{name} {how}" for how in counts for name in modalities]
    return dict(zip(names, numbers.flatten(), strict=True))


def pseudo_foreground(batch: Batch, modalities: Sequence[str], num_classes: int) -> dict[str, Tensor]:
    """Compute the share of foreground in the pseudo-labels of each modality's rows of all ranks; NaN without any row.

    Where there is none, they teach that there is none.
    """
    assert batch.pseudo_targets is not None
    foreground = (batch.pseudo_targets > 0) & (batch.pseudo_targets < num_classes)
    share = foreground.flatten(1).float().mean(1)
    present = batch.scans[batch.n_labeled :].float()
    total, count = summed((share[:, None] * present).sum(0), present.sum(0))
    return dict(zip(map(pseudo_foreground_of, modalities), total / count, strict=True))
