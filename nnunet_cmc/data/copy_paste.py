"""A part of a labelled scan in every unlabelled one, with its label: truth where there was none."""

import numpy as np
import torch

from nnunet_cmc.data.pairs import POSITION_STRIDE
from nnunet_cmc.data.two_views import TwoViewLoader

SIDE = 2 / 3  # of the patch, along each axis
NOT_PASTED = -1


class CopyPasteLoader(TwoViewLoader):
    """TwoViewLoader whose strong views hold a cuboid of a labelled row of the batch, where that row has it.

    ``pasted``: ``(N_unlabeled, 1, D, H, W)`` int16, the label in the cuboid and :data:`NOT_PASTED` elsewhere. The
    labelled row has every modality of the unlabelled one; where there is no such row in the batch, nothing is pasted.
    A modality that the unlabelled row lacks stays absent. ``positions`` of the unlabelled row are NaN wherever the
    cuboid touches a block that has one: what lies there is anatomy of another place, which CAC must not learn from.
    """

    def make_batch(self) -> dict:
        """A batch drawn with the global random generators."""
        batch = super().make_batch()
        n_labeled = len(batch["target"])
        present = batch["fusion"].diagonal(dim1=1, dim2=2)
        strong = batch["strong"]
        pasted = torch.full((len(strong), 1, *strong.shape[2:]), NOT_PASTED, dtype=torch.int16)
        for row, has in enumerate(present[n_labeled:]):
            donors = (present[:n_labeled] | ~has).all(1).nonzero()[:, 0].tolist()
            if donors:
                donor = int(np.random.choice(donors))
                sides = _cuboid(strong.shape[2:])
                cuboid = (slice(None), *sides)
                strong[row][cuboid] = batch["data"][donor][cuboid] * has[:, None, None, None]
                pasted[row][cuboid] = batch["target"][donor][cuboid]
                batch["positions"][n_labeled + row][(slice(None), *map(_blocks, sides))] = torch.nan
        return {**batch, "pasted": pasted}


def _cuboid(shape: tuple[int, ...]) -> list[slice]:
    """At a random place within ``shape``, as large as :data:`SIDE` says."""
    sides = [max(1, round(SIDE * length)) for length in shape]
    corner = [np.random.randint(length - side + 1) for length, side in zip(shape, sides, strict=True)]
    return [slice(start, start + side) for start, side in zip(corner, sides, strict=True)]


def _blocks(side: slice) -> slice:
    """Blocks of POSITION_STRIDE voxels that a side of the cuboid touches."""
    return slice(side.start // POSITION_STRIDE, -(-side.stop // POSITION_STRIDE))
