from itertools import product

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from nnunet_cmc.networks import MIA, CMCNet, MeanFusion
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.tiny import CMCPlannerTiny
from nnunet_cmc.planners.universal import CMCPlannerUniversal


def build(modalities=2, channels=8, from_mean=False) -> MIA:
    torch.manual_seed(0)
    mia = MIA(modalities, channels, from_mean)
    torch.nn.init.normal_(mia.bias)
    return mia.eval()


def test_all_present_is_the_published_formula():
    """One convolution over the concatenation, one attention map per modality, the attended sum (Zhang et al. 2021)."""
    mia, features = build(), torch.randn(2, 2, 8, 4, 5, 6)
    weight = torch.cat([p.weight for p in mia.projections], dim=1)
    common = F.conv3d(features.flatten(1, 2), weight, mia.bias, padding=1)
    expected = 0
    for m in range(2):
        first, last = mia.attentions[m][0].convs[0], mia.attentions[m][1]
        hidden = F.conv3d(torch.cat([features[:, m], common], 1), first.conv.weight, first.conv.bias, padding=1)
        hidden = F.leaky_relu(F.instance_norm(hidden, weight=first.norm.weight, bias=first.norm.bias), 0.01)
        attention = torch.sigmoid(F.conv3d(hidden, last.weight, last.bias, padding=1))
        expected = expected + attention * features[:, m]
    torch.testing.assert_close(mia(features, torch.ones(2, 2, dtype=torch.bool)), expected, atol=1e-5, rtol=1e-4)


def test_what_an_absent_channel_holds_cannot_enter():
    mia, features = build(3), torch.randn(2, 3, 8, 4, 4, 4)
    present = torch.tensor([[True, False, True], [True, True, True]])
    before = mia(features, present)
    features[0, 1] = torch.nan
    assert mia(features, present).equal(before)


def test_equal_modalities_fuse_to_the_same_whatever_their_number():
    """The scale M / |subset|: a subset of identical, identically treated modalities is worth as much as all of them."""
    mia = build(2)
    mia.projections[1].load_state_dict(mia.projections[0].state_dict())
    mia.attentions[1].load_state_dict(mia.attentions[0].state_dict())
    features = torch.randn(2, 1, 8, 4, 4, 4).expand(-1, 2, -1, -1, -1, -1)
    both = mia(features, torch.tensor([[True, True]] * 2))
    torch.testing.assert_close(mia(features, torch.tensor([[True, False]] * 2)), both, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_it_starts_as_the_mean_of_the_present_and_learns(modalities):
    mia, features = build(modalities, from_mean=True), torch.randn(2**modalities - 1, modalities, 8, 3, 4, 2)
    present = torch.tensor(list(product([False, True], repeat=modalities))[1:])  # every subset
    fused = mia(features, present)
    torch.testing.assert_close(fused, MeanFusion()(features, present))
    fused.sin().sum().backward()
    assert all(attention[-1].weight.grad.any() for attention in mia.attentions)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("planner", [CMCPlanner, CMCPlannerUniversal, CMCPlannerTiny])
def test_fusion_has_a_small_share_of_parameters_and_cost(planner, separate, monkeypatch):
    """Cost in floating-point operations of a forward pass, on tensors without data."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, raising=False)
    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as elsewhere:
        net = CMCNet(2, 5, [planner.patch_size] * 3, planner.encoder, planner.encoder_kwargs, planner.decoder_channels)
        scans = {m: torch.empty(1, 1, *[planner.patch_size] * 3) for m in (0, 1)}
        if separate:
            net.separate()
            maps = {m: net.encoders[m](scan) for m, scan in scans.items()}
        else:
            maps = net.encoders[0](scans)
        for m, decoder in enumerate(net.decoders):
            decoder(maps[m])
    mia, whole = (sum(p.numel() for p in module.parameters()) for module in (net.mia, net))
    assert mia < (0.15 if separate else 0.25) * whole
    # MIA's convolutions visit every voxel of the deepest map
    cost = 2 * mia * maps[0][-1][0, 0].numel()
    assert cost < 0.05 * elsewhere.get_total_flops()
