"""The U-Net of the CLIP-Driven Universal Model (Liu et al., ICCV 2023): its encoder, its decoder, and its file.

The released network normalises with batch statistics, even in evaluation. For a batch of one that is instance norm,
which is used here: the same numbers, and samples of a larger batch do not affect each other. Parameters are named as in
the file (hence ``bn1``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_cmc.networks.blocks import InstanceNorm

WHAT = "U-Net of the Universal Model"
REMEDY = "use clip_driven_universal_unet.pth as released"
PREFIX = "module.backbone."
FIRST = "down_tr64.ops.0.conv1.weight"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # stored in the file, but never used by its network


class UNetState(NamedTuple):
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]


class Conv(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv1 = nn.Conv3d(before, after, 3, padding=1)
        self.bn1 = InstanceNorm(after, eps=1e-5, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)), inplace=True)


class Down(nn.Module):
    def __init__(self, before: int, between: int, after: int):
        super().__init__()
        self.ops = nn.Sequential(Conv(before, between), Conv(between, after))

    def forward(self, x: Tensor) -> Tensor:
        return self.ops(x)


class Up(nn.Module):
    def __init__(self, before: int, after: int):
        super().__init__()
        self.up_conv = nn.ConvTranspose3d(before, before, 2, 2)
        self.ops = nn.Sequential(Conv(before + after, after), Conv(after, after))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.ops(torch.cat([self.up_conv(x), skip], 1))


class UniversalUNetEncoder(nn.Module):
    """The encoder: ``x (B, 1, D, H, W)`` -> four maps, shallow to deep, at strides 1, 2, 4, 8, each before its pooling.

    ``channels`` are their widths, ``stem`` that of the very first convolution. Sides must be multiples of 8. The
    released weights expect CT of 1.5 mm in [0, 1], where 0 is -175 HU or less and 1 is 250 HU or more.
    """

    own = ("down_tr64",)

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512), stem: int = 32):
        super().__init__()
        self.channels, self.strides = list(channels), [(stride,) * 3 for stride in (1, 2, 4, 8)]
        c64, c128, c256, c512 = channels
        self.down_tr64 = Down(1, stem, c64)
        self.down_tr128 = Down(c64, c64, c128)
        self.down_tr256 = Down(c128, c128, c256)
        self.down_tr512 = Down(c256, c256, c512)

    def stem(self, x: Tensor) -> Tensor:
        """Compute the first map."""
        if x.ndim != 5 or x.shape[1] != 1 or any(side % 8 for side in x.shape[2:]):
            raise ValueError(
                f"The Universal Model's encoder takes (B, 1, D, H, W) with sides that are multiples of 8, "
                f"not {tuple(x.shape)}."
            )
        return self.down_tr64(x)

    def forward(self, x: Tensor, from_stem: bool = False) -> list[Tensor]:
        maps = [x if from_stem else self.stem(x)]
        for stage in (self.down_tr128, self.down_tr256, self.down_tr512):
            maps.append(stage(F.max_pool3d(maps[-1], 2)))
        return maps


class UniversalUNetDecoder(nn.Module):
    """The decoder: the encoder's four maps -> the three stages' maps, deep to shallow, at strides 4, 2, 1.

    ``channels`` are the encoder's; the stage at each stride is as wide as the encoder's.
    """

    def __init__(self, channels: Sequence[int] = (64, 128, 256, 512)):
        super().__init__()
        c64, c128, c256, c512 = channels
        self.up_tr256 = Up(c512, c256)
        self.up_tr128 = Up(c256, c128)
        self.up_tr64 = Up(c128, c64)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        *skips, x = maps
        outputs = []
        for stage in (self.up_tr256, self.up_tr128, self.up_tr64):
            x = stage(x, skips.pop())
            outputs.append(x)
        return outputs


def unet_state(checkpoint: Mapping[str, Any], path: str | Path, axis_order: str = "xyz") -> UNetState:
    """Return the learned tensors of a Universal Model file, by their own names; ``path`` is for the error message.

    ``axis_order="zyx"`` turns every kernel. Raises ValueError if there are none.
    """
    if axis_order not in ("xyz", "zyx"):
        raise ValueError(f"axis_order is {axis_order!r}; it must be 'zyx' (nnU-Net's arrays) or 'xyz'.")
    if not is_universal(checkpoint):
        raise ValueError(f"{path} holds no {WHAT} (no tensor {PREFIX}{FIRST} in 'net'); {REMEDY}.")
    learned = {
        key.removeprefix(PREFIX): tensor.transpose(2, 4) if axis_order == "zyx" and tensor.ndim == 5 else tensor
        for key, tensor in checkpoint["net"].items()
        if key.startswith(PREFIX) and not key.endswith(STATISTICS)
    }
    encoder = {key: tensor for key, tensor in learned.items() if key.startswith("down_tr")}
    decoder = {key: tensor for key, tensor in learned.items() if key.startswith("up_tr")}
    return UNetState(encoder, decoder)


def is_universal(checkpoint: Mapping[str, Any]) -> bool:
    """Tell whether a checkpoint is one of the Universal Model with the U-Net; there is one with a Swin UNETR too."""
    state = checkpoint.get("net")
    return isinstance(state, dict) and isinstance(state.get(PREFIX + FIRST), Tensor)


def encoder_sizes(state: Mapping[str, Tensor], path: str | Path) -> dict[str, Any]:
    """Infer the arguments of :class:`UniversalUNetEncoder` from its tensors ``state``. ValueError if none fit."""
    try:
        channels = [len(state[f"down_tr{stage}.ops.1.conv1.bias"]) for stage in (64, 128, 256, 512)]
    except KeyError as error:
        raise ValueError(f"{path} holds no {WHAT}: it has no tensor {error}; {REMEDY}.") from error
    return {"channels": channels, "stem": len(state[FIRST])}
