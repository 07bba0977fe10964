from copy import deepcopy
from itertools import combinations

import pytest
import torch
from tiny_networks import ENCODERS, alone, build, everything, of_every_encoder, scan
from torch.autograd.graph import saved_tensors_hooks

from nnunet_cmc.networks import CMCNet, execution, presence
from nnunet_cmc.networks.changes import PredictAlone, SuperviseDeep
from nnunet_cmc.networks.sharing import OwnModule
from nnunet_cmc.networks.stacked import stacked


@pytest.fixture(params=[False, True], ids=["shared", "separate"])
def separate(request):
    return request.param


def own_parts(net: CMCNet, m: int) -> list[torch.nn.Module]:
    """What modality m alone computes with."""
    own = [net.mia.projections[m], net.mia.attentions[m]]
    if net.shared:
        return [*own, *(module.copies[m] for module in net.encoders.modules() if isinstance(module, OwnModule))]
    return [*own, net.encoders[m], net.decoders[m], net.merges[m]]


@of_every_encoder
@pytest.mark.parametrize("modalities", [2, 3])
def test_training_sees_every_modality_and_trains_every_parameter(encoder, modalities, separate):
    net, x = build(encoder, modalities, separate=separate), scan(2, modalities)
    SuperviseDeep()(net)
    output = net(x, everything(x))
    assert output.logits.shape == (2, modalities, 3, 16, 16, 16)
    assert output.features.shape[:3] == (2, modalities, net.channels[-1])
    assert [part.shape[-1] for part in output.deep] == [8, 4][: len(output.deep)]
    combined = net.combine(output.logits, output.present)
    sum(part.square().mean() for part in (combined, output.logits, *output.deep)).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    idle = [name for name, p in net.named_parameters() if not p.grad.any()]
    assert all(name.endswith("bias") for name in idle), idle  # one before an instance norm moves nothing


@of_every_encoder
def test_checkpointing_changes_memory_and_nothing_else(encoder, separate):
    x, kept = scan(2), {}
    x[1, 0] = 0
    gradients = []
    for checkpointing in (False, True):
        net = build(encoder, separate=separate)
        net.execution.checkpointing = checkpointing

        def note(tensor, checkpointing=checkpointing):
            kept[checkpointing] = kept.get(checkpointing, 0) + tensor.nbytes
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            output = net(x, alone(x))
        if checkpointing:  # the backward pass computes again, whatever has been computed since
            net(x.flip(1), everything(x))
        output.logits.square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert kept[True] < 0.5 * kept[False]


@of_every_encoder
def test_a_window_that_is_doubled_is_predicted_as_alone(encoder, separate, monkeypatch):
    net, x = build(encoder, separate=separate).eval(), scan(1)
    batches = []
    net.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    with torch.no_grad():
        doubled = net(x)
        monkeypatch.setattr(execution, "SLOW", 0)
        torch.testing.assert_close(doubled, net(x), rtol=1e-4, atol=1e-5)
    assert batches == [1, 2, 1], "asked for one, doubled, and left alone"


@of_every_encoder
@pytest.mark.parametrize("absent", [[], [(0, 1)], [(0, 1), (1, 0)]])
def test_encoders_as_one_computation_compute_the_same(encoder, absent, monkeypatch):
    """Where equally many samples have each modality; else one after the other, as always."""
    network, x = build(encoder, separate=True).double(), scan(batch=3).double()
    for sample, modality in absent:
        x[sample, modality] = 0
    assert network.execution.stacked_on == ("cuda" if encoder == "sam_med3d" else None)
    called = []
    monkeypatch.setattr("nnunet_cmc.networks.execution.stacked", lambda *a: called.append(a) or stacked(*a))
    found = []
    for network.execution.stacked_on in (None, "cpu"):
        output = network(x, everything(x))
        loss = output.logits.square().mean() + output.features.square().mean()
        found.append(
            (output, torch.autograd.grad(loss, network.parameters(), materialize_grads=True, allow_unused=True))
        )
    assert len(called) == (len(absent) != 1)
    assert not any(torch._C._functorch.is_batchedtensor(weight) for weight in network.parameters())
    (plain, expected), (other, gradients) = found
    torch.testing.assert_close(other.logits, plain.logits)
    torch.testing.assert_close(other.features, plain.features)
    for gradient, own in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, own)


