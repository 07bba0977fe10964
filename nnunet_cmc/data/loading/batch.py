"""One training batch: rows of labelled and of unlabelled scans, and which rows belong together."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nnunet_cmc.data.loading.gin import Contrasts

NUMBERS = ("pairs", "swaps")  # of rows, which are read on the CPU: the host would wait for the GPU


@dataclass(frozen=True)
class Batch:
    """What a training step sees. A *row* is one network sample ``(M, D, H, W)``; the labelled rows come first.

    Attributes:
        data: ``(N, M, D, H, W)`` float32; a modality that a row lacks is exactly zero.
        target: ``(N_labeled, 1, D, H, W)`` int16, or one label map for each modality: ``(N_labeled, M, D, H, W)``.
        fusion: ``(N, M, M)`` bool, for :class:`CMCNet`.
        pairs: ``(P, M)`` int64, the row that shows modality m of pair p, or -1; on the CPU.
        positions: ``(N, 3, d, h, w)`` float32, relative position in the body box along D, H, W from before
            augmentation, of cells of ``position_stride`` voxels; inside is [0, 1], and NaN is unknown.
        keys: the cases, row by row.
        strong: ``(N_unlabeled, M, D, H, W)`` float32, the view of the unlabelled rows that a teacher's student sees.
        contrasts: in which these are to be shown, see :meth:`recontrasted`.
        pseudo_targets: ``(N_unlabeled, 1, D, H, W)`` int16, what the student learns there.
        swaps: ``(S, 2, M)`` int64, what :class:`SwapStyles` has restyled: the row of a scan at its modality, and the
            row of its copy at the modality that this looks like, else -1; on the CPU.
        pseudo_weights: ``(N_unlabeled)`` float32, how much each of these rows counts; 1, if there are none.
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
    def present(self) -> Tensor:
        """Which modalities each row shows, ``(N, M)`` bool."""
        return self.fusion.diagonal(dim1=1, dim2=2)

    @property
    def scans(self) -> Tensor:
        """Which modalities each row shows as they were scanned, not as restyled copies: ``(N, M)`` bool."""
        scans = self.present.clone()
        if self.swaps is not None:
            scans[self.swaps[:, 1].amax(1)] = False
        return scans

    @property
    def position_stride(self) -> tuple[int, ...]:
        """Number of voxels of ``data`` to a cell of ``positions``, along D, H and W."""
        shapes = self.data.shape[2:], self.positions.shape[2:]
        return tuple(side // cells for side, cells in zip(*shapes, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """Return the parts that are there: nnU-Net's augmenters hand on dictionaries, whose tensors they pin."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def recontrasted(self) -> "Batch":
        """Show the strong views in their contrasts, if there are any to be shown in."""
        if self.strong is None or self.contrasts is None:
            return self
        return replace(self, strong=self.contrasts.show(self.strong), contrasts=None)

    def to(self, device: torch.device) -> "Batch":
        """Move the batch to ``device``, but for numbers of rows."""
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor) and name not in NUMBERS}
        moved: dict[str, Any] = {name: x.to(device, non_blocking=True) for name, x in tensors.items()}
        return replace(self, **moved)
