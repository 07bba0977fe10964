"""The convolution block of all parts outside the encoders."""

from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from torch import nn


def conv_block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Build a 3^3 convolution, instance norm and leaky ReLU, as nnU-Net does."""
    return StackedConvBlocks(
        1, nn.Conv3d, in_channels, out_channels, 3, stride,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
