"""The networks that the benchmarks run: those of our planners, and nnU-Net's own, for a cube."""

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet
from nnunet_cmc.planners.tiny import CMCPlannerTiny
from nnunet_cmc.planners.universal import CMCPlannerUniversal

Planner = type[CMCPlanner] | type[CMCPlannerNNUNet]
PLANNERS: dict[str, Planner] = {
    cls.__name__: cls for cls in (CMCPlanner, CMCPlannerUniversal, CMCPlannerNNUNet, CMCPlannerTiny)
}
NNUNET_SIDE = 96  # voxels, where nobody asks for another: nnU-Net's own patch depends on the data

CONVOLUTIONS = {
    "conv_bias": True, "norm_op": nn.InstanceNorm3d, "norm_op_kwargs": {"affine": True},
    "nonlin": nn.LeakyReLU, "nonlin_kwargs": {"inplace": True},
}  # fmt: skip


def side_of(planner: Planner) -> int:
    """Return the side of the planner's patch in voxels."""
    return planner.patch_size if issubclass(planner, CMCPlanner) else NNUNET_SIDE


def widths_of_nnunet(side: int) -> list[int]:
    """Compute the channels of nnU-Net's stages for a cube: 32 to 320, halved while 4 voxels are left; for 96, five."""
    return [min(32 * 2**stage, 320) for stage in range(side.bit_length() - 2)]


def encoder_of(planner: Planner, side: int) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of the planner's encoder for a cube."""
    if issubclass(planner, CMCPlanner):
        return planner.encoder, planner.encoder_kwargs
    widths = widths_of_nnunet(side)
    convolutions = [2] * len(widths)
    return "unet", {
        "features_per_stage": widths,
        "blocks_per_stage": convolutions,
        "blocks_per_stage_decoder": convolutions[1:],
    }


def network_of(planner: Planner, modalities: int, classes: int, side: int) -> CMCNet:
    """Build the planner's network for a cube, with random weights."""
    decoder = list(planner.decoder_channels) if issubclass(planner, CMCPlanner) else None
    return CMCNet(modalities, classes, [side] * 3, *encoder_of(planner, side), decoder)


def stock_of(plan: dict[str, Any], channels: int, classes: int) -> nn.Module:
    """Build nnU-Net's own network, under deep supervision, of the stages of a plan of :class:`CMCPlannerNNUNet`."""
    widths = plan["features_per_stage"]
    return PlainConvUNet(
        channels, len(widths), widths, nn.Conv3d, plan["kernel_sizes"], plan["strides"], plan["blocks_per_stage"],
        classes, plan["blocks_per_stage_decoder"], **CONVOLUTIONS, deep_supervision=True,
    )  # fmt: skip


def stock_network(side: int, classes: int, channels: int = 2, deep_supervision: bool = False) -> nn.Module:
    """Build nnU-Net's own for a cube."""
    widths = widths_of_nnunet(side)
    stages = len(widths)
    return PlainConvUNet(
        channels, stages, widths, nn.Conv3d, 3, [1] + [2] * (stages - 1), 2, classes, 2,
        **CONVOLUTIONS, deep_supervision=deep_supervision,
    )  # fmt: skip
