"""GIN, global intensity non-linear augmentation: the same anatomy in a random contrast.

Ouyang et al., "Causality-inspired single-source domain generalization for medical image segmentation", TMI 2022.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from torch import Tensor
from torch.nn.functional import conv3d, leaky_relu_, pad

CHANNELS = (1, 2, 2, 2, 1)  # before, between and after the four convolutions
TINY = torch.finfo(torch.float32).tiny


class RandomNetwork(NamedTuple):
    """What is drawn for one channel.

    Attributes:
        weights: of each convolution, ``(out, in, k, k, k)`` float32 with k 1 or 3.
        shifts: of each convolution, ``(out,)`` float32.
        blend: share of the network's output in the result.
    """

    weights: Sequence[Tensor]
    shifts: Sequence[Tensor]
    blend: float


def draw_network() -> RandomNetwork:
    """Draw weights and shifts from N(0, 1), kernels of 1 or 3 alike, the blend from U(0, 1): torch's generator."""
    weights, shifts = [], []
    for before, after in pairwise(CHANNELS):
        side = 3 if torch.rand(()) < 0.5 else 1
        weights.append(torch.randn(after, before, side, side, side))
        shifts.append(torch.randn(after))
    return RandomNetwork(weights, shifts, float(torch.rand(())))


def convolve(x: Tensor, weights: Sequence[Tensor], shifts: Sequence[Tensor]) -> Tensor:
    """Apply convolutions with leaky ReLU (slope 0.01) between them to ``x (D, H, W)``, which is zero beyond its border.

    Blocks of 2^3 voxels are computed as channels: oneDNN takes three times as long for 1 or 2 channels as for 8 or 16.
    A kernel of 3 then spans 2 blocks along each axis. All zeros are put around ``x`` at once, and none between layers.
    """
    margin = sum(weight.shape[-1] // 2 for weight in weights)
    around = [n for side in reversed(x.shape) for n in (margin, margin + side % 2)]
    padded = pad(x, around)
    d, h, w = (side // 2 for side in padded.shape)
    x_blocks = padded.view(d, 2, h, 2, w, 2).permute(1, 3, 5, 0, 2, 4).reshape(1, 8, d, h, w)
    for i, (weight, shift) in enumerate(zip(weights, shifts, strict=True)):
        if i:
            leaky_relu_(x_blocks)
        after, before, side = weight.shape[:3]
        if side == 1:
            by_voxel = (weight.view(after, before) @ x_blocks.reshape(before, -1)).add_(shift[:, None])
            x_blocks = by_voxel.view(1, 8 * after, *x_blocks.shape[2:])
        else:
            x_blocks = _convolve_blocks(x_blocks, _of_blocks(weight), shift.repeat_interleave(8))
    d, h, w = x_blocks.shape[2:]
    result = x_blocks.reshape(2, 2, 2, d, h, w).permute(3, 0, 4, 1, 5, 2).reshape(2 * d, 2 * h, 2 * w)
    return result[: x.shape[0], : x.shape[1], : x.shape[2]]


def _of_blocks(weight: Tensor) -> Tensor:
    """Write ``weight (out, in, 3, 3, 3)`` of voxels as one of blocks, ``(8 out, 8 in, 2, 2, 2)``."""
    o, block, voxel, tap = torch.meshgrid(*map(torch.arange, (2, 2, 2, 3)), indexing="ij")
    reads = (o + tap == 2 * block + voxel).float()  # whether the o-th voxel of a block reads this one with this tap
    expanded = torch.einsum("ailt,bjmu,cknv,xytuv->xabcylmnijk", reads, reads, reads, weight)
    return expanded.reshape(8 * weight.shape[0], 8 * weight.shape[1], 2, 2, 2)


def _convolve_blocks(x: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():
        # what conv3d takes for a single small sample, torch's own convolution, is three times slower
        ones = (1, 1, 1)
        return torch.mkldnn_convolution(x, weight, shift, (0, 0, 0), ones, ones, 1)
    return conv3d(x, weight, shift)


class GINTransform(ImageOnlyTransform):
    """Show each channel of ``image (M, D, H, W)`` float32 in a random contrast of its own.

    ``a g(x) + (1 - a) x`` with a random network g and a ~ U(0, 1), scaled to the Frobenius norm of x. What is exactly 0
    stays so, be it background or an absent channel.

    Args:
        clip: for each channel the lowest and highest value of the result, or None; nothing is clipped if empty. What is
            clipped has at most the norm of x.
    """

    def __init__(self, clip: Sequence[tuple[float, float] | None] = ()):
        super().__init__()
        self.clip = clip

    def get_parameters(self, **data_dict) -> dict[str, Any]:
        """Draw a network for each channel. ValueError: ``clip`` is of another number of channels."""
        channels = len(data_dict["image"])
        if self.clip and len(self.clip) != channels:
            raise ValueError(
                f"GINTransform has {len(self.clip)} ranges to clip to, and the image {channels} channels: give one "
                "range, or None, for each."
            )
        return {"networks": [draw_network() for _ in range(channels)]}

    @torch.no_grad()
    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        clip = self.clip or [None] * len(img)
        result = torch.zeros_like(img)
        for out, x, network, limits in zip(result, img, params["networks"], clip, strict=True):
            if x.any():
                out.copy_(_randomized(x, network, limits))
        return result


def _randomized(x: Tensor, network: RandomNetwork, limits: tuple[float, float] | None) -> Tensor:
    there = x != 0
    mixed = torch.lerp(x, convolve(x, network.weights, network.shifts), network.blend).mul_(there)
    mixed *= torch.linalg.vector_norm(x) / torch.linalg.vector_norm(mixed).clamp(min=TINY)
    return mixed if limits is None else mixed.clamp_(*limits).mul_(there)
