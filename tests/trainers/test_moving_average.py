import pytest
import torch

from nnunet_cmc.trainers.moving_average import MovingAverage, momentum_of

MOMENTUM = 0.99


def test_the_random_weights_are_forgotten_and_then_the_average_moves():
    """Network t is worth 1 / 100 of the average after 99 updates, and 0.99 times as much after each one more."""
    network = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(network, MOMENTUM)
    networks = torch.randn(151)
    for updates, value in enumerate(networks):
        network.weight.data.fill_(value)
        average.update_parameters(network)
        share = torch.full((updates + 1,), 1 / min(updates + 1, 100))
        share *= MOMENTUM ** (updates - torch.arange(updates + 1).clamp(min=99)).clamp(min=0)
        assert share.sum() == pytest.approx(1, abs=1e-4)
        torch.testing.assert_close(average.module.weight.sum(), share @ networks[: updates + 1], rtol=1e-4, atol=1e-5)
    assert share[0] < 0.01


def test_the_momentum_follows_the_length_of_the_training():
    assert [momentum_of(iterations) for iterations in (10, 400, 250_000)] == pytest.approx(
        [0.97, 0.97, 0.999], abs=2e-4
    )
    assert momentum_of(25_000) == pytest.approx(0.9966479936, rel=1e-6)
