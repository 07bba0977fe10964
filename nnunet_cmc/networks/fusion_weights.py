"""Weights of the modalities whose features a shared decoder gets fused."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FusionWeights(nn.Module):
    """Weigh the features of modalities that no labelled case has on one grid: half equally, half by reliability.

    A network that has seen no fused features of them with a label predicts from the mean worse than from the better
    modality alone; by reliability only, it would not gain from the other one. All other sets of modalities have equal
    weights, with which fusion is what it is without.

    Attributes:
        reliability: log-weight ``(M)`` of each modality: zero until a trainer sets it.
        together: ``(M, M)`` bool, which two modalities some labelled case of the training has on one grid: all, until a
            trainer sets it.
    """

    reliability: Tensor
    together: Tensor

    def __init__(self, num_modalities: int):
        super().__init__()
        self.register_buffer("reliability", torch.zeros(num_modalities))
        self.register_buffer("together", torch.ones(num_modalities, num_modalities, dtype=torch.bool))

    def of(self, groups: Sequence[tuple[bool, ...]]) -> Tensor | None:
        """Return the weights ``(W, M)`` of W sets of modalities, relative to equal ones; None if all are equal."""
        if all(sum(group) == 1 for group in groups):
            return None
        members = torch.tensor(groups).to(self.together.device, non_blocking=True)
        untaught = (members[:, :, None] & members[:, None] & ~self.together).flatten(1).any(1, keepdim=True)
        if not untaught.any():
            return None
        by_reliability = self.reliability.masked_fill(~members, -torch.inf).softmax(1)
        size = members.sum(1, keepdim=True)
        return members * torch.where(untaught, (1 + size * by_reliability) / 2, 1)
