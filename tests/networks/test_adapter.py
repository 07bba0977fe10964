import pytest
import torch

from nnunet_cmc.networks.adapter import Adapter, freeze_all_but_adapters
from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder


def tiny_encoder(adapters):
    torch.manual_seed(0)
    return SamMed3DEncoder(16, 4, 24, 3, 2, out_channels=8, window_size=6, global_blocks=(1,), adapters=adapters)


def test_an_adapter_starts_at_zero_and_sees_two_voxels_each_way():
    torch.manual_seed(0)
    adapter, x = Adapter(16), torch.randn(1, 9, 9, 9, 16)
    assert adapter(x).abs().max() == 0
    torch.nn.init.normal_(adapter.up.weight)
    changed = x.clone()
    changed[0, 4, 4, 4] += 1
    reach = (adapter(changed) - adapter(x)).abs().amax((0, 4)).nonzero()
    assert reach.amin(0).tolist() == [2, 2, 2]
    assert reach.amax(0).tolist() == [6, 6, 6]


def test_frozen_training_moves_adapters_and_norms_only():
    encoder = tiny_encoder(adapters=True)
    freeze_all_but_adapters(encoder)
    before = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
    trained = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, 1e-2)
    for _ in range(2):  # at the first step an adapter's zero layer keeps gradients from the layers before it
        optimizer.zero_grad()
        encoder(torch.randn(1, 1, 16, 16, 16))[-1].sin().sum().backward()
        optimizer.step()
    moved = {name for name, parameter in encoder.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if any(part in name for part in (".adapter.", "norm", "neck.1", "neck.3"))}
    assert sum(p.numel() for p in trained) < 0.25 * sum(p.numel() for p in encoder.parameters())


def test_an_encoder_without_adapters_cannot_be_frozen_to_them():
    with pytest.raises(ValueError, match="build it with adapters=True"):
        freeze_all_but_adapters(tiny_encoder(adapters=False))
