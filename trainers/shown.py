"""What a training step shows the network, and its pseudo-labels, by modality: numbers for the log."""

from collections.abc import Sequence

from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.trainers.logger import pseudo_foreground_of


def shown(batch: Batch, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Count in how many rows each modality is shown: labelled, fused with others and alone, and unlabelled.

    Copies in the style of a modality are counted by themselves.
    """
    scans = batch.scans
    together = batch.fusion.sum(2) * scans  # (N, M), how many each is fused with, itself among them
    labeled, hidden = together[: batch.n_labeled], together[batch.n_labeled :]
    counts = {"fused": (labeled > 1).sum(0), "alone": (labeled == 1).sum(0), "unlabelled": (hidden > 0).sum(0)}
    if batch.swaps is not None:
        counts["restyled"] = (batch.present & ~scans).sum(0)
    return {f"shown/{name} {how}": count[m] for how, count in counts.items() for m, name in enumerate(modalities)}


def pseudo_foreground(batch: Batch, modalities: Sequence[str], num_classes: int) -> dict[str, Tensor]:
    """Compute the share of foreground in the pseudo-labels of each modality's rows; NaN without any row.

    Where there is none, they teach that there is none.
    """
    assert batch.pseudo_targets is not None
    foreground = (batch.pseudo_targets > 0) & (batch.pseudo_targets < num_classes)
    share = foreground.flatten(1).float().mean(1)
    present = batch.scans[batch.n_labeled :]
    return {pseudo_foreground_of(name): share[present[:, m]].mean() for m, name in enumerate(modalities)}
