"""A shared decoder with norms of each modality."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import OwnDecoderNorms, PredictAlone, SeparateModalities, SuperviseDeep
from nnunet_cmc.networks.pretrained import load_pretrained

ENCODERS = {
    "unet": ("unet", {"features_per_stage": [4, 8], "blocks_per_stage": [1, 1]}, None),
    "universal": ("universal", {"channels": [4, 4, 8, 8], "stem": 2}, [4, 4, 8]),
}


def network_of(name: str, *changes) -> CMCNet:
    torch.manual_seed(0)
    encoder, kwargs, widths = ENCODERS[name]
    network = CMCNet(3, 2, [16, 16, 16], encoder, kwargs, widths)
    for change in changes:
        change(network)
    return network


@pytest.mark.parametrize("name", ENCODERS)
def test_norms_are_own_and_all_else_is_the_same(name):
    decoders = network_of(name, SuperviseDeep(), OwnDecoderNorms(), PredictAlone()).decoders
    assert len(decoders) == 3
    own = {
        f"{prefix}.{key}"
        for prefix, module in decoders[0].named_modules(remove_duplicate=False)
        if isinstance(module, nn.InstanceNorm3d)
        for key, _ in module.named_parameters()
    }
    assert own
    parameters = [dict(decoder.named_parameters(remove_duplicate=False)) for decoder in decoders]
    for key, parameter in parameters[0].items():
        assert [each[key] is parameter for each in parameters[1:]] == [key not in own] * 2, key


def test_each_modality_is_normalised_by_its_own_and_trains_them_alone():
    network = network_of("unet", SuperviseDeep(), OwnDecoderNorms(), PredictAlone())
    plain = network_of("unet", SuperviseDeep(), PredictAlone())
    x = torch.randn(2, 3, 16, 16, 16)
    x[0, 2] = 0
    alone = torch.eye(3, dtype=torch.bool).expand(2, -1, -1)
    torch.testing.assert_close(network(x, alone).logits, plain(x, alone).logits)

    def norms(decoder: nn.Module) -> list[nn.Parameter]:
        return [p for module in decoder.modules() if isinstance(module, nn.InstanceNorm3d) for p in module.parameters()]

    before = network(x, alone).logits
    for parameter in norms(network.decoders[1]):
        nn.init.normal_(parameter)
    after = network(x, alone).logits
    changed = (before - after).flatten(2).abs().amax(2) > 1e-3
    assert changed.tolist() == [[False, True, False]] * 2

    network(x, alone).logits[:, 1].square().mean().backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in norms(network.decoders[0]))
    assert any(parameter.grad.any() for parameter in norms(network.decoders[1]))
    shared = [p for key, p in network.decoders[0].named_parameters() if "seg_layers" in key]
    assert any(p.grad is not None and p.grad.any() for p in shared), "what is shared learns from any of them"


@pytest.mark.parametrize("shown", [[0], [1, 2], [0, 1, 2]])
def test_saved_weights_predict_the_same_from_any_subset(shown):
    changes = SuperviseDeep(), OwnDecoderNorms(), PredictAlone()
    network, other = (network_of("unet", *changes).eval() for _ in range(2))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    other.load_state_dict(deepcopy(network.state_dict()))
    x = torch.zeros(2, 3, 16, 16, 16)
    x[:, shown] = torch.randn(2, len(shown), 16, 16, 16)
    with torch.no_grad():
        found = network(x)
        assert found.isfinite().all()
        assert found.equal(other(x))
        if len(shown) > 1:
            x[:, shown[1:]] = 0
            assert not network(x).allclose(found)


def test_separate_decoders_are_refused():
    with pytest.raises(ValueError, match="of a shared decoder, and this network has one of each modality already"):
        network_of("unet", SeparateModalities(), OwnDecoderNorms())


def test_weights_of_the_same_arrangement_are_loaded_and_others_refused():
    changes = OwnDecoderNorms(), PredictAlone()
    names = ("CT", "MR", "T2")
    theirs, mine = network_of("unet", *changes), network_of("unet", *changes)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    init_args = {"dataset_json": {"channel_names": dict(zip("012", names, strict=True))}}
    load_pretrained(mine, {"network_weights": theirs.state_dict(), "init_args": init_args}, "net.pth", names)
    expected, found = theirs.state_dict(), mine.state_dict()
    assert all(found[key].equal(expected[key]) for key in found if "seg_layers" not in key and key != "pretrained")

    plain = {"network_weights": network_of("unet").state_dict(), "init_args": init_args}
    sentence = (
        "has one encoder and one decoder of all .* and the network to fill one encoder of all .* decoder of each:"
    )
    with pytest.raises(ValueError, match=sentence):
        load_pretrained(mine, plain, "net.pth", names)
