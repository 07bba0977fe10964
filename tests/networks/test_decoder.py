"""What a decoder costs beside its encoder."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from nnunet_cmc.networks import build_encoder
from nnunet_cmc.networks.decoder import Decoder
from nnunet_cmc.planners.cmc_planner import CMCPlanner


def test_a_decoder_is_cheaper_than_its_encoder(monkeypatch):
    """Floating-point operations of a forward pass of the planned size, on tensors without data."""
    planner = CMCPlanner
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    with FakeTensorMode(), torch.no_grad():
        encoder = build_encoder(planner.encoder, **planner.encoder_kwargs)
        decoder = Decoder(encoder, list(planner.decoder_channels), 5)
        with FlopCounterMode(display=False) as of_encoder:
            maps = encoder(torch.empty(1, 1, *[planner.patch_size] * 3))
        with FlopCounterMode(display=False) as of_decoder:
            decoder(maps)
    assert of_decoder.get_total_flops() < 0.5 * of_encoder.get_total_flops()
