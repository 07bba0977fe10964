"""Views: what is done to a batch of pairs before the trainer sees it. Each is a value that maps a batch to a batch.

They draw from the global random generators, as nnU-Net's augmentation does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_cmc.data.loading.batch import Batch

NOT_PASTED = -1


@dataclass(frozen=True)
class StrongView:
    """Add ``strong``: the unlabelled rows with nnU-Net's changes of intensity, which the weak ones do not have.

    The student of a mean teacher sees the strong view, the teacher the weak one.

    An absent channel is exactly zero in both views; a present one is not zero everywhere in either.
    """

    def __call__(self, batch: Batch) -> Batch:
        """``batch`` with ``strong``."""
        weak = batch.data[batch.n_labeled :]
        perturb = perturbation(weak.shape[2:])
        there = (weak != 0).flatten(2).any(2)[..., None, None, None]
        strong = torch.stack([perturb(image=row.clone())["image"] for row in weak]) if len(weak) else weak
        return replace(batch, strong=strong * there)


@dataclass(frozen=True)
class CopyPaste:
    """Put a cuboid of a labelled row of the batch into every strong view, with its true label in ``pasted``.

    Labels come from few scans, pseudo-labels from many, and a network can tell the two kinds apart. Where a part of a
    labelled scan lies in an unlabelled one it cannot, and what it learned of the label goes over (bidirectional
    copy-paste, Bai et al., CVPR 2023; here one way, labelled into unlabelled).

    The labelled row has every modality of the unlabelled one; where there is no such row in the batch, nothing is
    pasted. A modality that the unlabelled row lacks stays absent. ``positions`` of the unlabelled row become NaN
    wherever the cuboid touches a cell: what lies there is anatomy of another place, which CAC must not learn from.

    Args:
        side: of the cuboid, as a share of the patch along each axis.
    """

    side: float = 2 / 3

    def __call__(self, batch: Batch) -> Batch:
        """``batch`` with ``pasted``, and changed ``strong`` and ``positions``. ValueError: it has no strong views."""
        if batch.strong is None:
            raise ValueError("CopyPaste pastes into strong views: put StrongView before it.")
        n_labeled, present = batch.n_labeled, batch.present
        strong, positions, stride = batch.strong.clone(), batch.positions.clone(), batch.position_stride
        pasted = torch.full((len(strong), 1, *strong.shape[2:]), NOT_PASTED, dtype=torch.int16)
        for row, has in enumerate(present[n_labeled:]):
            donors = (present[:n_labeled] | ~has).all(1).nonzero()[:, 0].tolist()
            if donors:
                donor = int(np.random.choice(donors))
                sides = self._cuboid(strong.shape[2:])
                cuboid = (slice(None), *sides)
                strong[row][cuboid] = batch.data[donor][cuboid] * has[:, None, None, None]
                pasted[row][cuboid] = batch.target[donor][cuboid]
                touched = (slice(s.start // n, -(-s.stop // n)) for s, n in zip(sides, stride, strict=True))
                positions[n_labeled + row][(slice(None), *touched)] = torch.nan
        return replace(batch, strong=strong, pasted=pasted, positions=positions)

    def _cuboid(self, shape: torch.Size) -> list[slice]:
        """At a random place within ``shape``."""
        sides = [max(1, round(self.side * length)) for length in shape]
        corner = [np.random.randint(length - side + 1) for length, side in zip(shape, sides, strict=True)]
        return [slice(start, start + side) for start, side in zip(corner, sides, strict=True)]


@dataclass(frozen=True)
class FusePairs:
    """Make every pair one row, the scans of two patients side by side in its channels, as the paper does on AMOS.

    ``target`` becomes ``(P_labeled, M, D, H, W)``, each modality's own label, and everything present is fused, voxel by
    voxel: a voxel of the result shows two patients at unlike places.
    """

    def __call__(self, batch: Batch) -> Batch:
        """``batch`` with a row for each pair."""
        pairs = batch.pairs
        n_labeled = int((pairs.amax(1) < batch.n_labeled).sum())
        there = pairs >= 0
        modality = torch.arange(pairs.shape[1]).expand_as(pairs)
        keys = batch.keys or []
        return replace(
            batch,
            data=batch.data[pairs.clamp(min=0), modality] * there[:, :, None, None, None],
            target=batch.target[pairs[:n_labeled].clamp(min=0), 0],
            fusion=there[:, None] & there[:, :, None],
            pairs=torch.where(there, torch.arange(len(pairs))[:, None], -1),
            positions=torch.full((len(pairs), *batch.positions.shape[1:]), torch.nan),
            keys=[[keys[row] for row in pair if row >= 0] for pair in pairs.tolist()] if keys else None,
        )


View = StrongView | CopyPaste | FusePairs


def is_intensity(transform: BasicTransform) -> bool:
    """Tell whether a step of nnU-Net's training augmentation changes intensities, and moves no voxel."""
    return isinstance(transform, RandomTransform) and isinstance(transform.transform, ImageOnlyTransform)


def perturbation(patch_size: Sequence[int]) -> BasicTransform:
    """Return nnU-Net's changes of intensity: what is true of the weak view is true of the strong one."""
    steps = nnUNetTrainer.get_training_transforms(patch_size, (0.0, 0.0), None, (), False).transforms
    return ComposeTransforms([step for step in steps if is_intensity(step)])
