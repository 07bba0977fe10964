from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from operators import Operators

from nnunet_cmc.networks import UNetEncoder
from nnunet_cmc.trainers.optimizers import (
    AdamW,
    ByLength,
    ConstantAdam,
    StockSGD,
    WarmUpPolyLR,
    order_moments_as_weights,
)


def rates(epochs=4, iterations=100, initial=0.5):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], initial)
    schedule = WarmUpPolyLR(optimizer, initial, epochs, iterations)
    result = []
    for i in range(epochs * iterations):
        schedule.step(i / iterations)
        result.append(optimizer.param_groups[0]["lr"])
    return result


def test_rises_linearly_and_falls_polynomially():
    found = rates()
    decay = [0.5 * (1 - i / 400) ** 0.9 for i in range(400)]
    assert found[50:] == pytest.approx(decay[50:])
    assert found[0] == pytest.approx(0.5 / 50)
    assert found[24] == pytest.approx(decay[24] / 2)
    assert max(found) < 0.5


@pytest.mark.parametrize(
    ("encoder", "iterations", "optimizer"), [("unet", 24, "AdamW"), ("unet", 250, "SGD"), ("vit", 250, "AdamW")]
)
def test_long_trainings_of_nnunets_network_have_its_own_optimizer(encoder, iterations, optimizer):
    network = UNetEncoder([2, 2], [1, 1]) if encoder == "unet" else torch.nn.Linear(2, 2)
    found, schedule = ByLength().build(network, 0.5, 1000, iterations)
    rate, *_ = (group["lr"] for group in found.param_groups)
    assert type(found).__name__ == optimizer
    sentence = ByLength().start(found, schedule, pretrained=False)
    assert optimizer in sentence
    if optimizer == "AdamW":
        assert rate < 0.5, "it rises"
        return
    assert "nnU-Net's own optimizer: SGD at 0.01" in sentence
    stock = SimpleNamespace(network=network, initial_lr=1e-2, weight_decay=3e-5, num_epochs=1000)
    expected, poly = nnUNetTrainer.configure_optimizers(stock)
    for moment in (0, 0.5, 500.99):  # nnU-Net steps its schedule once an epoch
        schedule.step(moment)
        poly.step(int(moment))
        ours, theirs = ({**o.param_groups[0], "params": None, "fused": None} for o in (found, expected))
        assert ours == theirs


@pytest.mark.parametrize("optimizer", [AdamW(), ConstantAdam(), StockSGD()], ids=lambda one: type(one).__name__)
def test_all_weights_are_updated_by_one_operator_with_the_same_numbers(optimizer):
    torch.manual_seed(0)
    weights, gradients = torch.randn(2, 5), torch.randn(3, 2, 5)
    found = []
    for fused in (True, False):
        network = torch.nn.Module()
        network.weights = torch.nn.ParameterList([*weights.clone()])
        made, _ = optimizer.build(network, 0.1, 10, 10)
        (group,) = made.param_groups
        assert group["fused"]
        group["fused"] = fused
        for gradient in gradients:
            for parameter, its_gradient in zip(network.weights, gradient, strict=True):
                parameter.grad = its_gradient.clone()
            with Operators() as operators:
                made.step()
            if fused:
                assert sum("fused" in name for name in operators.names) == 1
        found.append(torch.stack([*network.weights]).detach())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("optimizer", [AdamW(), StockSGD()], ids=lambda one: type(one).__name__)
def test_moments_of_another_order_in_memory_are_loaded_as_they_are_used(optimizer):
    """As of a checkpoint that was trained on another device."""
    kernel, gradients = torch.randn(4, 3, 3, 3, 3), torch.randn(2, 4, 3, 3, 3, 3)
    found, state = [], {}
    for order in (torch.contiguous_format, torch.channels_last_3d):
        network = torch.nn.Module()
        network.kernel = torch.nn.Parameter(kernel.contiguous(memory_format=order))
        made, _ = optimizer.build(network, 0.1, 10, 10)
        if state:
            made.load_state_dict(state)
            order_moments_as_weights(made)
        for gradient in gradients[1:] if state else gradients:
            network.kernel.grad = gradient.contiguous(memory_format=order)
            made.step()
            if not state:  # after the first step
                state, kernel = deepcopy(made.state_dict()), network.kernel.detach().clone()
        found.append(network.kernel.detach())
    torch.testing.assert_close(*found)


def test_a_resumed_run_continues_where_it_was():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
    WarmUpPolyLR(optimizer, 0.5, 4, 100).step(1.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rates()[150])
