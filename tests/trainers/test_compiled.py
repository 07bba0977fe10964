"""``nnUNet_compile=1`` compiles encoders and decoders, whatever the recipe makes of them."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from short_trainers import short
from torch._dynamo.backends.debugging import aot_eager

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import Evidential
from nnunet_cmc.trainers.base_recipes import APART


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    """Torch counts what was compiled of a function, of whatever network, and gives up after eight times."""
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("CMCTrainer_contrastTeacher", 4),  # and the teacher's
        ("CMCTrainer", 4),  # and the average's
        pytest.param("CMCTrainer_supervised", 2, marks=pytest.mark.slow),
        ("CMCTrainerPaper", 4),
        pytest.param("CPSTrainer", 4, marks=pytest.mark.slow),
        pytest.param(replace(APART, network=(*APART.network, Evidential(2))), 4, id="evidential-4"),
    ],
)
def test_compiled_parts_have_whole_graphs_and_compute_the_same(registered, monkeypatch, name, parts):
    """Without a compiler behind it, which takes minutes; encoders and decoders are the hot path."""
    compile_ = torch.nn.Module.compile
    compiled = []

    def without_backend(self, **arguments):
        assert arguments.pop("fullgraph"), "a break in the graph is an error"
        compiled.append(self)
        compile_(self, fullgraph=True, backend="aot_eager", **arguments)

    def run():
        # but for biases: of one before a norm the gradient is rounding alone, which Adam makes steps of
        trainer = registered.trainer(short(name, epochs=1))
        trainer.run_training()
        return {key: value.clone() for key, value in trainer.network.state_dict().items() if not key.endswith("bias")}

    plain = run()
    monkeypatch.setattr(torch.nn.Module, "compile", without_backend)
    monkeypatch.setenv("nnUNet_compile", "1")
    found = run()
    assert len(compiled) == parts
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


SHARED = {
    "unet": ({"features_per_stage": [4, 8], "blocks_per_stage": [1, 1]}, None),
    "sam_med3d": (
        {
            "image_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "global_blocks": [1],
            "window_size": 3, "out_channels": 8, "axis_order": "zyx", "adapters": True, "skip_channels": [4, 8],
        },
        [2, 4, 8],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("encoder", "separate"),
    [("unet", False), ("unet", True), pytest.param("sam_med3d", False, marks=pytest.mark.slow)],
)
def test_no_part_is_compiled_anew_for_other_numbers_of_rows_or_other_modalities(encoder, separate):
    """And what is computed is the same but for rounding: logits, and gradients of what there is."""
    torch.manual_seed(0)
    kwargs, widths = SHARED[encoder]
    network = CMCNet(2, 2, [16] * 3, encoder, kwargs, widths)
    if separate:
        network.separate()
    plain = deepcopy(network)
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    network.compile_parts(backend=backend)
    x = torch.randn(5, 2, 16, 16, 16)
    both, of_single = torch.ones(5, 2, 2, dtype=torch.bool), torch.eye(2, dtype=torch.bool).repeat(5, 1, 1)
    one, other = x.clone(), x.clone()
    one[:, 1] = other[:2, 0] = other[2:, 1] = 0
    batches = [(x[:3], both[:3]), (x, of_single), (one[:2], both[:2]), (other, both), (x[:4], both[:4])]
    single_rows = [(x[:1], both[:1]), (one[:1], both[:1])]
    for data, fusion in (*batches, *single_rows):
        results = []
        for each in (network, plain):
            each.zero_grad()
            output = each(data, fusion)
            (output.logits.square().mean() + output.features.square().mean()).backward()
            results.append([output.logits, {n: p.grad for n, p in each.named_parameters() if p.grad is not None}])
        torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)
        assert len(graphs) == 2, "encoder and decoder, once each; separate ones share a graph"
    for each in (network, plain):
        each.eval()
    with torch.inference_mode():
        for data in (x[:2], one[:2], x[:1], one[:1], other[:3]):
            torch.testing.assert_close(network(data), plain(data), rtol=1e-3, atol=1e-5)
            assert len(graphs) == 4, "and once each for prediction"
