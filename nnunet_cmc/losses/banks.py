"""Moving averages of class statistics that single batches contain too rarely: prototypes and occupancy maps."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MovingAverageBank(nn.Module):
    """Keep one moving average per entry, e.g. per modality and class, in the ``state_dict``.

    Args:
        entries: shape of the entries that are filled independently, e.g. ``(M, K)``.
        features: shape of one entry, e.g. ``(C,)``; ``()`` for a number.
        momentum: share of the old value that an update keeps; an entry's first value is taken as is.

    Attributes:
        value: ``(*entries, *features)`` float32 buffer, 0 where nothing was seen yet.
        filled: ``(*entries)`` bool buffer, true where something was.
    """

    value: Tensor
    filled: Tensor

    def __init__(self, entries: Sequence[int], features: Sequence[int] = (), momentum: float = 0.99):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(*entries, *features))
        self.register_buffer("filled", torch.zeros(*entries, dtype=torch.bool))

    def complete(self, totals: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's own means, with gradient, and the bank's (constant) values for entries the batch lacks.

        Args:
            totals: ``(*entries, *features)``, weighted sums over the batch.
            weights: ``(*entries)``, the sums of the weights; 0 where the batch lacks the entry.

        Returns:
            values ``(*entries, *features)`` and the bool mask ``(*entries)`` of those that are known.
        """
        seen = weights > 0
        means = totals / self._per_feature(torch.where(seen, weights, 1))
        return torch.where(self._per_feature(seen), means, self.value.to(means.dtype)), seen | self.filled

    @torch.no_grad()
    def update(self, totals: Tensor, weights: Tensor) -> None:
        """Move the entries seen in the batch towards its means. Arguments as in `complete`."""
        totals, weights = totals.to(self.value.dtype), weights.to(self.value.dtype)
        means, _ = self.complete(totals, weights)
        # a step that overflowed under float16 is skipped by the gradient scaler; the bank must skip it as well
        finite = means.isfinite().reshape(*self.filled.shape, -1).all(-1)
        seen = (weights > 0) & finite
        moved = torch.lerp(means, self.value, self.momentum)
        moved = torch.where(self._per_feature(self.filled), moved, means)
        self.value.copy_(torch.where(self._per_feature(seen), moved, self.value))
        self.filled.logical_or_(seen)

    def _per_feature(self, entries: Tensor) -> Tensor:
        return entries.reshape(*entries.shape, *[1] * (self.value.ndim - self.filled.ndim))
