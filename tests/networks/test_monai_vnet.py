"""V-Net as encoder and decoder of a CMCNet against MONAI's whole V-Net."""

import subprocess
import sys

import pytest
import torch
from monai.networks.nets import VNet

from nnunet_cmc.networks import CMCNet, monai_vnet
from nnunet_cmc.networks.changes import OwnDecoderNorms, PredictAlone, SeparateModalities, SuperviseDeep

SHOWN = torch.eye(2, dtype=torch.bool)


@pytest.fixture(scope="module")
def stock() -> list[VNet]:
    """MONAI's V-Nets of two modalities, in evaluation mode, after a batch that has moved their running statistics."""
    torch.manual_seed(0)
    networks = [VNet(out_channels=3) for _ in range(2)]
    with torch.no_grad():
        for network in networks:
            network(torch.randn(2, 1, 32, 32, 32) + 3)
    return [network.eval() for network in networks]


@pytest.fixture(scope="module")
def net(stock) -> CMCNet:
    """A network of each modality with the weights of ``stock``."""
    net = CMCNet(2, 3, [32, 32, 32], "vnet", {}, [32, 64, 128, 256])
    for change in (SeparateModalities(), PredictAlone(), SuperviseDeep()):
        change(net)
    state = {}
    for m, network in enumerate(stock):
        for key, tensor in network.state_dict().items():
            part, _, rest = key.partition(".")
            kind = "encoders" if part.startswith(("in_tr", "down")) else "decoders"
            state[f"{kind}.{m}.{'seg_layers' if part == 'out_tr' else part}.{rest}"] = tensor
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(".deep." in key or key in ("combination.reliability", "pretrained") for key in missing)
    return net.eval()


def scan(*shown: int) -> torch.Tensor:
    x = torch.randn(1, 2, 32, 32, 32, generator=torch.Generator().manual_seed(1)) + 1
    return torch.stack([x[:, m] * (m in shown) for m in (0, 1)], 1)


@torch.no_grad()
@pytest.mark.parametrize("m", [0, 1])
def test_one_modality_is_predicted_as_by_monais(net, stock, m):
    """A single tile, which is computed twice at once on a CPU, and as one of a batch; with others absent or not."""
    expected = stock[m](scan(m)[:, m : m + 1])
    torch.testing.assert_close(net(scan(m)), expected.log_softmax(1), atol=1e-4, rtol=1e-4)
    output = net(torch.cat([scan(0, 1), scan(m)]), SHOWN.expand(2, -1, -1))
    for row in (0, 1):
        torch.testing.assert_close(output.logits[row, m], expected[0], atol=1e-4, rtol=1e-4)
    assert not output.logits[1, 1 - m].any()
    assert output.deep == ()


@torch.no_grad()
def test_both_modalities_are_the_mean_of_what_each_says(net, stock):
    each = [network(scan(0, 1)[:, m : m + 1]).log_softmax(1) for m, network in enumerate(stock)]
    torch.testing.assert_close(net(scan(0, 1)), sum(each) / 2, atol=1e-4, rtol=1e-4)


def small(*changes) -> CMCNet:
    net = CMCNet(2, 3, [32, 32, 32], "vnet", {"width": 2}, [4, 8, 16, 32])
    for change in changes:
        change(net)
    return net


def test_a_modality_that_is_absent_leaves_the_batch_norm_of_the_other_as_it_is():
    torch.manual_seed(0)
    for net, own in (
        (small(SeparateModalities(), PredictAlone()), "encoders.{}.in_tr.conv_block.adn.N.running_mean"),
        (small(), "encoders.0.encoder.in_tr.copies.{}.conv_block.adn.N.running_mean"),
        (small(), "encoders.0.encoder.down_tr256.bn1.copies.{}.running_mean"),
    ):
        before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        net(torch.cat([scan(1), scan(1)]), SHOWN.expand(2, -1, -1))
        after = net.state_dict()
        assert torch.equal(after[own.format(0)], before[own.format(0)])
        assert not torch.equal(after[own.format(1)], before[own.format(1)])


def test_a_shared_decoder_with_norms_of_each_modality_has_batch_norms_of_each():
    torch.manual_seed(0)
    net = small(PredictAlone(), OwnDecoderNorms())
    net(torch.cat([scan(1), scan(1)]), SHOWN.expand(2, -1, -1))
    mine, others = (decoder.up_tr64.bn1.running_mean for decoder in net.decoders)
    assert not mine.any()
    assert others.any()
    assert net.decoders[0].up_tr64.up_conv.weight is net.decoders[1].up_tr64.up_conv.weight


def test_all_parameters_learn_and_prediction_leaves_nothing_out():
    torch.manual_seed(0)
    net = small(SeparateModalities(), PredictAlone(), SuperviseDeep())
    x = torch.cat([scan(0, 1), scan(0, 1)])
    output = net(x, SHOWN.expand(2, -1, -1))
    assert [tuple(part.shape[3:]) for part in output.deep] == [(16,) * 3, (8,) * 3, (4,) * 3]
    sum(part.square().mean() for part in (output.logits, *output.deep)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    with torch.no_grad():
        assert not torch.equal(net(x, SHOWN.expand(2, -1, -1)).logits, net(x, SHOWN.expand(2, -1, -1)).logits)
        net.eval()
        torch.testing.assert_close(net(x)[:1], net(x[:1]))
        assert torch.equal(net(x), net(x))


def test_widths_of_the_decoder():
    with pytest.raises(ValueError, match=r"decoder_channels are \[2, 4, 8, 16\]; V-Net's decoder has \[4, 8, 16, 32\]"):
        CMCNet(2, 3, [32, 32, 32], "vnet", {"width": 2}, [2, 4, 8, 16])


def test_without_monai_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ValueError, match=r'MONAI\'s, which is not installed: pip install "nnunet_cmc\[vnet\]"'):
        monai_vnet.VNetEncoder()


def test_neither_torchvision_nor_timm_is_imported():
    code = (
        "import sys; from nnunet_cmc.networks import build_encoder; assert 'monai' not in sys.modules\n"
        "build_encoder('vnet', width=2); assert 'monai' in sys.modules\n"
        "assert not {'torchvision', 'timm'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
