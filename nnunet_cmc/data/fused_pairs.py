"""Pairs as the paper trains on them: two scans are one sample, whether or not they show the same body."""

import torch

from nnunet_cmc.data.pairs import PairLoader


class FusedPairLoader(PairLoader):
    """Every pair is one row, the scans of two patients side by side in their channels.

    As :class:`PairLoader`, but ``target`` is ``(P_labeled, M, D, H, W)``, each modality's own label, and everything
    present is fused, voxel by voxel. A voxel of the result shows two patients at unlike places: this is what the
    paper does on AMOS, and what CMCTrainer does not.
    """

    def make_batch(self) -> dict:
        """A batch drawn with the global random generators."""
        batch = super().make_batch()
        pairs = batch["pairs"]
        n_labeled = int((pairs.amax(1) < len(batch["target"])).sum())
        there = pairs >= 0
        modality = torch.arange(pairs.shape[1]).expand_as(pairs)
        data = batch["data"][pairs.clamp(min=0), modality] * there[:, :, None, None, None]
        target = batch["target"][pairs[:n_labeled].clamp(min=0), 0]
        return {
            **batch,
            "data": data,
            "target": target,
            "fusion": there[:, None] & there[:, :, None],
            "pairs": torch.where(there, torch.arange(len(pairs))[:, None], -1),
            "positions": torch.full((len(pairs), *batch["positions"].shape[1:]), torch.nan),
            "keys": [[batch["keys"][row] for row in pair if row >= 0] for pair in pairs],
        }