@of_every_encoder
def test_prediction_of_every_subset_is_finite(encoder, separate):
    net, x = build(encoder, separate=separate).eval(), scan(4)
    x[1, 0] = x[2, 1] = 0
    x[3] = 0
    with torch.no_grad():
        logits = net(x)
        assert logits.shape == (4, 3, 16, 16, 16)
        assert logits.isfinite().all()
        assert logits[3].argmax(0).eq(0).all(), "nothing present is background"
        for i in range(4):  # a sample's prediction does not depend on its neighbours in the batch
            torch.testing.assert_close(net(x[i : i + 1])[0], logits[i], atol=2e-5, rtol=1e-4)


def test_presence_is_any_voxel_that_is_not_zero():
    x = torch.zeros(1, 3, 16, 16, 16)
    x[0, 1, 5, 5, 5] = 1e-6
    assert presence(x).tolist() == [[False, True, False]]


def test_absent_modality_costs_nothing_and_changes_nothing(separate):
    net, x = build(separate=separate).eval(), scan(2)
    x[:, 1] = 0
    ran = []
    for part in own_parts(net, 1):
        part.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        before = net(x)
        for part in own_parts(net, 1):
            for p in part.parameters():
                p.fill_(torch.nan)
        assert net(x).equal(before)
    assert not ran


@pytest.mark.parametrize("half", [False, True])
@of_every_encoder
def test_what_training_sees_is_of_one_kind_whatever_there_is(encoder, half, separate):
    """Ranks of a distributed training send it to each other, and one of them may have patches of air alone."""
    network = build(encoder, separate=separate)
    network.execution.stacked_on = "cpu"  # encoders of as many samples each are one computation, others are not
    SuperviseDeep()(network)
    one, nothing = scan(), torch.zeros(2, 2, 16, 16, 16)
    one[:, 0] = 0
    kinds = []
    for x, fusion in (
        (scan(), everything),
        (one, alone),
        (nothing, everything),
        (scan(), lambda x: everything(x) & False),
    ):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(x, fusion(x))
        parts = (output.logits, output.features, *output.deep)
        kinds.append([(part.dtype, part.shape, part.requires_grad) for part in parts])
        if x is nothing:
            assert not output.present.any()
            assert not any(part.any() for part in parts)
            sum(part.float().sum() for part in parts).backward()
            gradients = [p.grad for p in network.parameters() if p.grad is not None]
            assert gradients, "a distributed training waits for the gradient of some weight"
            if not half:  # torch's bfloat16 convolutions on a CPU read memory that they never wrote: NaN at random
                assert not any(gradient.any() for gradient in gradients)
    assert all(kind == kinds[0] for kind in kinds)
    assert len(kinds[0]) > 2, "deep supervision is among it"
    assert all(requires for _, _, requires in kinds[0])


def test_a_modality_on_its_own_cannot_see_the_other(separate):
    net, x = build(separate=separate), scan(2).requires_grad_()
    for fusion, sees in ((alone(x), False), (everything(x), True)):
        (gradient,) = torch.autograd.grad(net(x, fusion).logits[:, 0].square().sum(), x)
        assert gradient[:, 0].any()
        assert gradient[:, 1].any() == sees


def test_decoders_run_only_for_members_of_their_own_set(separate):
    net, x = build(separate=separate), scan(2)
    fusion = everything(x).clone()
    fusion[0, 1] = False
    output = net(x, fusion)
    assert not output.logits[0, 1].any()
    assert output.logits[1, 1].any()
    assert output.features[0, 1].any(), "its encoder still serves fusion and CSC"


def test_fusion_sets_of_one_batch_do_not_mix(separate):
    """Rows with different sets give what each gives on its own."""
    net, x = build("plain", 3, separate=separate).eval(), scan(3, 3)
    x[1, 2] = 0
    fusion = everything(x).clone()
    fusion[0] = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    with torch.no_grad():
        together = net(x, fusion).logits
        for i in range(3):
            torch.testing.assert_close(net(x[[i, i]], fusion[[i, i]]).logits[0], together[i], atol=1e-5, rtol=1e-4)


def test_a_set_of_modalities_is_decoded_once():
    """By the shared decoder, in one call, however many modalities of a sample predict from that set."""
    net, x = build(modalities=3).eval(), scan(2, 3)
    rows = []
    net.decoders[0].register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0][0])))
    pair = everything(x) & False
    pair[0, :2, :2] = pair[1, 2, 2] = True
    with torch.no_grad():
        for fusion in (everything(x), alone(x), pair, None):
            net(x, fusion)
    assert rows == [2, 6, 2, 2]
    output = net(x, everything(x))
    for m in range(3):
        torch.testing.assert_close(output.logits[:, m], net(x))


