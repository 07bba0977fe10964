"""Parity with the official U-Net on a fixture that it computed sample by sample, and what our own additions promise."""

import pytest
import torch
from released import FIXTURES, universal
from released import UNIVERSAL as WEIGHTS
from safetensors.torch import load_file

from nnunet_cmc.networks.universal_unet import UniversalUNetDecoder, UniversalUNetEncoder, unet_state
from nnunet_cmc.utils.checkpoints import load_checkpoint

ENCODER = ["skip_out64", "skip_out128", "skip_out256", "out512"]
DECODER = ["out_up_256", "out_up_128", "out_up_64"]


@pytest.fixture(scope="module")
def fixture():
    return load_file(FIXTURES / "unet_tiny_base2_io.safetensors")


def assert_close(value, expected):
    assert value.shape == expected.shape
    assert (value - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("sample", [0, 1])
@pytest.mark.parametrize("training", [True, False])
def test_every_stage_is_the_official_one(fixture, sample, training):
    encoder, decoder = (part.train(training) for part in universal())
    maps = encoder(fixture["input"][sample : sample + 1])
    for name, value in zip(ENCODER + DECODER, maps + decoder(maps), strict=True):
        assert_close(value, fixture[f"sample{sample}.{name}"])
    for name, value in zip(("out64", "out128", "out256"), maps, strict=False):
        assert_close(torch.nn.functional.max_pool3d(value, 2), fixture[f"sample{sample}.{name}"])


def test_a_sample_does_not_see_its_neighbours(fixture):
    """In a batch of two, too, each has the official result of a batch of one."""
    encoder, decoder = universal()
    maps = encoder(fixture["input"])
    for name, value in zip(ENCODER + DECODER, maps + decoder(maps), strict=True):
        assert_close(value, torch.cat([fixture[f"sample{i}.{name}"] for i in (0, 1)]))


def test_turned_kernels_agree_on_transposed_input(fixture):
    """zyx on an array (z, y, x) is xyz on its transpose, for every map; and the order does matter."""
    x = fixture["input"]
    (xyz, up), (zyx, zyx_up) = universal(), universal(axis_order="zyx")
    plain, turned = xyz(x), zyx(x.transpose(2, 4))
    for a, b in zip(plain + up(plain), turned + zyx_up(turned), strict=True):
        torch.testing.assert_close(b, a.transpose(2, 4), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="axis_order is 'zxy'; it must be"):
        universal(axis_order="zxy")


def test_maps_are_described_by_channels_and_strides(fixture):
    encoder, _ = universal()
    assert encoder.channels == [4, 8, 16, 32]
    x = fixture["input"]
    described = [
        (2, c, 16 // i, 24 // j, 32 // k) for c, (i, j, k) in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert [tuple(m.shape) for m in encoder(x)] == described


def test_every_size_of_the_released_network():
    with torch.device("meta"):
        encoder, decoder = UniversalUNetEncoder(), UniversalUNetDecoder()

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert [count(stage) for stage in encoder.children()] == [56_448, 332_352, 1_328_256, 5_310_720]
    assert [count(stage) for stage in decoder.children()] == [9_177_088, 2_294_784, 573_952]


def test_the_input_is_not_changed_and_every_parameter_gets_a_gradient(fixture):
    encoder, decoder = universal()
    x = fixture["input"].clone()
    maps = encoder(x)
    sum(m.sin().sum() for m in maps + decoder(maps)).backward()
    assert x.equal(fixture["input"])
    for part in (encoder, decoder):
        for name, parameter in part.named_parameters():
            assert parameter.grad.isfinite().all(), name
            if not name.endswith("conv1.bias"):  # which the norm takes away again
                assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("shape", [(1, 1, 20, 24, 32), (1, 2, 16, 16, 16), (1, 16, 16, 16)])
def test_input_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"sides that are multiples of 8, not \("):
        universal()[0](torch.zeros(shape))


def test_text_heads_and_unused_statistics_are_left_out():
    state = unet_state(load_checkpoint(WEIGHTS), WEIGHTS)
    assert (len(state.encoder), len(state.decoder)) == (32, 30)  # of 56 and 48 with the statistics


KEY = "module.backbone.down_tr128.ops.1.conv1.bias"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("net"), r"no tensor module.backbone.down_tr64.ops.0.conv1.weight in 'net'"),
        (lambda c: c.update(net=[1]), "no tensor module.backbone.down_tr64"),
        (lambda c: c["net"].pop(KEY), "has no tensor 'down_tr128.ops.1.conv1.bias'"),
        (lambda c: c["net"].pop("module.backbone.down_tr64.ops.0.bn1.bias"), r"1 of its tensors are missing \(such as"),
        (lambda c: c["net"].update({KEY: torch.zeros(7)}), r"of its tensors are of another shape"),
        (lambda c: c["net"].update({KEY[:-4] + "extra": torch.zeros(7)}), r"1 of its tensors are unknown"),
    ],
)
def test_a_file_of_another_structure_is_refused(tmp_path, damage, message):
    checkpoint = load_checkpoint(WEIGHTS)
    damage(checkpoint)
    path = tmp_path / "damaged.pth"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=message) as error:
        universal(path)
    assert str(path) in str(error.value)
    assert "clip_driven_universal_unet.pth" in str(error.value)
