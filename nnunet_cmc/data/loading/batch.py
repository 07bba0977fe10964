"""A training batch: rows of labelled and of unlabelled scans, and the pairs that they form."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nnunet_cmc.data.loading.gin import Contrasts

NUMBERS = ("pairs", "swaps")  # row numbers, kept on the CPU, so that the host does not wait for the GPU


@dataclass(frozen=True)
class Batch:
    """Input of a training step. A *row* is one network sample ``(M, D, H, W)``; the labelled rows come first.

    Attributes:
        data: ``(N, M, D, H, W)`` float32; a modality that a row lacks is exactly zero.
        target: ``(N_labeled, 1, D, H, W)`` int16, or one label map for each modality: ``(N_labeled, M, D, H, W)``.
        fusion: ``(N, M, M)`` bool, for :class:`CMCNet`.
        pairs: ``(P, M)`` int64, the row that shows modality m of pair p, or -1; on the CPU.
        positions: ``(N, 3, d, h, w)`` float32, relative position in the body box along D, H, W before augmentation,
            of cells of ``position_stride`` voxels; [0, 1] inside the box, NaN if unknown.
        keys: the cases, row by row.
        strong: ``(N_unlabeled, M, D, H, W)`` float32, the strong view of the unlabelled rows, for a student.
        contrasts: random contrasts to apply to the strong view, see :meth:`recontrasted`.
        pseudo_targets: ``(N_unlabeled, 1, D, H, W)`` int16, pseudo-labels of these rows.
        swaps: ``(S, 2, M)`` int64, restyled scans of :class:`SwapStyles`: the row of a scan at its modality, and the
            row of its copy at the modality that it imitates, else -1; on the CPU.
        pseudo_weights: ``(N_unlabeled)`` float32, weights of these rows; all 1, if None.
    """

    data: Tensor
    target: Tensor
    fusion: Tensor
    pairs: Tensor
    positions: Tensor
    keys: list | None = None
    strong: Tensor | None = None
    contrasts: Contrasts | None = None
    pseudo_targets: Tensor | None = None
    swaps: Tensor | None = None
    pseudo_weights: Tensor | None = None

    @property
    def n_labeled(self) -> int:
        """Number of labelled rows."""
        return len(self.target)

    @property
    def predicted(self) -> Tensor:
        """Which modalities have a prediction in each row, ``(N, M)`` bool: those in their own set of ``fusion``."""
        return self.fusion.diagonal(dim1=1, dim2=2)

    @property
    def scans(self) -> Tensor:
        """Which modalities each row shows, without restyled copies: ``(N, M)`` bool."""
        scans = self.fusion.any(1)
        if self.swaps is not None:
            scans[self.swaps[:, 1].amax(1)] = False
        return scans

    @property
    def position_stride(self) -> tuple[int, ...]:
        """Number of voxels of ``data`` per cell of ``positions``, along D, H and W."""
        shapes = self.data.shape[2:], self.positions.shape[2:]
        return tuple(side // cells for side, cells in zip(*shapes, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes that are not None; nnU-Net's augmenters take dictionaries, whose tensors they pin."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def recontrasted(self) -> "Batch":
        """Apply the random contrasts, if any, to the strong views."""
        if self.strong is None or self.contrasts is None:
            return self
        return replace(self, strong=self.contrasts.show(self.strong), contrasts=None)

    def to(self, device: torch.device) -> "Batch":
        """Move the batch to ``device``, except row numbers."""
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor) and name not in NUMBERS}
        moved: dict[str, Any] = {name: x.to(device, non_blocking=True) for name, x in tensors.items()}
        return replace(self, **moved)
