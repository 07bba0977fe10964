"""Views: changes of a batch of pairs before the trainer gets it. Each is a value that maps a batch to a batch.

They draw from the global random generators, as nnU-Net's augmentation does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_cmc.data.loading.background import KeepBackground, is_intensity
from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.gin import Contrasts
from nnunet_cmc.data.loading.style import SwapStyles


@dataclass(frozen=True)
class StrongView:
    """Add ``strong``: the unlabelled rows with nnU-Net's changes of intensity, which ``data`` does not have.

    The student of a mean teacher gets the strong view, the teacher the weak one, ``data``.

    The background is the same in both views. An absent channel is exactly zero in both; a present one is not zero
    everywhere in either.
    """

    def __call__(self, batch: Batch) -> Batch:
        """Return ``batch`` with ``strong``."""
        weak = batch.data[batch.n_labeled :]
        perturb = KeepBackground(perturbation(weak.shape[2:]))
        there = (weak != 0).flatten(2).any(2)[..., None, None, None]
        strong = torch.stack([perturb(image=row.clone())["image"] for row in weak]) if len(weak) else weak
        return replace(batch, strong=strong * there)


@dataclass(frozen=True)
class RandomizeContrast:
    """Give each channel of the strong views a random contrast (:func:`randomize_contrast`).

    It draws :class:`Contrasts`, which the trainer computes on its device: on a worker they would take as long as all of
    nnU-Net's augmentation, but are a negligible part of a training step.

    A student that must agree with its teacher in another contrast learns shapes. For classes that are defined by their
    contrast, such as an enhancing tumour, this does not help.

    Args:
        share: of the strong views, which are chosen at random.
        clip: for each channel the lowest and highest value of the result, or None; a trainer takes it from the plans.
    """

    share: float = 1.0
    clip: tuple[tuple[float, float] | None, ...] = field(default=(), repr=False)

    def __call__(self, batch: Batch) -> Batch:
        """Return ``batch`` with ``contrasts``. ValueError: there are no strong views, or ``clip`` does not fit them."""
        if batch.strong is None:
            raise ValueError("RandomizeContrast changes strong views: put StrongView before it.")
        channels = batch.strong.shape[1]
        clip = self.clip or [None] * channels
        if len(clip) != channels:
            raise ValueError(
                f"RandomizeContrast has {len(clip)} ranges to clip to, and the batch {channels} modalities: give one "
                "range, or None, for each."
            )
        chosen = torch.from_numpy(np.random.uniform(size=len(batch.strong)) < self.share)
        scans = (batch.predicted[batch.n_labeled :] & chosen[:, None]).nonzero().tolist()
        seed = int(torch.randint(2**62, ()))
        rows, shown = [row for row, _ in scans], [channel for _, channel in scans]
        return replace(batch, contrasts=Contrasts(seed, rows, shown, [clip[channel] for channel in shown]))


@dataclass(frozen=True)
class FusePairs:
    """Make every pair one row, with scans of two patients as its channels, as the paper does on AMOS.

    ``target`` becomes ``(P_labeled, M, D, H, W)``, each modality's own label, and all present modalities are fused
    voxel by voxel, although voxels of two patients do not correspond.
    """

    def __call__(self, batch: Batch) -> Batch:
        """Return ``batch`` with a row for each pair."""
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


View = StrongView | RandomizeContrast | FusePairs | SwapStyles


def perturbation(patch_size: Sequence[int]) -> ComposeTransforms:
    """Return nnU-Net's changes of intensity, which keep the positions of voxels, so that labels stay valid."""
    flat = max(patch_size) / patch_size[0] > ANISO_THRESHOLD  # then nnU-Net leaves the resolution of this axis as it is
    steps = nnUNetTrainer.get_training_transforms(patch_size, (0.0, 0.0), None, (), flat).transforms
    return ComposeTransforms([step for step in steps if is_intensity(step)])
