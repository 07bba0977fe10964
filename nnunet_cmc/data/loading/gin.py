"""GIN, global intensity non-linear augmentation: the same anatomy in a random contrast.

Ouyang et al., "Causality-inspired single-source domain generalization for medical image segmentation", TMI 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv3d, leaky_relu_, pad

from nnunet_cmc.data.loading.background import is_background

CHANNELS = (1, 2, 2, 2, 1)  # before, between and after the four convolutions
TINY = torch.finfo(torch.float32).tiny


class RandomNetworks(NamedTuple):
    """A network for each of n scans.

    Attributes:
        weights: of each convolution, ``(n, out, in, k, k, k)`` float32 with k 1 or 3.
        shifts: of each convolution, ``(n, out)`` float32.
        blends: share of a network's output in the result, ``(n,)`` float32.
    """

    weights: Sequence[Tensor]
    shifts: Sequence[Tensor]
    blends: Tensor


@dataclass(frozen=True)
class Contrasts:
    """Scans of a batch that get a random contrast, and the seed of these contrasts.

    A worker draws these few numbers; the trainer computes the contrasts on its device.

    Attributes:
        seed: of :func:`draw_networks`.
        rows, channels: of each scan.
        clip: see :func:`randomize_contrast`.
    """

    seed: int
    rows: list[int]
    channels: list[int]
    clip: list[tuple[float, float] | None]

    def show(self, x: Tensor) -> Tensor:
        """Return ``x (N, M, D, H, W)`` float32 with these scans in random contrasts; background stays."""
        if not self.rows:
            return x
        networks = draw_networks(len(self.rows), torch.Generator().manual_seed(self.seed))
        where = self.rows, self.channels
        scans = x[where]
        background = is_background(scans)
        contrasted = randomize_contrast(scans.masked_fill(background, 0), networks, self.clip)
        shown = x.clone()
        shown[where] = torch.where(background, scans, contrasted)
        return shown


def draw_networks(n: int, generator: torch.Generator | None = None) -> RandomNetworks:
    """Draw weights and shifts from N(0, 1), blends from U(0, 1), and for each convolution a kernel of 1 or 3, equally.

    As published, the scans of a batch have kernels of one size.
    """
    weights, shifts = [], []
    for before, after in pairwise(CHANNELS):
        side = 3 if torch.rand((), generator=generator) < 0.5 else 1
        weights.append(torch.randn(n, after, before, side, side, side, generator=generator))
        shifts.append(torch.randn(n, after, generator=generator))
    return RandomNetworks(weights, shifts, torch.rand(n, generator=generator))


@torch.no_grad()
def randomize_contrast(x: Tensor, networks: RandomNetworks, clip: Sequence[tuple[float, float] | None] = ()) -> Tensor:
    """Give each scan of ``x (n, D, H, W)`` float32 its own random contrast.

    ``a g(x) + (1 - a) x`` with its network g and blend a, scaled to the Frobenius norm of x. What is exactly 0 stays
    so.

    Args:
        x: on any device.
        networks: for each of the scans.
        clip: for each scan the lowest and highest value of the result, or None; nothing is clipped if empty. A clipped
            result has at most the norm of x.
    """
    there = x != 0
    mixed = torch.lerp(x, convolve(x, networks), _column(networks.blends, x)).mul_(there)
    norm, found = (torch.linalg.vector_norm(y, dim=(1, 2, 3), keepdim=True) for y in (x, mixed))
    mixed *= norm / found.clamp(min=TINY)
    if any(clip):
        lowest, highest = torch.tensor([limits or (-torch.inf, torch.inf) for limits in clip]).T
        mixed.clamp_(_column(lowest, x), _column(highest, x)).mul_(there)
    return mixed


def convolve(x: Tensor, networks: RandomNetworks) -> Tensor:
    """Apply convolutions with leaky ReLU (slope 0.01) between them to ``x (n, D, H, W)``, zero beyond its border.

    Blocks of 2^3 voxels are computed as channels: oneDNN takes three times as long for 1 or 2 channels as for 8 or 16.
    A kernel of 3 then spans 2 blocks along each axis. All zeros are put around ``x`` at once, and none between layers.
    """
    n, *sides = x.shape
    margin = sum(weight.shape[-1] // 2 for weight in networks.weights)
    around = [zeros for side in reversed(sides) for zeros in (margin, margin + side % 2)]
    padded = pad(x, around)
    d, h, w = (side // 2 for side in padded.shape[1:])
    blocks = padded.view(n, d, 2, h, 2, w, 2).permute(0, 2, 4, 6, 1, 3, 5).reshape(1, 8 * n, d, h, w)
    for i, (weight, shift) in enumerate(zip(networks.weights, networks.shifts, strict=True)):
        if i:
            leaky_relu_(blocks)
        after, before, side = weight.shape[1:4]
        if side == 1:
            of_voxels = blocks.reshape(n, before, -1)
            mixed = torch.baddbmm(shift.to(x.device)[..., None], weight.view(n, after, before).to(x.device), of_voxels)
            blocks = mixed.view(1, 8 * n * after, *blocks.shape[2:])
        else:
            of_blocks = _of_blocks(weight.flatten(0, 1)).to(x.device)
            blocks = conv3d(blocks, of_blocks, shift.flatten().repeat_interleave(8).to(x.device), groups=n)
    d, h, w = blocks.shape[2:]
    result = blocks.reshape(n, 2, 2, 2, d, h, w).permute(0, 4, 1, 5, 2, 6, 3).reshape(n, 2 * d, 2 * h, 2 * w)
    return result[:, : sides[0], : sides[1], : sides[2]]


def _of_blocks(weight: Tensor) -> Tensor:
    """Write ``weight (out, in, 3, 3, 3)`` of voxels as one of blocks, ``(8 out, 8 in, 2, 2, 2)``."""
    o, block, voxel, tap = torch.meshgrid(*map(torch.arange, (2, 2, 2, 3)), indexing="ij")
    reads = (o + tap == 2 * block + voxel).float()  # whether the o-th voxel of a block reads this one with this tap
    expanded = torch.einsum("ailt,bjmu,cknv,xytuv->xabcylmnijk", reads, reads, reads, weight)
    return expanded.reshape(8 * weight.shape[0], 8 * weight.shape[1], 2, 2, 2)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device)[:, None, None, None]
