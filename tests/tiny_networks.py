"""Networks and scans small enough for tests, with every encoder."""

import pytest
import torch

from nnunet_cmc.networks import CMCNet

UNET = {"features_per_stage": [4, 8, 8], "blocks_per_stage": [1, 1, 1]}
ENCODERS = {
    "sam_med3d": {
        "encoder": "sam_med3d",
        "encoder_kwargs": {
            "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "global_blocks": [0, 1],
            "window_size": 14, "out_channels": 8, "axis_order": "zyx", "adapters": True, "skip_channels": [4, 8],
        },
        "decoder_channels": [4, 4, 8],
    },
    "plain": {"encoder": "unet", "encoder_kwargs": UNET},
    "residual": {"encoder": "unet", "encoder_kwargs": UNET | {"architecture": "ResidualEncoderUNet"}},
    "universal": {
        "encoder": "universal",
        "encoder_kwargs": {"channels": [4, 4, 8, 8], "stem": 2},
        "decoder_channels": [4, 4, 8],
    },
}  # fmt: skip
of_every_encoder = pytest.mark.parametrize("encoder", ENCODERS)


def build(encoder="plain", modalities=2, classes=3, separate=False) -> CMCNet:
    """A network of which no weight is 0, as some are at their start."""
    torch.manual_seed(0)
    net = CMCNet(modalities, classes, [16, 16, 16], **ENCODERS[encoder])
    if separate:
        net.separate()
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def scan(batch=2, modalities=2) -> torch.Tensor:
    return torch.randn(batch, modalities, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def everything(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[0], x.shape[1], x.shape[1], dtype=torch.bool)


def alone(x: torch.Tensor) -> torch.Tensor:
    return torch.eye(x.shape[1], dtype=torch.bool).expand(x.shape[0], -1, -1)
