import pytest
import torch

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import (
    PredictAlone,
    SeparateModalities,
    ShowOnly,
    SuperviseDeep,
    WithPeer,
    build_changed,
)
from nnunet_cmc.networks.peer import of_peer


def build(*changes, seed: int = 0, stages: int = 3) -> CMCNet:
    torch.manual_seed(seed)
    unet = {"features_per_stage": [4, 8, 8, 8][:stages], "blocks_per_stage": [1] * stages}
    return build_changed(lambda: CMCNet(2, 3, [16, 16, 16], "unet", unet), changes)


def scan() -> torch.Tensor:
    return torch.randn(2, 2, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def everything(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(x), 2, 2, dtype=torch.bool)


def alone(x: torch.Tensor) -> torch.Tensor:
    return torch.eye(2, dtype=torch.bool).expand(len(x), -1, -1)


def test_it_has_other_random_weights_which_the_seed_tells():
    net, again, other = (build(WithPeer(), seed=seed) for seed in (0, 0, 1))
    torch.testing.assert_close(net.state_dict(), again.state_dict(), rtol=0, atol=0)
    peer, plain = net.auxiliary["peer"].network.state_dict(), build().state_dict()
    assert peer.keys() == plain.keys()
    kernels = [name for name, value in plain.items() if value.ndim == 5 and value.any()]
    assert kernels
    assert not any(peer[name].equal(plain[name]) for name in kernels)
    assert not any(peer[name].equal(other.auxiliary["peer"].network.state_dict()[name]) for name in kernels)
    assert all(net.state_dict()[name].equal(value) for name, value in plain.items()), "the first is as without a peer"


@pytest.mark.parametrize("changes", [(), (SuperviseDeep(),), (SeparateModalities(), PredictAlone()), (ShowOnly(1),)])
def test_it_is_changed_alike_and_predicts_the_same_rows_in_training(changes):
    net, x = build(*changes, WithPeer(), stages=4), scan()
    x[1, 0] = 0
    for fusion in (everything(x), alone(x)):
        output = net(x, fusion)
        expected = net.auxiliary["peer"].network(x, fusion)
        found = of_peer(output)
        assert len(found.deep) == len(output.deep) == (2 if changes == (SuperviseDeep(),) else 0)
        torch.testing.assert_close([found.logits, *found.deep], [expected.logits, *expected.deep], rtol=0, atol=0)
        torch.testing.assert_close(found.present, expected.present)
        assert not found.logits[output.present].equal(output.logits[output.present])


def test_batches_without_any_modality_have_peers_of_the_same_shape():
    net = build(WithPeer(), SuperviseDeep())
    output = net(torch.zeros(2, 2, 16, 16, 16), everything(scan()))
    assert of_peer(output).logits.shape == output.logits.shape == (2, 2, 3, 16, 16, 16)
    assert [part.shape for part in of_peer(output).deep] == [part.shape for part in output.deep]


def test_it_computes_nothing_in_predictions_and_validation():
    net, x = build(WithPeer()).eval(), scan()
    calls = []
    net.auxiliary["peer"].network.register_forward_pre_hook(lambda *_: calls.append(1))
    plain = build().eval()
    with torch.no_grad():
        assert net(x).equal(plain(x))
        assert net(x, alone(x)).logits.equal(plain(x, alone(x)).logits)
    assert not calls
    net.train()(x, alone(x))
    assert calls
