import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from nnunet_cmc.networks import CMCNet, presence
from nnunet_cmc.networks.stacked import stacked

ENCODERS = {
    "sam_med3d": {
        "encoder_kwargs": {
            "image_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "global_blocks": [0, 1],
            "window_size": 14, "out_channels": 8, "axis_order": "zyx", "adapters": False, "skip_channels": [4, 8],
        },
        "decoder_channels": [4, 4, 8],
    },
    "residual": {
        "encoder_kwargs": {"features_per_stage": [4, 8, 8], "n_blocks_per_stage": [1, 1, 1]},
        "decoder_channels": [4, 4],
    },
    "universal": {
        "encoder_kwargs": {"channels": [4, 4, 8, 8], "stem": 2},
        "decoder_channels": [4, 4, 8],
    },
}  # fmt: skip


def build(encoder="residual", modalities=2, classes=3) -> CMCNet:
    torch.manual_seed(0)
    return CMCNet(modalities, classes, [16, 16, 16], encoder, **ENCODERS[encoder])


def scan(batch=2, modalities=2) -> torch.Tensor:
    return torch.randn(batch, modalities, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def everything(x: torch.Tensor) -> torch.Tensor:
    return torch.ones(x.shape[0], x.shape[1], x.shape[1], dtype=torch.bool)


def alone(x: torch.Tensor) -> torch.Tensor:
    return torch.eye(x.shape[1], dtype=torch.bool).expand(x.shape[0], -1, -1)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("modalities", [2, 3])
def test_training_sees_every_modality_and_trains_every_parameter(encoder, modalities):
    net, x = build(encoder, modalities), scan(2, modalities)
    output = net(x, everything(x))
    assert output.logits.shape == (2, modalities, 3, 16, 16, 16)
    assert output.features.shape[:3] == (2, modalities, net.feature_channels)
    (output.logits.square().mean() + net.combine(output.logits, output.present).square().mean()).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    idle = [name for name, p in net.named_parameters() if not p.grad.any()]
    # A bias before an instance norm moves nothing; a ViT's position tables and adapters start at zero but do learn.
    assert all(name.endswith("bias") for name in idle), idle


@pytest.mark.parametrize("encoder", ENCODERS)
def test_checkpointing_changes_memory_and_nothing_else(encoder):
    x, kept = scan(2), {}
    x[1, 0] = 0
    gradients = []
    for checkpointing in (False, True):
        net = build(encoder)
        net.checkpointing = checkpointing

        def note(tensor, checkpointing=checkpointing):
            kept[checkpointing] = kept.get(checkpointing, 0) + tensor.nbytes
            return tensor

        with saved_tensors_hooks(note, lambda tensor: tensor):
            output = net(x, alone(x))
        output.logits.square().mean().backward()
        gradients.append({name: p.grad for name, p in net.named_parameters()})
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    assert kept[True] < 0.5 * kept[False]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("absent", [[], [(0, 1)], [(0, 1), (1, 0)]])
def test_encoders_as_one_computation_compute_the_same(encoder, absent, monkeypatch):
    """Where equally many samples have each modality; else one after the other, as always."""
    network, x = build(encoder).double(), scan(batch=3).double()
    for sample, modality in absent:
        x[sample, modality] = 0
    assert network.stacked_on == ("cuda" if encoder == "sam_med3d" else None)
    called = []
    monkeypatch.setattr("nnunet_cmc.networks.cmcnet.stacked", lambda *a: called.append(a) or stacked(*a))
    found = []
    for network.stacked_on in (None, "cpu"):
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


@pytest.mark.parametrize("encoder", ENCODERS)
def test_prediction_of_every_subset_is_finite(encoder):
    net, x = build(encoder).eval(), scan(4)
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


def test_absent_modality_costs_nothing_and_changes_nothing():
    net, x = build().eval(), scan(2)
    x[:, 1] = 0
    ran = []
    for part in (net.encoders[1], net.decoders[1], net.mia.projections[1], net.mia.attentions[1]):
        part.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        before = net(x)
        for p in (*net.encoders[1].parameters(), *net.decoders[1].parameters()):
            p.fill_(torch.nan)
        assert net(x).equal(before)
    assert not ran


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_training_sees_is_of_one_kind_whatever_there_is(encoder, half):
    """Ranks of a distributed training send it to each other, and one of them may have patches of air alone."""
    network = build(encoder)
    network.stacked_on = "cpu"  # encoders of as many samples each are one computation, others are not
    for decoder in network.decoders:
        decoder.supervise_deep()
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
            assert not any(gradient.any() for gradient in gradients)
    assert all(kind == kinds[0] for kind in kinds)
    assert len(kinds[0]) > 2, "deep supervision is among it"
    assert all(requires for _, _, requires in kinds[0])


def test_a_modality_on_its_own_cannot_see_the_other():
    net, x = build(), scan(2)
    output = net(x, alone(x))
    output.logits[:, 0].square().sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in net.encoders[1].parameters())
    net.zero_grad()
    net(x, everything(x)).logits[:, 0].square().sum().backward()
    assert any(p.grad.any() for p in net.encoders[1].parameters())


