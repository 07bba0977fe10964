"""The networks, in PyTorch with nnU-Net's building blocks."""

from nnunet_cmc.networks.cmcnet import CMCNet, CMCOutput, presence
from nnunet_cmc.networks.encoders import ENCODERS, ViTPyramid, build_encoder
from nnunet_cmc.networks.mia import MIA, MeanFusion
from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder
from nnunet_cmc.networks.skip_fusion import SkipFusion
from nnunet_cmc.networks.unet import UNetDecoder, UNetEncoder
from nnunet_cmc.networks.universal_unet import UniversalUNetDecoder, UniversalUNetEncoder

__all__ = [
    "ENCODERS",
    "MIA",
    "CMCNet",
    "CMCOutput",
    "MeanFusion",
    "SamMed3DEncoder",
    "SkipFusion",
    "UNetDecoder",
    "UNetEncoder",
    "UniversalUNetDecoder",
    "UniversalUNetEncoder",
    "ViTPyramid",
    "build_encoder",
    "presence",
]
