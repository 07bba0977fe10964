import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.rows import put, rows_of, take

WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Waits(TorchDispatchMode):
    """Names of the operators whose result the host must know."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if WAITS & set(func.tags):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_rows_of_every_modality_that_some_sample_has():
    assert rows_of([[True, False, True], [False, False, True]]) == {0: [0], 2: [0, 1]}


@pytest.mark.parametrize("rows", [[0, 1, 2], [2], [2, 0], [1, 1, 2, 0]])
def test_taking_is_indexing_forward_and_backward(rows):
    x = torch.randn(3, 2, 4, requires_grad=True)
    assert take(x, rows).equal(x[rows])
    weight = torch.randn(len(rows), 2, 4)
    ours, plain = (torch.autograd.grad((part * weight).sum(), x)[0] for part in (take(x, rows), x[rows]))
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2], [2, 0]])
def test_putting_back_is_copying_into_zeros_forward_and_backward(rows):
    part, weight = torch.randn(len(rows), 2, 4, requires_grad=True), torch.randn(3, 2, 4)
    plain = torch.zeros(3, 2, 4).index_copy(0, torch.tensor(rows), part)
    assert put(part, rows, 3).equal(plain)
    ours, expected = (torch.autograd.grad((whole * weight).sum(), part)[0] for whole in (put(part, rows, 3), plain))
    assert ours.equal(expected)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("fusing", [True, False])
def test_the_network_never_waits_within_its_layers(fusing, separate):
    """Which modalities there are is read once, as a list; nothing after it depends on a result.

    Before it, a prediction reads whether a shared decoder's modalities have weights.
    """
    network = CMCNet(2, 2, [8] * 3, "unet", {"features_per_stage": [4, 8], "blocks_per_stage": [1, 1]})
    if separate:
        network.separate()
    x = torch.randn(3, 2, 8, 8, 8)
    x[0, 1] = x[1] = 0
    with Waits() as waits:
        network(x, torch.ones(3, 2, 2, dtype=torch.bool) if fusing else None)
    assert waits.names == ([] if fusing or separate else ["aten._local_scalar_dense.default"])
