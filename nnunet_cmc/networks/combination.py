"""How predictions of a sample's modalities become one: modules that are called with the logits and who is present."""

import torch
from torch import Tensor, nn


class FirstPresent(nn.Module):
    """Take that of the first present modality, where all are the same: one decoder has decoded what was fused."""

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine ``logits (B, M, K, D, H, W)`` of the modalities ``present (B, M)`` into ``(B, K, D, H, W)``.

        What a row without any modality gets does not matter.
        """
        weight = first(present)[:, :, None].expand(-1, -1, logits.shape[2]).to(logits.dtype)
        return _weighted_sum(weight, logits)


class ByReliability(nn.Module):
    """Average log-probabilities, weighted by how reliable a modality is about a class.

    Attributes:
        reliability: log-weight ``(M, K)`` of each modality for each class: equal until a trainer sets it.
    """

    reliability: Tensor

    def __init__(self, num_modalities: int, num_classes: int):
        super().__init__()
        self.register_buffer("reliability", torch.zeros(num_modalities, num_classes))

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine as :meth:`FirstPresent.forward`."""
        score = self.reliability.masked_fill(~present[:, :, None], -torch.inf)
        weight = score.softmax(1).nan_to_num(0.0)  # (B, M, K); a row without any modality has no weights
        return _weighted_sum(weight, logits.log_softmax(2))


def first(present: Tensor) -> Tensor:
    """Mark the first modality of each sample: ``(B, M)`` -> ``(B, M)`` bool."""
    return present & (present.cumsum(1) == 1)


def _weighted_sum(weight: Tensor, logits: Tensor) -> Tensor:
    terms = (weight[:, m, :, None, None, None] * logits[:, m] for m in range(logits.shape[1]))
    total = next(terms)
    for term in terms:
        total = total + term
    return total
