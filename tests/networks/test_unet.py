"""A CMCNet of nnU-Net's own U-Net, given one modality, against the network of dynamic_network_architectures."""

from copy import deepcopy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import SuperviseDeep

SHAPES = {  # patch, kernels, strides
    "isotropic": ([16, 8, 16], [[3, 3, 3]] * 3, [[1, 1, 1], [2, 2, 2], [2, 2, 2]]),
    "anisotropic": ([10, 16, 8], [[1, 3, 3], [1, 3, 3], [3, 3, 3]], [[1, 1, 1], [1, 2, 2], [2, 2, 2]]),
    "flat": ([3, 16, 16], [[1, 3, 3]] * 3, [[1, 1, 1], [1, 2, 2], [1, 2, 2]]),
}
FEATURES, BLOCKS, DECODER_BLOCKS, CLASSES = [4, 6, 8], [2, 1, 2], [2, 1], 3


def stock(architecture: str, kernel_sizes, strides) -> nn.Module:
    kind, blocks = {
        "PlainConvUNet": (PlainConvUNet, "n_conv_per_stage"),
        "ResidualEncoderUNet": (ResidualEncoderUNet, "n_blocks_per_stage"),
    }[architecture]
    return kind(
        1, 3, FEATURES, nn.Conv3d, kernel_sizes, strides, num_classes=CLASSES,
        **{blocks: BLOCKS}, n_conv_per_stage_decoder=DECODER_BLOCKS, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True}, deep_supervision=True,
    )  # fmt: skip


def ours(architecture: str, patch, kernel_sizes, strides, modalities=2) -> CMCNet:
    kwargs = {
        "features_per_stage": FEATURES, "blocks_per_stage": BLOCKS, "blocks_per_stage_decoder": DECODER_BLOCKS,
        "kernel_sizes": kernel_sizes, "strides": strides, "architecture": architecture,
    }  # fmt: skip
    return CMCNet(modalities, CLASSES, patch, "unet", kwargs)


@pytest.fixture(params=["PlainConvUNet", "ResidualEncoderUNet"])
def architecture(request):
    return request.param


@pytest.fixture(params=SHAPES)
def shape(request):
    return SHAPES[request.param]


@pytest.fixture
def pair(architecture, shape) -> tuple[nn.Module, CMCNet]:
    """nnU-Net's network and ours of the same weights, with deep supervision, float64."""
    torch.manual_seed(0)
    theirs, net = stock(architecture, *shape[1:]).double(), ours(architecture, *shape).double()
    SuperviseDeep()(net)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    encoder = {f"net.{key}": value for key, value in theirs.encoder.state_dict().items()}
    net.encoders[0].load_state_dict(net.encoders[0].spread({0: encoder, 1: encoder}))
    decoder = {key: value for key, value in theirs.decoder.state_dict().items() if not key.startswith("encoder.")}
    net.decoders[0].unet.load_state_dict(decoder)
    return theirs, net


@pytest.mark.parametrize("modality", [0, 1])
def test_given_one_modality_it_is_nnunets_network(pair, shape, modality):
    """To the bit: logits of every resolution, and of a prediction. Gradients but for the order of their sums."""
    theirs, net = pair
    x = torch.zeros(2, 2, *shape[0], dtype=torch.float64)
    x[:, modality] = torch.randn(2, *shape[0])
    scan = x[:, modality : modality + 1]
    output, expected = net(x, torch.ones(2, 2, 2, dtype=torch.bool)), theirs(scan)
    found = [logits[:, modality] for logits in (output.logits, *output.deep)]
    assert len(found) == 2
    torch.testing.assert_close(found, expected, rtol=0, atol=0)

    for logits in (found, expected):
        sum(level.sin().mean() for level in logits).backward()
    gradients = {f"net.{key}": p.grad for key, p in theirs.encoder.named_parameters()}
    for key, gradient in net.encoders[0].spread({modality: gradients}).items():
        torch.testing.assert_close(net.encoders[0].get_parameter(key).grad, gradient)
    for key, parameter in net.decoders[0].unet.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.decoder.get_parameter(key).grad)

    theirs.eval()
    theirs.decoder.deep_supervision = False
    with torch.no_grad():
        assert net.eval()(x).equal(theirs(scan))


