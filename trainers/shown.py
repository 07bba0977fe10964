"""What a training step shows the network, and what its teacher teaches, by modality: numbers for the log."""

from collections.abc import Sequence

from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.trainers.logger import taught_of


def shown(batch: Batch, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Count in how many rows each modality is shown: labelled, fused with others and alone, and unlabelled."""
    together = batch.fusion.sum(2)  # (N, M), how many modalities each is fused with, itself among them
    labeled, hidden = together[: batch.n_labeled], together[batch.n_labeled :]
    counts = {"fused": (labeled > 1).sum(0), "alone": (labeled == 1).sum(0), "unlabelled": (hidden > 0).sum(0)}
    return {f"shown/{name} {how}": count[m] for how, count in counts.items() for m, name in enumerate(modalities)}


def foreground_taught(batch: Batch, modalities: Sequence[str], num_classes: int) -> dict[str, Tensor]:
    """Compute which share of the unlabelled voxels of each modality the teacher calls foreground; NaN without any.

    A teacher that calls nothing foreground teaches that there is none.
    """
    assert batch.pseudo_targets is not None
    foreground = (batch.pseudo_targets > 0) & (batch.pseudo_targets < num_classes)
    share = foreground.flatten(1).float().mean(1)
    present = batch.present[batch.n_labeled :]
    return {taught_of(name): share[present[:, m]].mean() for m, name in enumerate(modalities)}
