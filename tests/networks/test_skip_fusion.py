import torch
from torch.nn.functional import conv3d

from nnunet_cmc.networks import CMCNet, SkipFusion
from nnunet_cmc.networks.changes import FuseSkips


def build(modalities=2) -> CMCNet:
    torch.manual_seed(0)
    arguments = {"features_per_stage": [4, 8, 8], "blocks_per_stage": [1, 1, 1]}
    network = CMCNet(modalities, 3, [16, 16, 16], "unet", arguments)
    network.separate()
    return network.eval()


def taught(network: CMCNet) -> CMCNet:
    """With a skip fusion that has learned something."""
    FuseSkips()(network)
    for parameter in network.skip_fusion.parameters():
        torch.nn.init.normal_(parameter)
    return network


def test_at_the_start_nothing_changes():
    network, x = build(), torch.randn(2, 2, 16, 16, 16)
    before = network(x)
    FuseSkips()(network)
    assert network(x).equal(before)


def test_a_skip_gets_the_projected_skips_of_those_it_is_fused_with():
    fusion = SkipFusion(3, [2, 4])
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    own = [torch.randn(2, 2, 4, 4, 4), torch.randn(2, 4, 2, 2, 2)]
    first, third = ([torch.randn(n, *level.shape[1:]) for level in own] for n in (1, 2))
    found = fusion(own, {0: first, 2: third}, {0: [1], 2: [0, 1]})
    for level in range(2):
        weights = [fusion.projections[m][level].weight for m in range(3)]
        expected = own[level] + conv3d(third[level], weights[2])
        expected[1] += conv3d(first[level], weights[0])[0]
        torch.testing.assert_close(found[level], expected)


def test_only_the_modalities_of_a_set_are_fused():
    network, x = taught(build(3)), torch.randn(2, 3, 16, 16, 16)
    groups = torch.tensor([[[1, 1, 0], [1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1], [0, 1, 1]]], dtype=torch.bool)
    before = network(x, groups).logits
    other = x.clone()
    other[0, 2], other[1, 0] = torch.randn(2, 16, 16, 16)
    changed = (network(other, groups).logits - before).abs().amax((2, 3, 4, 5)) > 0
    assert changed.tolist() == [[False, False, True], [True, False, False]]
    other = x.clone()
    other[0, 1] += torch.randn(16, 16, 16)
    changed = (network(other, groups).logits - before).abs().amax((2, 3, 4, 5)) > 0
    assert changed.tolist() == [[True, True, False], [False, False, False]]


def test_an_absent_modality_adds_nothing():
    network, x = taught(build()), torch.randn(1, 2, 16, 16, 16)
    x[:, 1] = 0
    plain = build()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("skip_fusion")})
    torch.testing.assert_close(network(x), plain(x))
