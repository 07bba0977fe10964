"""The convolution block of all parts outside the encoders, and its norm."""

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.InstanceNorm3d):
    """``nn.InstanceNorm3d`` with an affine map, equal to the bit, for use before an in-place activation.

    torch's result is a view, and the backward pass of an in-place operation on a view copies the batch four times.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (B, C, D, H, W)``."""
        return instance_norm(x, self.weight.repeat(len(x)), self.bias.repeat(len(x)), self.eps)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalise each channel of each row of ``x (B, C, D, H, W)``, with scales and shifts ``(B * C,)``."""
    if not x.is_contiguous():  # channels last, which the reshaping below would copy, there and back
        weights, biases = (tensor.view(len(x), -1).unbind() for tensor in (weight, bias))
        rows = zip(x.split(1), weights, biases, strict=True)
        return torch.cat([F.batch_norm(row, None, None, w, b, training=True, eps=eps) for row, w, b in rows])
    flat = x.reshape(1, -1, *x.shape[2:])
    flat = F.batch_norm(flat, None, None, weight, bias, training=True, eps=eps)  # as torch does
    return torch.ops.aten._unsafe_view(flat, x.shape)  # no view to autograd: nothing else refers to its memory


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Build a 3^3 convolution, instance norm and leaky ReLU, as nnU-Net does."""
    return StackedConvBlocks(
        1, nn.Conv3d, in_channels, out_channels, 3, stride,
        conv_bias=True,
        norm_op=InstanceNorm, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
