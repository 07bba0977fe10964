"""Parity with the official encoder on fixtures that it computed, and what our own additions promise."""

import json

import pytest
import torch
from released import FIXTURES, sam_med3d
from released import SAM as WEIGHTS
from safetensors.torch import load_file

from nnunet_cmc.networks.adapter import Adapter
from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder
from nnunet_cmc.networks.sam_med3d_checkpoint import image_encoder_state
from nnunet_cmc.utils.checkpoints import load_checkpoint

OVERRIDE = "window3.override.image_encoder."


@pytest.fixture(scope="module")
def fixture():
    return load_file(FIXTURES / "sam_tiny_io.safetensors")


def windows_of_3(fixture, global_blocks):
    """The official weights with the tables that the fixture has for windows of 3."""
    config = json.loads((FIXTURES / "sam_tiny.config.json").read_text())
    encoder = SamMed3DEncoder(
        config["img_size"], config["patch_size"], config["embed_dim"], config["depth"], config["num_heads"],
        out_channels=config["out_chans"], window_size=3, global_blocks=global_blocks, axis_order="xyz",
    )  # fmt: skip
    windowed = [f"{OVERRIDE}blocks.{index}." for index in range(config["depth"]) if index not in global_blocks]
    tables = {key.removeprefix(OVERRIDE): fixture[key] for key in fixture if key.startswith(tuple(windowed))}
    encoder.load_state_dict(image_encoder_state(load_checkpoint(WEIGHTS), WEIGHTS) | tables)
    return encoder


def assert_parity(encoder, x, fixture, case):
    """Every stage of the encoder within 1e-5 of the largest value of the official one's."""
    stages = {"patch_embed": encoder.patch_embed, **{f"block{i}": block for i, block in enumerate(encoder.blocks)}}
    seen = {}
    for name, module in stages.items():
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    seen["output"] = encoder(x)[-1]
    for name, value in seen.items():
        assert_close(value, fixture[f"{case}.{name}"], 1e-5)


