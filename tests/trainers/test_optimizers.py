import pytest
import torch

from nnunet_cmc.trainers.optimizers import WARM_UP, WarmUpPolyLR


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
    assert found[WARM_UP:] == pytest.approx(decay[WARM_UP:])
    assert found[0] == pytest.approx(0.5 / WARM_UP)
    assert found[WARM_UP // 2 - 1] == pytest.approx(decay[WARM_UP // 2 - 1] / 2)
    assert max(found) < 0.5


def test_a_resumed_run_continues_where_it_was():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.5)
    WarmUpPolyLR(optimizer, 0.5, 4, 100).step(1.5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rates()[150])
