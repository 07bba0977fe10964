"""``nnUNet_compile=1`` compiles encoders and decoders, whatever the recipe makes of them."""

from dataclasses import replace

import pytest
import torch
from short_trainers import short

from nnunet_cmc.networks.changes import Evidential
from nnunet_cmc.trainers.frames import APART


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("CMCTrainer", 2),
        ("CMCTrainerPaper", 4),
        ("CPSTrainer", 4),
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