def test_decoders_run_only_for_members_of_their_own_set():
    net, x = build(), scan(2)
    fusion = everything(x).clone()
    fusion[0, 1] = False
    output = net(x, fusion)
    assert not output.logits[0, 1].any()
    assert output.logits[1, 1].any()
    assert output.features[0, 1].any(), "its encoder still serves fusion and CSC"


def test_fusion_sets_of_one_batch_do_not_mix():
    """Rows with different sets give what each gives on its own."""
    net, x = build("residual", 3).eval(), scan(3, 3)
    x[1, 2] = 0
    fusion = everything(x).clone()
    fusion[0] = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    with torch.no_grad():
        together = net(x, fusion).logits
        for i in range(3):
            torch.testing.assert_close(net(x[[i, i]], fusion[[i, i]]).logits[0], together[i], atol=1e-5, rtol=1e-4)


def test_combination_is_equal_at_the_start_and_follows_reliability():
    net = build()
    logits = torch.randn(2, 2, 3, 4, 4, 4)
    present = torch.tensor([[True, True], [True, False]])
    log_p = logits.log_softmax(2)
    torch.testing.assert_close(net.combine(logits, present)[0], log_p[0].mean(0))
    torch.testing.assert_close(net.combine(logits, present)[1], log_p[1, 0])
    with torch.no_grad():
        net.reliability[1] = -50.0
    torch.testing.assert_close(net.combine(logits, present)[0], log_p[0, 0])


def test_the_universal_decoder_starts_from_the_mean_of_both_features():
    decoder = build("universal").decoders[0]
    maps = [torch.randn(2, c, 16 // s, 16 // s, 16 // s) for c, s in ((4, 1), (4, 2), (8, 4), (8, 8))]
    fused = torch.randn(2, 8, 2, 2, 2)
    alone = decoder.unet([*maps[:-1], (fused + maps[-1]) / 2])[-1]
    torch.testing.assert_close(decoder(fused, maps), [decoder.seg_layers(alone)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"input_channels": 1}, "two modalities or more"),
        ({"patch_size": [16, 16, 18]}, "not a multiple of the encoder's stride 4"),
        ({"encoder": "mystery"}, "encoder 'mystery'"),
        ({"decoder_channels": [4]}, "decoder_channels has 1 widths"),
        (
            {"encoder": "universal", **ENCODERS["universal"], "decoder_channels": [4, 4, 4]},
            r"decoder_channels are \[4, 4, 4\]; the Universal Model's decoder has \[4, 4, 8\]",
        ),
        ({"deep_supervision": True}, "-tr CMCTrainer"),
    ],
)
def test_refuses_what_cannot_be_built(change, sentence):
    arguments = {"input_channels": 2, "num_classes": 3, "patch_size": [16, 16, 16], "encoder": "residual"}
    with pytest.raises(ValueError, match=sentence):
        CMCNet(**{**arguments, **ENCODERS["residual"], **change})
