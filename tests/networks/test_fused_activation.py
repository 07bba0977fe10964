"""Class activation of fused features against finite differences."""

import pytest
import torch

from nnunet_cmc.networks import CMCNet, MeanFusion
from nnunet_cmc.networks.fused_activation import fused_activation


@pytest.fixture(params=["MIA", "weighted MIA", "mean", "separate", "separate mean"])
def network(request):
    torch.manual_seed(0)
    network = CMCNet(2, 3, [8, 8, 8], "unet", {"features_per_stage": [2, 4], "blocks_per_stage": [1, 1]})
    if "separate" in request.param:
        network.separate()
    if "mean" in request.param:
        network.mia = MeanFusion()
    if "weighted" in request.param:
        network.fusion_weights.reliability.copy_(torch.tensor([1.0, -1.0]))
        network.fusion_weights.together.zero_()
    return network.double().eval().requires_grad_(False)


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(1, 2, 8, 8, 8, dtype=torch.float64)


def test_is_the_feature_times_the_change_of_the_score(network, x):
    activation, logits = fused_activation(network, x, [1, 2])
    torch.testing.assert_close(logits, network(x)[0])
    predicted = logits.argmax(0)
    wanted = predicted > 0
    assert 0 < wanted.sum() < wanted.numel()

    features, change = [], torch.zeros(1)

    def moved(module, inputs, output):
        features.append(output)
        return output + change

    def score():
        own = network.predictions(x).logits[0]  # (M, K, D, H, W)
        return sum(
            float(one[k][predicted == k].sum() - one.mean(0)[predicted == k].sum())
            for one in own[: 1 if network.shared else 2]
            for k in (1, 2)
        )

    network.mia.register_forward_hook(moved)
    score()
    fused, step = features[0], 1e-5
    expected = torch.zeros(4, 4, 4, dtype=torch.float64)
    for index in torch.cartesian_prod(*(torch.arange(side) for side in fused.shape[1:])).tolist():
        scores = []
        for sign in (1, -1):
            change = torch.zeros_like(fused)
            change[(0, *index)] = sign * step
            scores.append(score())
        expected[tuple(index[1:])] += fused[(0, *index)] * (scores[0] - scores[1]) / (2 * step)
    expected = torch.nn.functional.interpolate(expected.relu()[None, None], (8, 8, 8), mode="trilinear")[0, 0]
    assert expected.max() > 0
    torch.testing.assert_close(activation, expected, atol=1e-6, rtol=1e-5)


def test_what_is_not_predicted_or_not_there_has_none(network, x):
    for decoder in network.decoders:
        decoder.unet.seg_layers[-1].bias[2] -= 100
    assert not fused_activation(network, x, [2])[0].any()
    assert fused_activation(network, x, [1])[0].any()
    activation, logits = fused_activation(network, torch.zeros_like(x), [1, 2])
    assert not activation.any()
    assert not logits.argmax(0).any()


def test_an_absent_modality_and_a_later_prediction_are_as_before(network, x):
    x[:, 0] = 0
    before = network(x)
    _, logits = fused_activation(network, x, [1, 2])
    torch.testing.assert_close(logits, before[0])
    torch.testing.assert_close(network(x), before)
    assert not network.mia._forward_hooks