def test_shared_skips_are_the_mean_of_what_is_fused():
    """And at the start the deepest feature is, too."""
    torch.manual_seed(0)
    net, x = CMCNet(3, 2, [16, 16, 16], **ENCODERS["plain"]), scan(1, 3).expand(2, -1, -1, -1, -1)
    seen = []
    net.decoders[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    maps = net.encoders[0]({m: x[:, m : m + 1] for m in range(3)})
    for group in (group for size in (1, 2, 3) for group in combinations(range(3), size)):
        fusion = torch.zeros(2, 3, 3, dtype=torch.bool)
        fusion[:, group[0], list(group)] = True
        net(x, fusion)
        for level, found in enumerate(seen.pop()):
            torch.testing.assert_close(found, sum(maps[m][level] for m in group) / len(group))


def test_a_combination_of_decoders_is_equal_at_the_start_and_follows_reliability():
    net = build(separate=True)
    net.combination.reliability.zero_()
    logits = torch.randn(2, 2, 3, 4, 4, 4)
    present = torch.tensor([[True, True], [True, False]])
    log_p = logits.log_softmax(2)
    torch.testing.assert_close(net.combine(logits, present)[0], log_p[0].mean(0))
    torch.testing.assert_close(net.combine(logits, present)[1], log_p[1, 0])
    net.combination.reliability[1] = -50.0
    torch.testing.assert_close(net.combine(logits, present)[0], log_p[0, 0])


def test_a_shared_decoder_needs_no_combination():
    net, logits = build(), torch.randn(2, 2, 3, 4, 4, 4)
    combined = net.combine(logits, torch.tensor([[True, True], [False, True]]))
    assert combined.equal(torch.stack([logits[0, 0], logits[1, 1]]))


def test_features_are_weighted_in_predictions_half_equally_and_half_by_reliability():
    """And as before where one modality is present, in training, and where labels taught the modalities together."""
    torch.manual_seed(0)
    net, x = CMCNet(3, 2, [16, 16, 16], **ENCODERS["plain"]).eval(), scan(5, 3)
    x[1, 0] = x[2, :2] = x[3, 2] = x[4] = 0  # the modalities 0, 1 and 2; 1 and 2; 2; 0 and 1; none
    seen = []
    net.decoders[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        equal, training = net(x), net(x, everything(x))
        maps = net.encoders[0]({m: x[:, m : m + 1] for m in range(3)})
        net.fusion_weights.reliability.copy_(torch.tensor([2.0, 0.0, -1.0]))
        assert net(x).equal(equal)
        net.fusion_weights.together[2, :2] = net.fusion_weights.together[:2, 2] = False
        assert net(x, everything(x)).logits.equal(training.logits)
        weighted = net(x)
    torch.testing.assert_close(weighted[2:], equal[2:])
    assert not torch.allclose(weighted[:2], equal[:2])
    weights = torch.tensor([[7.389056, 1, 0.367879], [0, 1, 0.367879], [0, 0, 1]])
    weights = weights / weights.sum(1, keepdim=True) / 2 + torch.tensor([[1 / 6] * 3, [0, 0.25, 0.25], [0, 0, 0.5]])
    weights = torch.cat([weights, torch.tensor([[0.5, 0.5, 0]])])
    rows = [2, 1, 3, 0]  # of sets of one, two and three modalities, as they are decoded
    for level, found in enumerate(seen[-1]):
        expected = sum(weights[rows, m, None, None, None, None] * maps[m][level][rows] for m in range(3))
        torch.testing.assert_close(found, expected, msg=f"level {level}")


def test_separate_decoders_start_from_the_mean_of_the_fused_and_their_own_feature():
    net = CMCNet(2, 3, [16, 16, 16], **ENCODERS["universal"])
    net.separate()
    fused, own = torch.randn(2, 2, 8, 2, 2, 2)
    for merge in net.merges:
        torch.testing.assert_close(merge(torch.cat([fused, own], 1)), (fused + own) / 2)


@of_every_encoder
def test_copies_and_state_dicts_compute_the_same(encoder, separate):
    """A copy that is made after a forward pass has nothing of the original's batch."""
    net, x = build(encoder, separate=separate).eval(), scan(3)
    with torch.no_grad():
        expected = net(x)
        copy = deepcopy(net)
        net(torch.cat([x, torch.zeros_like(x[:, :1])], 1)[:2, [0, 2]])  # other rows
        assert copy(x).equal(expected)
        fresh = CMCNet(2, 3, [16, 16, 16], **ENCODERS[encoder]).eval()
        if separate:
            fresh.separate()
            fresh.eval()
        fresh.load_state_dict(copy.state_dict())
        assert fresh(x).equal(expected)


def test_weights_of_another_number_of_classes_are_refused_in_one_line():
    weights = build("plain").state_dict()
    other = CMCNet(2, 5, [16, 16, 16], **ENCODERS["plain"])
    with pytest.raises(ValueError, match=r"^The weights do not fit .* \(size mismatch for .*\): use those [^\n]*$"):
        other.load_state_dict(weights)


@of_every_encoder
def test_weights_have_channels_last_on_a_cpu_if_the_convolutions_are_nnunets(encoder, separate):
    """The results are the same; on a GPU, and once parts are compiled, nothing changes."""
    net, x = build(encoder, separate=separate), scan(3)
    ordered, compiled = deepcopy(net), deepcopy(net)
    compiled.compile_parts(backend="eager")
    for each, device in ((net, "cuda"), (ordered, "cpu"), (compiled, "cpu")):
        each.order_for(torch.device(device))
    kernels = [[k for k in each.parameters() if k.ndim == 5 and min(k.shape) > 1] for each in (net, compiled, ordered)]
    last = [{not kernel.is_contiguous() for kernel in of_net} for of_net in kernels]
    assert last == [{False}, {False}, {encoder in ("plain", "residual")}]
    outputs = [each(x, everything(x)).logits for each in (net, ordered)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)
    for output in outputs:
        output.sin().sum().backward()
    for plain, ours in zip(kernels[0], kernels[2], strict=True):
        assert ours.grad.stride() == ours.stride()
        assert (ours.grad - plain.grad).norm() < 1e-3 * plain.grad.norm()


def test_encoders_and_decoders_have_names():
    assert list(build().parts(["CT", "MR"])) == ["encoder", "decoder"]
    net = build(separate=True)
    assert net.parts(["CT", "MR"]) == {
        "encoder CT": net.encoders[0],
        "encoder MR": net.encoders[1],
        "decoder CT": net.decoders[0],
        "decoder MR": net.decoders[1],
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"input_channels": 1}, "two modalities or more"),
        ({"patch_size": [16, 16, 18]}, "not a multiple of the encoder's strides"),
        ({"encoder": "mystery"}, "encoder 'mystery'"),
        (ENCODERS["sam_med3d"] | {"decoder_channels": [4]}, "decoder_channels has 1 widths"),
        (
            ENCODERS["universal"] | {"decoder_channels": [4, 4, 4]},
            r"decoder_channels are \[4, 4, 4\]; the Universal Model's decoder has \[4, 4, 8\]",
        ),
        ({"deep_supervision": True}, "-tr CMCTrainer"),
        ({"deep_supervision": False}, "-tr CMCTrainer"),  # nnUNetTrainerNoDeepSupervision
    ],
)
def test_refuses_what_cannot_be_built(change, sentence):
    arguments = {"input_channels": 2, "num_classes": 3, "patch_size": [16, 16, 16]}
    with pytest.raises(ValueError, match=sentence):
        CMCNet(**{**arguments, **ENCODERS["plain"], **change})