@pytest.mark.parametrize("modalities", [2, 4])
def test_it_has_nnunets_parameters_but_for_stems_norms_and_fusion(architecture, shape, modalities):
    theirs, net = stock(architecture, *shape[1:]), ours(architecture, *shape, modalities)
    first = [theirs.encoder.stages[0], *([theirs.encoder.stem] if architecture == "ResidualEncoderUNet" else [])]
    norms = [module for module in theirs.encoder.modules() if isinstance(module, nn.InstanceNorm3d)]
    own = {parameter for part in [*first, *norms] for parameter in part.parameters()}

    def count(parameters) -> int:
        return sum(p.numel() for p in parameters)

    expected = count(theirs.parameters()) + (modalities - 1) * count(own) + count(net.mia.parameters())
    assert count(net.parameters()) == expected


def test_it_starts_as_nnunets_network_does(architecture):
    """Biases, norms and what is constant are equal, and other weights as far from 0."""
    topology = ([[3, 3, 3]] * 3, [[1, 1, 1], [2, 2, 2], [2, 2, 2]])
    torch.manual_seed(0)
    theirs, net = stock(architecture, *topology), ours(architecture, [16] * 3, *topology)
    theirs.apply(theirs.initialize)
    parts = [
        (net.build_encoder().net, theirs.encoder.state_dict()),
        (net.decoders[0].unet, {k: v for k, v in theirs.decoder.state_dict().items() if not k.startswith("encoder.")}),
    ]
    for part, expected in parts:
        assert part.state_dict().keys() == expected.keys()
        for key, value in part.state_dict().items():
            if key.endswith("bias") or "norm" in key or value.std() == 0:
                assert value.equal(expected[key]), key
            elif value.numel() > 500:
                assert value.std().item() == pytest.approx(expected[key].std().item(), rel=0.2), key


def test_deep_supervision_is_of_training_alone(pair, shape):
    _, net = pair
    x = torch.randn(2, 2, *shape[0], dtype=torch.float64)
    fusion = torch.ones(2, 2, 2, dtype=torch.bool)
    assert len(net(x, fusion).deep) == 1
    assert net.eval()(x, fusion).deep == ()
    assert len(deepcopy(net).train()(x, fusion).deep) == 1
    assert ours("PlainConvUNet", *SHAPES["flat"])(torch.randn(1, 2, 3, 16, 16), fusion[:1]).deep == ()


def test_strides_are_those_of_the_maps(architecture, shape):
    net, patch = ours(architecture, *shape), shape[0]
    encoder = net.build_encoder()
    maps = encoder(torch.randn(1, 1, *patch))
    described = [
        (1, c, *(side // step for side, step in zip(patch, stride, strict=True)))
        for c, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert [tuple(level.shape) for level in maps] == described


def test_flat_networks_predict_every_subset_in_both_arrangements():
    net = ours("PlainConvUNet", *SHAPES["flat"], modalities=3)
    x = torch.randn(4, 3, 3, 16, 16)
    x[1, 0] = x[2, 1:] = x[3] = 0
    for change in (lambda: None, net.separate):
        change()
        with torch.no_grad():
            logits = net.eval()(x)
        assert logits.shape == (4, CLASSES, 3, 16, 16)
        assert logits.isfinite().all()
        assert not logits[3].argmax(0).any()


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match=r"the architecture 'UMambaBot', which is none of \['PlainConvUNet', 'Resid"):
        ours("UMambaBot", *SHAPES["flat"])
    with pytest.raises(ValueError, match=r"patch \[3, 16, 18\] is not a multiple of the encoder's strides \[1, 4, 4\]"):
        ours("PlainConvUNet", [3, 16, 18], *SHAPES["flat"][1:])
