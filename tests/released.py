"""The networks of released checkpoints, alone and as they were released: what parity is tested with."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder, resize_positions
from nnunet_cmc.networks.sam_med3d_checkpoint import check_structure, encoder_sizes, image_encoder_state
from nnunet_cmc.networks.universal_unet import REMEDY, WHAT, UniversalUNetDecoder, UniversalUNetEncoder, unet_state
from nnunet_cmc.networks.universal_unet import encoder_sizes as universal_sizes
from nnunet_cmc.utils.checkpoints import load_checkpoint, require_structure

FIXTURES = Path(__file__).parent / "networks" / "fixtures"
SAM, UNIVERSAL = FIXTURES / "sam_tiny.pth", FIXTURES / "unet_tiny_base2.pth"


def sam_med3d(
    path: Path = SAM, image_size: int | None = None, axis_order: str = "xyz", adapters: bool = True
) -> SamMed3DEncoder:
    """The image encoder of a SAM-Med3D file, of its own image size or another one."""
    state = image_encoder_state(load_checkpoint(path), path)
    encoder = SamMed3DEncoder(**encoder_sizes(state, path), axis_order=axis_order, adapters=adapters)
    check_structure(encoder, state, path)
    encoder.load_state_dict(state, strict=False)
    if image_size is not None:
        grid = [image_size // encoder.patch_size] * 3
        encoder.pos_embed = nn.Parameter(resize_positions(encoder.pos_embed.detach(), grid))
    return encoder


class UniversalUNet(NamedTuple):
    encoder: UniversalUNetEncoder
    decoder: UniversalUNetDecoder


def universal(path: Path = UNIVERSAL, axis_order: str = "xyz") -> UniversalUNet:
    """Encoder and decoder of a Universal Model file."""
    state = unet_state(load_checkpoint(path), path, axis_order)
    sizes = universal_sizes(state.encoder, path)
    network = UniversalUNet(UniversalUNetEncoder(**sizes), UniversalUNetDecoder(sizes["channels"]))
    for part, tensors in zip(network, state, strict=True):
        require_structure(part.state_dict(), tensors, path, WHAT, REMEDY)
        part.load_state_dict(tensors)
    return network
