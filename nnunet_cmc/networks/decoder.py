"""Decoders, which map feature maps of all resolutions, the deepest of them fused, to logits."""

from typing import cast

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.blocks import InstanceNorm, conv_block
from nnunet_cmc.networks.encoders import Encoder
from nnunet_cmc.networks.monai_vnet import ACTIVATION, VNetEncoder, monai_blocks
from nnunet_cmc.networks.unet import UNetDecoder
from nnunet_cmc.networks.universal_unet import UniversalUNetDecoder


class Predicting(nn.Module):
    """Base of the decoders: the layers that map ``widths`` channels at stride 1, 2, 4, ... to logits."""

    seg_layers: nn.Module  # nnU-Net's name for layers that depend on the classes: `-pretrained_weights` skips them

    def __init__(self, widths: list[int], num_classes: int):
        super().__init__()
        self.widths, self.num_classes = widths, num_classes
        self.deep = nn.ModuleDict({"seg_layers": nn.ModuleList()})  # the same name, for the same reason

    def supervise_deep(self) -> None:
        """Add layers that predict from the coarser maps, too, in training mode."""
        layers = (nn.Conv3d(width, self.num_classes, 1) for width in self.widths[1:])
        self.deep["seg_layers"] = nn.ModuleList(layers)

    def add_head(self, head: nn.Module) -> None:
        """Let ``head`` map the outputs at the finest resolution, ``(B, K, D, H, W)``, to the logits."""
        self.seg_layers = nn.Sequential(self.seg_layers, head)

    def predict(self, maps: list[Tensor]) -> list[Tensor]:
        """Compute logits ``(B, K, D, H, W)`` of the finest map or, with deep supervision, of all, finest first."""
        deep = zip(cast(nn.ModuleList, self.deep["seg_layers"]), maps[1:], strict=False) if self.training else ()
        return [self.seg_layers(maps[0]), *(layer(x) for layer, x in deep)]


class Decoder(Predicting):
    """U-Net decoder of any encoder whose strides are powers of two.

    At a stride where the encoder has no map (a ViT has none at full resolution) a level is the transposed convolution
    with norm and activation only: a 3^3 convolution there would cost as much as all other levels together.

    Args:
        encoder: whose maps it decodes.
        widths: ``widths[i]`` channels at stride ``2**i``, one for each stride above the deepest map.
        num_classes: K.
    """

    def __init__(self, encoder: Encoder, widths: list[int], num_classes: int):
        *finer, deepest = (stride[0] for stride in encoder.strides)
        if 2 ** len(widths) != deepest:
            raise ValueError(
                f"decoder_channels has {len(widths)} widths; an encoder of stride {deepest} needs "
                f"one for every power of two below it."
            )
        super().__init__(widths, num_classes)
        skips = dict(zip(finer, encoder.channels[:-1], strict=True))
        self.has_skip = [2**i in skips for i in range(len(widths))]
        inputs = [*widths[1:], encoder.channels[-1]]
        self.ups = nn.ModuleList(nn.ConvTranspose3d(i, o, 2, 2) for i, o in zip(inputs, widths, strict=True))
        self.blocks = nn.ModuleList(
            conv_block(w + skips[2**i], w) if 2**i in skips else _norm_and_activation(w) for i, w in enumerate(widths)
        )
        self.seg_layers = nn.Conv3d(widths[0], num_classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Decode maps, shallow to deep, into logits as :meth:`predict`."""
        *skips, x = maps
        decoded: list[Tensor] = []
        for i in reversed(range(len(self.ups))):
            x = self.ups[i](x)
            if self.has_skip[i]:
                x = torch.cat([x, skips.pop()], 1)
            x = self.blocks[i](x)
            decoded.insert(0, x)
        return self.predict(decoded)


class UniversalDecoder(Predicting):
    """The Universal Model's own decoder. The arguments are those of :class:`Decoder`; its widths are the encoder's."""

    def __init__(self, encoder: Encoder, widths: list[int], num_classes: int):
        skips = encoder.channels[:-1]
        if list(widths) != skips:
            raise ValueError(f"decoder_channels are {list(widths)}; the Universal Model's decoder has {skips}.")
        super().__init__(widths, num_classes)
        self.unet = UniversalUNetDecoder(encoder.channels)
        self.seg_layers = nn.Conv3d(widths[0], num_classes, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Decode as :meth:`Decoder.forward`."""
        return self.predict(self.unet(maps)[::-1])


class VNetDecoder(Predicting):
    """V-Net's own decoder. The arguments are those of :class:`Decoder`; its widths are twice the encoder's."""

    def __init__(self, encoder: VNetEncoder, widths: list[int], num_classes: int):
        own = [2 * channels for channels in encoder.channels[:-1]]
        if list(widths) != own:
            raise ValueError(f"decoder_channels are {list(widths)}; V-Net's decoder has {own}.")
        super().__init__(own, num_classes)
        blocks, dropout = monai_blocks(), encoder.dropout
        c32, c64, c128, c256 = own
        self.up_tr256 = blocks.UpTransition(3, c256, c256, 2, ACTIVATION, dropout_prob=(dropout, dropout))
        self.up_tr128 = blocks.UpTransition(3, c256, c128, 2, ACTIVATION, dropout_prob=(dropout, dropout))
        self.up_tr64 = blocks.UpTransition(3, c128, c64, 1, ACTIVATION, dropout_prob=(None, dropout))
        self.up_tr32 = blocks.UpTransition(3, c64, c32, 1, ACTIVATION, dropout_prob=(None, dropout))
        self.seg_layers = blocks.OutputTransition(3, c32, num_classes, ACTIVATION)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Decode as :meth:`Decoder.forward`."""
        *skips, x = maps
        decoded: list[Tensor] = []
        for stage in (self.up_tr256, self.up_tr128, self.up_tr64, self.up_tr32):
            x = stage(x, skips.pop())
            decoded.insert(0, x)
        return self.predict(decoded)


# Decoders of encoders that have their own; every other encoder gets a Decoder.
DECODERS: dict[str, type[nn.Module]] = {"universal": UniversalDecoder, "unet": UNetDecoder, "vnet": VNetDecoder}


def _norm_and_activation(channels: int) -> nn.Module:
    return nn.Sequential(InstanceNorm(channels, affine=True), nn.LeakyReLU(inplace=True))
