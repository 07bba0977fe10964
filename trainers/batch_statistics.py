"""Numbers for the log: rows in which a step shows each modality, and foreground of its pseudo-labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.ranks import summed
from nnunet_cmc.trainers.logger import pseudo_foreground_of


def shown(batch: Batch, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Count the rows of all ranks that show each modality: labelled, fused or alone, and unlabelled.

    A row may show a modality both fused and alone. Restyled copies are counted separately.
    """
    scans, n = batch.scans, batch.n_labeled
    several = batch.fusion.sum(2, keepdim=True) > 1  # (N, M, 1), predictions from several modalities
    fused, alone = (batch.fusion & several).any(1) & scans, batch.predicted & ~several[..., 0] & scans
    counts = {"fused": fused[:n].sum(0), "alone": alone[:n].sum(0), "unlabelled": scans[n:].sum(0)}
    if batch.swaps is not None:
        counts["restyled"] = (batch.predicted & ~scans).sum(0)
    (numbers,) = summed(torch.stack([*counts.values()]).float())
    names = [f"shown/{name} {how}" for how in counts for name in modalities]
    return dict(zip(names, numbers.flatten(), strict=True))


def pseudo_foreground(batch: Batch, modalities: Sequence[str], num_classes: int) -> dict[str, Tensor]:
    """Compute the share of foreground in the pseudo-labels of each modality's rows of all ranks; NaN without any row.

    If it is 0, the network learns that there is no foreground.
    """
    assert batch.pseudo_targets is not None
    foreground = (batch.pseudo_targets > 0) & (batch.pseudo_targets < num_classes)
    share = foreground.flatten(1).float().mean(1)
    present = batch.scans[batch.n_labeled :].float()
    total, count = summed((share[:, None] * present).sum(0), present.sum(0))
    return dict(zip(map(pseudo_foreground_of, modalities), total / count, strict=True))
