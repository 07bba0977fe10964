"""mmFormer: the fusion against plain formulas, what is absent, and the network that a recipe makes of the plans'."""

from itertools import product

import pytest
import torch
from tiny_networks import ENCODERS, alone, build, everything, of_every_encoder, scan
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import DecodeAlone, MMFormer, SuperviseDeep
from nnunet_cmc.networks.mmformer import ConcatenatedSkips, MMFormerFusion
from nnunet_cmc.networks.pretrained import load_pretrained

GRID = (2, 1, 3)
SUBSETS = torch.tensor(list(product([False, True], repeat=3))[1:])


def fusion() -> MMFormerFusion:
    torch.manual_seed(0)
    module = MMFormerFusion(3, 4, GRID, width=8, heads=2, mlp=16).double()
    for parameter in module.parameters():  # biases, norms and positions are constant at their start
        parameter.data += 0.3 * torch.randn_like(parameter)
    return module


def mmformer(encoder="plain", modalities=2, classes=3, seed=0, checkpointing=False) -> CMCNet:
    torch.manual_seed(seed)
    net = CMCNet(modalities, classes, [16, 16, 16], **ENCODERS[encoder], checkpointing=checkpointing)
    for change in (MMFormer(), SuperviseDeep(), DecodeAlone()):
        change(net)
    for parameter in net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def transformed(layer: torch.nn.TransformerEncoderLayer, x: torch.Tensor) -> torch.Tensor:
    """Compute x + attention(norm(x)), and of this x + MLP(norm(x)), of tokens ``(P, width)``, head by head."""
    attention = layer.self_attn
    q, k, v = F.linear(normed(layer.norm1, x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, 1)
    heads = []
    for part in torch.arange(x.shape[1]).chunk(attention.num_heads):
        scores = q[:, part] @ k[:, part].T / len(part) ** 0.5
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        heads.append(weights @ v[:, part])
    x = x + F.linear(torch.cat(heads, 1), attention.out_proj.weight, attention.out_proj.bias)
    hidden = F.linear(normed(layer.norm2, x), layer.linear1.weight, layer.linear1.bias)
    hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
    return x + F.linear(hidden, layer.linear2.weight, layer.linear2.bias)


def normed(norm: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


@pytest.mark.parametrize("training", [True, False])
def test_the_fusion_is_its_formula_of_the_present_alone(training):
    """Of every subset of three modalities in one batch; where a gradient is asked for and where torch is faster."""
    module, features = fusion().train(training), torch.randn(7, 3, 4, *GRID).double()
    with torch.set_grad_enabled(training):
        found = module(features, SUBSETS)
    for row, there in enumerate(SUBSETS.tolist()):
        tokens = []
        members = [m for m in range(3) if there[m]]
        for m in members:
            intra = module.intra[m]
            weight, bias = intra.embedding.weight[:, :, 0, 0, 0], intra.embedding.bias
            own = features[row, m].flatten(1).T @ weight.T + bias
            tokens.append(transformed(intra.transformer, own + intra.positions.reshape(6, 8)))
        positions = torch.cat([module.intra[m].positions.reshape(6, 8) for m in members])
        mixed = transformed(module.inter, torch.cat(tokens) + positions).chunk(len(members))
        expected = sum(
            module.concatenation.projections[m].weight[:, :, 0, 0, 0] @ of_m.T
            for m, of_m in zip(members, mixed, strict=True)
        )
        torch.testing.assert_close(found[row].flatten(1), expected)


@pytest.mark.parametrize("training", [True, False])
def test_what_an_absent_modality_holds_cannot_enter(training):
    module, features = fusion().train(training), torch.randn(7, 3, 4, *GRID).double()
    with torch.set_grad_enabled(training):
        before = module(features, SUBSETS)
        features[~SUBSETS] = torch.nan
        assert module(features, SUBSETS).equal(before)
        for row in range(7):  # nor what other rows are
            torch.testing.assert_close(module(features[row : row + 1], SUBSETS[row : row + 1])[0], before[row])


def test_the_order_of_rows_does_not_matter():
    module, features, order = fusion(), torch.randn(7, 3, 4, *GRID).double(), torch.randperm(7)
    torch.testing.assert_close(module(features[order], SUBSETS[order]), module(features, SUBSETS)[order])


def test_an_absent_modality_costs_nothing():
    net, x = mmformer().eval(), scan(2)
    x[:, 1] = 0
    ran = []
    parts = [net.encoders[1], net.mia.intra[1], net.mia.concatenation.projections[1]]
    for part in (*parts, *(level.projections[1] for level in net.skip_fusion)):
        part.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        before = net(x)
        for part in parts:
            for parameter in part.parameters():
                parameter.fill_(torch.nan)
        assert net(x).equal(before)
    assert not ran


@pytest.mark.parametrize(("deepest", "width"), [(128, 512), (320, 512), (8, 32)])
def test_the_paper_s_sizes_of_the_paper_s_channels_and_fewer_for_fewer(deepest, width):
    network = CMCNet(3, 2, [16, 32, 32], "unet", {"features_per_stage": [4, 6, deepest], "blocks_per_stage": [1, 1, 1]})
    MMFormer()(network)
    # weights and biases: attention's four matrices, the MLP of 8 times the width, and two norms
    transformer = 4 * width * (width + 1) + 8 * width * (width + 1) + width * (8 * width + 1) + 2 * 2 * width
    tokens = width * (deepest + 1) + (4 * 8 * 8) * width
    expected = 3 * (tokens + transformer) + transformer + 3 * width * deepest
    assert sum(parameter.numel() for parameter in network.mia.parameters()) == expected
    assert network.mia.inter.self_attn.num_heads == 8
    assert sum(parameter.numel() for parameter in network.skip_fusion.parameters()) == 3 * (4 * 4 + 6 * 6)
    assert len(network.encoders) == 3
    assert len(network.decoders) == 1


def test_skips_are_convolutions_of_the_concatenation_with_zeros_for_the_absent():
    torch.manual_seed(0)
    fuse = ConcatenatedSkips(3, [4, 5])
    skips = [torch.randn(7, 3, width, 4, 4, 4) for width in (4, 5)]
    rows = {m: SUBSETS[:, m].nonzero().flatten().tolist() for m in range(3)}
    found = fuse({m: [level[rows[m], m] for level in skips] for m in rows}, rows, 7)
    for level, skip, result in zip(fuse, skips, found, strict=True):
        weight = torch.cat([projection.weight for projection in level.projections], 1)
        masked = skip * SUBSETS[:, :, None, None, None, None]
        torch.testing.assert_close(result, F.conv3d(masked.flatten(1, 2), weight), atol=1e-5, rtol=1e-4)


def test_the_decoder_gets_the_fused_skips_of_each_set_of_modalities():
    net, x, seen = mmformer(modalities=3), scan(2, 3), []
    net.decoders[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = [net.encoders[m](x[:, m : m + 1]) for m in range(3)]
    pair = everything(x) & False
    pair[0, :2, :2] = pair[1, 2, 2] = True
    net(x, pair)
    for i, level in enumerate(net.skip_fusion):
        first = sum(level.projections[m](maps[m][i][:1]) for m in (0, 1))
        torch.testing.assert_close(seen[0][i], torch.cat([level.projections[2](maps[2][i][1:]), first]))


@of_every_encoder
def test_every_subset_is_predicted_and_every_parameter_trains(encoder):
    net, x = mmformer(encoder, 3), scan(8, 3)
    x[:7] *= SUBSETS[:, :, None, None, None]
    x[7] = 0
    with torch.no_grad():
        logits = net.eval()(x)
        assert logits.shape == (8, 3, 16, 16, 16)
        assert logits.isfinite().all()
        assert logits[7].argmax(0).eq(0).all(), "nothing present is background"
        assert net(x.repeat(1, 1, 2, 1, 1)).isfinite().all(), "positions are resized to tiles of another size"
    output = net.train()(x, everything(x))
    assert output.present.equal(torch.cat([SUBSETS, SUBSETS[:1] & False]))
    parts = (output.logits, *output.deep, *output.auxiliary["alone"])
    sum(part.square().mean() for part in parts).backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    coarse = "auxiliary.alone.decoder.unet.seg_layers.0."  # nnU-Net's decoder has them, and does not use them
    # a bias before a norm moves nothing
    assert all(name.endswith("bias") or name.startswith(coarse) for name in idle), idle
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@of_every_encoder
def test_the_auxiliary_decoder_sees_each_modality_alone(encoder):
    """Also one that is not shown to the fusion, of encoders that are shared or not."""
    shared = build(encoder)
    DecodeAlone()(shared)
    x = scan(2)
    x[1, 0] = 0
    for net in (shared, mmformer(encoder)):
        output = net(x, everything(x) & torch.tensor([False, True]))
        (found,) = output.auxiliary["alone"]
        assert not found[1, 0].any()
        both = {m: x[:, m : m + 1] for m in (0, 1)}
        maps = net.encoders[0](both) if net is shared else {m: net.encoders[m](both[m]) for m in (0, 1)}
        for m, rows in ((0, [0]), (1, [0, 1])):
            expected = net.auxiliary["alone"].decoder([level[rows] for level in maps[m]])[0]
            torch.testing.assert_close(found[rows, m], expected, atol=2e-5, rtol=1e-4)
        assert net.eval()(x, everything(x)).auxiliary["alone"] == (), "nobody asks for it in validation"


@pytest.mark.parametrize("half", [False, True])
def test_what_training_sees_is_of_one_kind_whatever_there_is(half):
    """Ranks of a distributed training send it to each other, and one of them may have patches of air alone."""
    network, kinds = mmformer(), []
    one, nothing = scan(), torch.zeros(2, 2, 16, 16, 16)
    one[:, 0] = 0
    for x, fused in ((scan(), everything), (one, alone), (nothing, everything), (scan(), None)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(x, fused(x) if fused else everything(x) & False)
        parts = (output.logits, output.features, *output.deep, *output.auxiliary["alone"])
        kinds.append([(part.dtype, part.shape, part.requires_grad) for part in parts])
        if x is nothing:
            assert not any(part.any() for part in parts)
            sum(part.float().sum() for part in parts).backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert gradients
            if not half:  # torch's bfloat16 convolutions on a CPU read memory that they never wrote: NaN at random
                assert not any(gradient.any() for gradient in gradients)
    assert all(kind == kinds[0] for kind in kinds)
    assert len(kinds[0]) == 4
    assert all(requires for _, _, requires in kinds[0])


def test_checkpointing_changes_memory_and_nothing_else():
    x, kept, gradients = scan(2), {}, []
    x[1, 0] = 0
    for checkpointing in (False, True):
        net = mmformer(checkpointing=checkpointing)

        def note(tensor, checkpointing=checkpointing):
            kept[checkpointing] = kept.get(checkpointing, 0) + tensor.nbytes
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            output = net(x, alone(x))
        (output.logits.square().mean() + output.auxiliary["alone"][0].square().mean()).backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert kept[True] < 0.5 * kept[False]


def saved(net: CMCNet, *names: str) -> dict:
    dataset_json = {"channel_names": {str(m): name for m, name in enumerate(names)}}
    return {"network_weights": net.state_dict(), "init_args": {"dataset_json": dataset_json}, "trainer_name": "Other"}


def test_weights_of_modalities_go_where_their_names_are():
    source, net = mmformer(modalities=3, classes=5, seed=7), mmformer()
    _, counts = load_pretrained(net, saved(source, "mr", "PET", "CT"), "net.pth", ("CT", "MR"))
    of_classes = 2  # a weight and a bias for each of the two resolutions
    assert counts["decoder"]["at their start"] == 2 * of_classes
    assert counts["fusion"]["at their start"] == counts["skip fusion"]["at their start"] == 0
    for m, channel in {0: 2, 1: 0}.items():
        for part in ("encoders", "mia.intra", "mia.concatenation.projections", "skip_fusion.1.projections"):
            own, other = (n.get_submodule(f"{part}.{i}").state_dict() for n, i in ((net, m), (source, channel)))
            assert all(own[key].equal(other[key]) for key in other)
    assert net.mia.inter.linear1.weight.equal(source.mia.inter.linear1.weight)


@pytest.mark.parametrize("separate", [False, True])
def test_weights_of_another_arrangement_are_refused(separate):
    other = build(separate=separate)
    has = "an encoder and a decoder of each modality" if separate else "one encoder and one decoder of all modalities"
    mine = "an encoder of each modality and one decoder of all"
    for net, source, sentence in (
        (mmformer(), other, f"net.pth has {has}, and the network to fill {mine}"),
        (other, mmformer(), f"net.pth has {mine}, and the network to fill {has}"),
    ):
        with pytest.raises(ValueError, match=f"{sentence}: name the trainer of the checkpoint, Other, with -tr"):
            load_pretrained(net, saved(source, "CT", "MR"), "net.pth", ("CT", "MR"))
