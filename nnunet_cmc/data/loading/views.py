"""Views: what is done to a batch of pairs before the trainer sees it. Each is a value that maps a batch to a batch.

They draw from the global random generators, as nnU-Net's augmentation does.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.blank_rectangle import BlankRectangleTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.gin import GINTransform

NOT_PASTED = -1


@dataclass(frozen=True)
class StrongView:
    """Add ``strong``: the unlabelled rows perturbed, for the student of a mean teacher, who sees them as they are.

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
class RandomizeContrast:
    """Show strong views in a random contrast (:class:`GINTransform`), each channel in its own.

    A student who is to agree with a teacher on another contrast learns shapes. Where classes are contrasts, as an
    enhancing tumour is, there is nothing to learn from it.

    Args:
        share: of the strong views, which are chosen at random.
        clip: for each channel the lowest and highest value of the result, or None; a trainer takes it from the plans.
    """

    share: float = 1.0
    clip: tuple[tuple[float, float] | None, ...] = field(default=(), repr=False)

    def __call__(self, batch: Batch) -> Batch:
        """``batch`` with changed ``strong``. ValueError: it has no strong views."""
        if batch.strong is None:
            raise ValueError("RandomizeContrast changes strong views: put StrongView before it.")
        strong = batch.strong.clone()
        randomize = GINTransform(self.clip)
        for row in np.flatnonzero(np.random.uniform(size=len(strong)) < self.share):
            strong[row] = randomize(image=strong[row])["image"]
        return replace(batch, strong=strong)


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
        strong, positions = batch.strong.clone(), batch.positions.clone()
        stride = [side // cells for side, cells in zip(strong.shape[2:], positions.shape[2:], strict=True)]
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


View = StrongView | RandomizeContrast | CopyPaste | FusePairs


def perturbation(patch_size) -> BasicTransform:
    """nnU-Net's changes of intensity at twice its strength and several times its frequency, and holes.

    No voxel moves, so what is true of the weak view is true of the strong one.
    """
    hole = tuple((max(side // 8, 1), max(side // 3, 2)) for side in patch_size)
    each = {"synchronize_channels": False, "p_per_channel": 1}
    steps = [
        GaussianNoiseTransform((0, 0.2), **each),
        GaussianBlurTransform((0.5, 1.5), synchronize_axes=False, **each),
        MultiplicativeBrightnessTransform(BGContrast((0.5, 1.5)), **each),
        ContrastTransform(BGContrast((0.5, 1.5)), preserve_range=True, **each),
        GammaTransform(BGContrast((0.5, 2.0)), p_invert_image=0.2, p_retain_stats=1, **each),
        BlankRectangleTransform(hole, torch.mean, num_rectangles=(1, 4)),
    ]
    return ComposeTransforms([RandomTransform(step, apply_probability=0.5) for step in steps])
