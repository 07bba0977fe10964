"""Weights of the modalities whose features a shared decoder gets fused."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FusionWeights(nn.Module):
    """Weigh the features of the present modalities half equally and half by reliability.

    A network that has seen no fused features with a label predicts from their mean worse than from the better modality
    alone; by reliability only, it would not gain from the other one. With equal reliabilities, as trained networks have
    them otherwise, fusion is what it is without weights.

    Attributes:
        reliability: log-weight ``(M)`` of each modality: zero until a trainer sets it.
    """

    reliability: Tensor

    def __init__(self, num_modalities: int):
        super().__init__()
        self.register_buffer("reliability", torch.zeros(num_modalities))

    def of(self, groups: Sequence[tuple[bool, ...]]) -> Tensor | None:
        """Return the weights ``(W, M)`` of W sets of modalities, relative to equal ones; None if all are equal."""
        if all(sum(group) == 1 for group in groups) or not self.reliability.any():
            return None
        members = torch.tensor(groups).to(self.reliability.device, non_blocking=True)
        by_reliability = self.reliability.masked_fill(~members, -torch.inf).softmax(1)
        return (members + members.sum(1, keepdim=True) * by_reliability) / 2
