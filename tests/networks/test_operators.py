"""How many operators a network starts, forward and backward: on a GPU the host takes its time for each."""

import pytest
import torch
from operators import Operators

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import SuperviseDeep
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet, CMCPlannerNNUNetResEncL
from nnunet_cmc.planners.tiny import CMCPlannerTiny
from nnunet_cmc.planners.universal import CMCPlannerUniversal
from nnunet_cmc.planners.vnet import CMCPlannerVNet

SIDE = 48  # as many operators as of a larger patch: a ViT's tokens fill one window in part
NARROW = {  # nor do they depend on widths
    CMCPlanner: {"image_size": SIDE, "embed_dim": 24, "num_heads": 2, "out_channels": 8, "skip_channels": [2, 4, 8]},
    CMCPlannerTiny: {},
    CMCPlannerUniversal: {"channels": [2, 4, 8, 8], "stem": 2},
    CMCPlannerVNet: {"width": 2},
}
WIDTHS = {CMCPlannerUniversal: [2, 4, 8], CMCPlannerVNet: [4, 8, 16, 32]}  # of decoders; others take any
NNUNET = {  # whose planners leave topology and widths to nnU-Net
    CMCPlannerNNUNet: {"features_per_stage": [2] * 5, "blocks_per_stage": [2] * 5},
    CMCPlannerNNUNetResEncL: {
        "features_per_stage": [2] * 5, "blocks_per_stage": [1, 3, 4, 6, 6], "architecture": "ResidualEncoderUNet",
    },
}  # fmt: skip


def network_of(planner) -> CMCNet:
    if planner in NNUNET:
        network = CMCNet(2, 3, [SIDE] * 3, "unet", NNUNET[planner])
    else:
        widths = WIDTHS.get(planner, [4] * len(planner.decoder_channels))
        kwargs = planner.encoder_kwargs | NARROW.get(planner, {})
        network = CMCNet(2, 3, [SIDE] * 3, planner.encoder, kwargs, widths)
    SuperviseDeep()(network)
    return network


def started(network: CMCNet, rows: int) -> int:
    """Count those of registered rows, of which the first is fused, and every one predicted from each modality."""
    x = torch.randn(rows, 2, SIDE, SIDE, SIDE)
    fusion = torch.eye(2, dtype=torch.bool).repeat(rows, 1, 1)
    fusion[0, 0, 1] = True
    network.zero_grad()
    with Operators() as operators:
        output = network(x, fusion)
        sum(part.sum() for part in (output.logits, *output.deep, output.features)).backward()
    return len(operators.names)


@pytest.mark.parametrize(("planner", "most"), [
    (CMCPlannerNNUNet, 400), (CMCPlannerNNUNetResEncL, 700), (CMCPlanner, 1600), (CMCPlannerTiny, 600),
    (CMCPlannerUniversal, 400), (CMCPlannerVNet, 520),
])  # fmt: skip
def test_few_operators_are_started_whatever_the_batch(planner, most):
    network = network_of(planner)
    assert [n for rows in (2, 4) if (n := started(network, rows)) > most] == []
