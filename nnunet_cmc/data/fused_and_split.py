"""Labelled scans in both ways that a network may meet them: all modalities together, and some of them missing."""

import torch
from torch import Tensor

from nnunet_cmc.data.pairs import PairLoader, fusion_groups


class FusedAndSplitLoader(PairLoader):
    """Every labelled case of several modalities is two rows: one fuses all of them, the other is split into parties.

    :class:`PairLoader` leaves to chance which of the two it is. The second rows follow the other labelled ones and
    belong to no pair: CSC compares the modalities of a case once.
    """

    def make_batch(self) -> dict:
        """A batch drawn with the global random generators."""
        batch = super().make_batch()
        n_labeled = len(batch["target"])
        present = batch["fusion"].diagonal(dim1=1, dim2=2)
        channels = [tuple(row.nonzero()[:, 0].tolist()) for row in present[:n_labeled]]
        several = [row for row, those in enumerate(channels) if len(those) > 1]
        if not several:
            return batch
        batch["fusion"][several] = present[several, :, None] & present[several, None]

        def with_second_rows(rows, second):
            parts = rows[:n_labeled], second, rows[n_labeled:]
            return torch.cat(parts) if isinstance(rows, Tensor) else [row for part in parts for row in part]

        again = {key: batch[key][several] for key in ("data", "target", "positions")}
        again["fusion"] = torch.stack([fusion_groups(channels[row], present.shape[1], split=True) for row in several])
        again["keys"] = [batch["keys"][row] for row in several]
        pairs = torch.where(batch["pairs"] < n_labeled, batch["pairs"], batch["pairs"] + len(several))
        return {**batch, **{key: with_second_rows(batch[key], rows) for key, rows in again.items()}, "pairs": pairs}
