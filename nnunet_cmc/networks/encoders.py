"""The encoders that plans may name; each computes a pyramid of feature maps of one modality.

An encoder maps ``x (B, 1, D, H, W)`` to a list of maps, shallow to deep; ``channels[i]`` and ``strides[i]`` describe
the i-th along D, H, W. ``own`` names the parts of its first stage, of which a shared encoder has one per modality:
``stem(x)`` computes them, and ``forward(stem(x), from_stem=True)`` is ``forward(x)``.
"""

from typing import cast

from torch import Tensor, nn

from nnunet_cmc.networks.blocks import conv_block
from nnunet_cmc.networks.monai_vnet import VNetEncoder
from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder
from nnunet_cmc.networks.unet import UNetEncoder
from nnunet_cmc.networks.universal_unet import UniversalUNetEncoder


class ViTPyramid(nn.Module):
    """SAM-Med3D's ViT with a convolutional path from the input for the finer resolutions, as in UNETR.

    The path has one stage per power of two between the input and the ViT's patch size.

    Args:
        skip_channels: width of the path at stride 2, 4, ...
        vit: arguments of :class:`SamMed3DEncoder`.
    """

    own = ("vit.patch_embed", "path.0")

    def __init__(self, skip_channels: list[int], **vit):
        super().__init__()
        self.vit = SamMed3DEncoder(**vit)
        strides = [2 ** (i + 1) for i in range(len(skip_channels))] + [vit["patch_size"]]
        if strides[-1] != 2 ** len(strides):
            raise ValueError(
                f"A ViT of patch size {vit['patch_size']} needs one skip per power of two below it; "
                f"skip_channels names {len(skip_channels)}."
            )
        self.path = nn.ModuleList(
            nn.Sequential(conv_block(before, after, stride=2), conv_block(after, after))
            for before, after in zip([1, *skip_channels], skip_channels, strict=False)
        )
        self.channels = [*skip_channels, vit["out_channels"]]
        self.strides = [(stride,) * 3 for stride in strides]

    def stem(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the ViT's tokens and the first map of the path."""
        return self.vit.stem(x), self.path[0](x)

    def forward(self, x: Tensor | tuple[Tensor, Tensor], from_stem: bool = False) -> list[Tensor]:
        tokens, shallow = x if from_stem else self.stem(cast(Tensor, x))
        maps = [shallow]
        for stage in self.path[1:]:
            maps.append(stage(maps[-1]))
        return [*maps, self.vit(tokens, from_stem=True)[-1]]


Encoder = ViTPyramid | UNetEncoder | UniversalUNetEncoder | VNetEncoder
ENCODERS: dict[str, type[Encoder]] = {
    "sam_med3d": ViTPyramid,
    "unet": UNetEncoder,
    "universal": UniversalUNetEncoder,
    "vnet": VNetEncoder,
}


def build_encoder(name: str, **kwargs) -> Encoder:
    """Build the encoder with this name in plans. ValueError if there is none."""
    if name not in ENCODERS:
        raise ValueError(f"The plans ask for encoder '{name}', which is none of {sorted(ENCODERS)}; plan again.")
    return ENCODERS[name](**kwargs)