def assert_close(value, expected, tolerance):
    assert value.shape == expected.shape
    assert (value - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(("case", "image_size"), [("cubic", None), ("cubic24", 24)])
def test_parity_with_windows_larger_than_the_grid(fixture, case, image_size):
    assert_parity(sam_med3d(image_size=image_size), fixture[f"{case}.input"], fixture, case)


@pytest.mark.parametrize(
    ("case", "inputs", "global_blocks"),
    [("window3", "window3.input", (1, 3)), ("allwindow3_noncubic", "noncubic.input", ())],
)
def test_parity_with_windows_smaller_than_the_grid(fixture, case, inputs, global_blocks):
    assert_parity(windows_of_3(fixture, global_blocks), fixture[inputs], fixture, case)


def test_gradients_are_the_official_ones(fixture):
    """Of the mean square of the output for the first sample, in six tensors of every kind."""
    encoder = sam_med3d()
    encoder(fixture["cubic.input"][:1])[-1].square().mean().backward()
    gradients = {key.removeprefix("grad_cubic0."): fixture[key] for key in fixture if key.startswith("grad_cubic0.")}
    assert len(gradients) == 6
    for name, expected in gradients.items():
        assert_close(encoder.get_parameter(name).grad, expected, 1e-4)


def test_the_position_embedding_is_resized_as_officially(fixture):
    assert_close(sam_med3d(image_size=24).pos_embed, fixture["cubic24.pos_embed_resized"], 1e-6)


def test_another_image_size_resizes_positions_only():
    """On loading, or on the fly where the input is not the encoder's size: the same numbers."""
    x = torch.randn(1, 1, 24, 24, 24)
    resized, original = sam_med3d(image_size=24), sam_med3d()
    changed = {k for k, v in original.state_dict().items() if v.shape != resized.state_dict()[k].shape}
    assert changed == {"pos_embed"}
    torch.testing.assert_close(resized(x)[-1], original(x)[-1])


def test_weights_of_another_image_size_load_into_a_planned_encoder():
    """An encoder built for 24^3 has shorter global tables; loading fits them, and computes the same."""
    planned = SamMed3DEncoder(24, 8, 48, 4, 4, out_channels=32, global_blocks=(1, 3), axis_order="xyz")
    planned.load_state_dict(image_encoder_state(load_checkpoint(WEIGHTS), WEIGHTS))
    x = torch.randn(1, 1, 24, 24, 24)
    assert planned.blocks[1].attn.rel_pos_d.shape == (5, 12)
    torch.testing.assert_close(planned(x)[-1], sam_med3d(image_size=24)(x)[-1])


def test_turned_axes_agree_on_transposed_input():
    """zyx on an array (z, y, x) is xyz on its transpose, for every map; and the order does matter."""
    x = torch.randn(1, 1, 24, 32, 16)
    xyz, zyx = sam_med3d(), sam_med3d(axis_order="zyx", adapters=False)
    for turned, plain in zip(zyx(x.transpose(2, 4)), xyz(x), strict=True):
        torch.testing.assert_close(turned, plain.transpose(2, 4))
    assert (zyx(x)[-1] - xyz(x)[-1]).abs().max() > 0.1


def test_maps_are_described_by_channels_and_strides():
    encoder = sam_med3d()
    maps = encoder(torch.randn(2, 1, 16, 24, 32))
    assert encoder.channels == [48, 32]
    assert encoder.strides == [8, 8]
    assert [tuple(features.shape) for features in maps] == [(2, 48, 2, 3, 4), (2, 32, 2, 3, 4)]


def test_every_size_of_the_released_network():
    """The official parameter count of ViT-B at 128^3, without allocating it."""
    with torch.device("meta"):
        encoder = SamMed3DEncoder(128)
    assert sum(p.numel() for p in encoder.parameters()) == 92_924_928
    assert len(encoder.state_dict()) == 189


def test_adapters_change_nothing_at_the_start_and_something_later():
    x = torch.randn(1, 1, 32, 32, 32)
    plain, adapted = sam_med3d(adapters=False), sam_med3d(adapters=True)
    assert sum(isinstance(module, Adapter) for module in adapted.modules()) == 4
    assert torch.equal(plain(x)[-1], adapted(x)[-1])
    torch.nn.init.normal_(adapted.blocks[0].adapter.up.weight)
    assert not torch.allclose(plain(x)[-1], adapted(x)[-1])


def test_every_parameter_gets_a_gradient():
    """Windowed and global blocks, tables that start at zero, and adapters once they have left their start."""
    torch.manual_seed(0)
    encoder = SamMed3DEncoder(32, 8, 48, 4, 4, out_channels=32, global_blocks=(1, 3), adapters=True)
    for block in encoder.blocks:
        torch.nn.init.normal_(block.adapter.up.weight, std=0.02)
    sum(m.sin().sum() for m in encoder(torch.randn(2, 1, 32, 32, 32))).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_training_from_scratch_fits_a_toy_task():
    """Random weights learn each patch's mean brightness in a few steps."""
    torch.manual_seed(0)
    encoder = SamMed3DEncoder(16, 4, 24, 2, 2, out_channels=4, global_blocks=(1,), window_size=6)
    x = torch.randn(4, 1, 16, 16, 16)
    target = torch.nn.functional.avg_pool3d(x, 4)
    optimizer = torch.optim.AdamW(encoder.parameters(), 2e-3)
    losses = []
    for _ in range(60):
        loss = (encoder(x)[-1][:, :1] - target * 8).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_autocast_stays_close_to_float32():
    encoder = sam_med3d()
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(x)[-1]
    assert_close(rounded.float(), encoder(x)[-1], 0.05)


def test_our_own_state_dict_loads_with_its_adapters(tmp_path):
    encoder = sam_med3d()
    torch.nn.init.normal_(encoder.blocks[0].adapter.up.weight)
    torch.save(encoder.state_dict(), tmp_path / "own.pth")
    again = sam_med3d(tmp_path / "own.pth")
    x = torch.randn(1, 1, 32, 32, 32)
    assert torch.equal(again(x)[-1], encoder(x)[-1])
    with pytest.raises(ValueError, match=r"32 of its tensors are unknown \(such as blocks.0.adapter."):
        sam_med3d(tmp_path / "own.pth", adapters=False)


def without(key):
    return lambda state: state.pop("image_encoder." + key)


def with_shape(key, *shape):
    return lambda state: state.update({"image_encoder." + key: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("patch_embed.proj.weight"), "no tensor patch_embed.proj.weight"),
        (without("pos_embed"), "no tensor 'pos_embed'"),
        (without("blocks.2.attn.rel_pos_d"), "no tensor 'blocks.2.attn.rel_pos_d'"),
        (without("blocks.3.mlp.lin2.bias"), r"1 of its tensors are missing \(such as blocks.3.mlp.lin2.bias\)"),
        (with_shape("extra", 2), r"1 of its tensors are unknown \(such as extra\)"),
        (with_shape("neck.2.weight", 32, 32, 1, 1, 1), r"of another shape \(such as neck.2.weight\)"),
        (with_shape("patch_embed.proj.weight", 48, 3, 8, 8, 8), r"shape \(such as patch_embed.proj.weight\)"),
        (with_shape("pos_embed", 1, 16, 48), "its tensors have other dimensions"),
        (with_shape("blocks.0.attn.rel_pos_d", 9, 12), r"grid of 4 .* position tables are \[7, 9, 27\] by 12"),
        (with_shape("patch_embed.proj.weight", 48, 3, 8, 8), r"2-D SAM \(patch kernel \(48, 3, 8, 8\)\)"),
    ],
)
def test_a_file_of_another_structure_is_refused(tmp_path, damage, message):
    checkpoint = load_checkpoint(WEIGHTS)
    damage(checkpoint["model_state_dict"])
    path = tmp_path / "damaged.pth"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=message) as error:
        sam_med3d(path)
    assert str(path) in str(error.value)
    assert "sam_med3d_turbo.pth" in str(error.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_size": 100}, "image_size 100 is not a multiple of the encoder's patch_size 16"),
        ({"num_heads": 7}, "embed_dim 768 is not a multiple of num_heads 7"),
        ({"global_blocks": (2, 12)}, r"global_blocks \[2, 12\] are not all among the encoder's 12 blocks"),
        ({"axis_order": "zxy"}, "axis_order is 'zxy'; it must be 'zyx'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SamMed3DEncoder(**({"image_size": 96} | kwargs))


@pytest.mark.parametrize("shape", [(1, 1, 30, 32, 32), (1, 2, 32, 32, 32), (1, 32, 32, 32)])
def test_input_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match="multiples of 8"):
        sam_med3d()(torch.zeros(shape))