def test_predictions_of_single_modalities_are_made_by_each_alone_and_averaged(separate):
    """Whatever is asked to be fused."""
    net, x = build(separate=separate).eval(), scan(2)
    PredictAlone()(net)
    net.combination.reliability.normal_()
    with torch.no_grad():
        each = [net(x * (torch.arange(2) == m)[:, None, None, None]) for m in range(2)]
        assert net(x, everything(x)).logits.equal(net(x, alone(x)).logits)
        together = net(x)
    weight = net.combination.reliability.softmax(0)[:, None, :, None, None, None]
    expected = sum(w * one.log_softmax(1) for w, one in zip(weight, each, strict=True))
    torch.testing.assert_close(together, expected)


def test_what_auxiliary_modules_compute_is_in_the_output_of_training_alone():
    net, x = build(), scan(2)
    x[1, 0] = 0

    class Deepest(torch.nn.Module):
        def forward(self, x, fusion, encoded, logits, present):
            assert fusion.shape == (*present.shape, 2)
            assert logits.shape[:2] == present.shape
            return (encoded.take(1, [*range(len(x))])[-1],)

    net.auxiliary["deepest"] = Deepest()
    output = net(x, everything(x))
    (deepest,) = output.auxiliary["deepest"]
    assert deepest.equal(output.features[:, 1])
    net.auxiliary["deepest"] = torch.nn.Identity()  # would be given too much
    net.eval()(x)
