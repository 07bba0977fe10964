"""nnU-Net's U-Net of the plans, as an encoder of one modality and a decoder."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.residual_encoders import ResidualEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder as StockDecoder
from dynamic_network_architectures.initialization.weight_init import InitWeights_He, init_last_bn_before_add_to_0
from torch import Tensor, nn

from nnunet_cmc.networks.blocks import InstanceNorm

# nnU-Net's class of the network -> its encoder, and the stages before the first change of resolution
ARCHITECTURES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "PlainConvUNet": (PlainConvEncoder, ("stages.0",)),
    "ResidualEncoderUNet": (ResidualEncoder, ("stem", "stages.0")),
}


class UNetEncoder(nn.Module):
    """The encoder: ``x (B, 1, D, H, W)`` -> maps, shallow to deep, at ``strides`` along D, H, W.

    Args:
        features_per_stage, kernel_sizes, strides: as nnU-Net plans them; by default kernels of 3 and halving.
        blocks_per_stage: convolutions, or residual blocks, of each stage.
        blocks_per_stage_decoder: of the decoder that belongs to it.
        architecture: key of :data:`ARCHITECTURES`, which gives the encoder's modules.

    Raises:
        ValueError: the architecture is unknown.
    """

    def __init__(
        self,
        features_per_stage: Sequence[int],
        blocks_per_stage: Sequence[int],
        blocks_per_stage_decoder: Sequence[int] | None = None,
        kernel_sizes: Sequence[Sequence[int]] | None = None,
        strides: Sequence[Sequence[int]] | None = None,
        architecture: str = "PlainConvUNet",
    ):
        if architecture not in ARCHITECTURES:
            raise ValueError(
                f"The plans ask for the architecture '{architecture}', which is none of {sorted(ARCHITECTURES)}; "
                "plan again."
            )
        super().__init__()
        n_stages = len(features_per_stage)
        kernel_sizes = kernel_sizes or [[3, 3, 3]] * n_stages
        strides = strides or [[1, 1, 1]] + [[2, 2, 2]] * (n_stages - 1)
        kind, first = ARCHITECTURES[architecture]
        self.net: Any = kind(
            1, n_stages, features_per_stage, nn.Conv3d, kernel_sizes, strides, blocks_per_stage,
            conv_bias=True,
            norm_op=InstanceNorm, norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
            return_skips=True,
        )  # fmt: skip
        self.apply(InitWeights_He(1e-2))
        self.apply(init_last_bn_before_add_to_0)
        self.own = tuple(f"net.{stage}" for stage in first)
        self.channels = list(features_per_stage)
        self.strides = list(
            accumulate(map(tuple, strides), lambda a, b: tuple(i * j for i, j in zip(a, b, strict=True)))
        )
        self.blocks_per_stage_decoder = list(blocks_per_stage_decoder or [1] * (n_stages - 1))

    def stem(self, x: Tensor) -> Tensor:
        """Compute the first map."""
        for name in self.own:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor, from_stem: bool = False) -> list[Tensor]:
        maps = [x if from_stem else self.stem(x)]
        for stage in self.net.stages[1:]:
            maps.append(stage(maps[-1]))
        return maps


class UNetDecoder(nn.Module):
    """The decoder, which with deep supervision also predicts at coarser resolutions in training mode."""

    def __init__(self, encoder: UNetEncoder, widths: None, num_classes: int):
        super().__init__()
        self.unet = StockDecoder(encoder.net, num_classes, encoder.blocks_per_stage_decoder, deep_supervision=False)
        del self.unet.encoder  # it would be a part of the decoder
        self.apply(InitWeights_He(1e-2))
        self.supervised_deep = False

    def supervise_deep(self) -> None:
        """Predict at coarser resolutions, too, in training mode."""
        self.supervised_deep = True

    def add_head(self, head: nn.Module) -> None:
        """Let ``head`` map the outputs at the finest resolution, ``(B, K, D, H, W)``, to the logits."""
        self.unet.seg_layers[-1] = nn.Sequential(self.unet.seg_layers[-1], head)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Decode maps, shallow to deep, into logits ``(B, K, D, H, W)``, finest first."""
        self.unet.deep_supervision = self.supervised_deep and self.training
        logits = self.unet(maps)
        return logits if self.unet.deep_supervision else [logits]
