"""On a GPU, where there is one: the same numbers as on the CPU, in bfloat16, and nothing that only a CPU can do."""

import numpy as np
import pytest
import torch
from short_trainers import TAUGHT, short

from nnunet_cmc.networks import CMCNet
from nnunet_cmc.planners.cmc_planner import CMCPlanner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU.")


@pytest.mark.parametrize("planner", [CMCPlanner])
@pytest.mark.parametrize("present", [(0, 1), (1,)])
def test_a_full_size_network_predicts_what_it_does_on_the_cpu(planner, present):
    torch.manual_seed(0)
    network = CMCNet(2, 3, [96] * 3, planner.encoder, planner.encoder_kwargs, list(planner.decoder_channels)).eval()
    x = torch.zeros(1, 2, 96, 96, 96)
    x[:, list(present)] = torch.randn(1, len(present), 96, 96, 96)
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        expected = network(x).softmax(1)
        network.cuda()
        single = network(x.cuda()).softmax(1).cpu()
        with torch.autocast("cuda", torch.bfloat16):
            half = network(x.cuda()).float().softmax(1).cpu()
    assert float((single - expected).norm() / expected.norm()) < 1e-4
    assert float((half - expected).norm() / expected.norm()) < 3e-2


@pytest.mark.parametrize("recipe", ["CMCTrainer", "CMCTrainerPaper", "CMCTrainerAsPrinted", TAUGHT])
@pytest.mark.parametrize("scans", ["registered", "unpaired"])
def test_it_trains_in_bfloat16(request, recipe, scans):
    trainer = request.getfixturevalue(scans).trainer(short(recipe, iterations=3), device="cuda")
    trainer.run_training()
    assert trainer.half_precision is torch.bfloat16
    log = trainer.logger.get_checkpoint()
    assert np.isfinite(log["train_losses"]).all()
    for part in trainer.bare_network.parts(("CT", "MR")):
        assert log[f"gradient/supervised/{part}"][-1] > 0
        assert not part.startswith("encoder") or log[f"gradient/csc/{part}"][-1] > 0
        assert "cac" not in trainer.terms or log[f"gradient/cac/{part}"][-1] > 0


def test_compiled_parts_compute_the_same(registered, monkeypatch):
    plain = registered.trainer(device="cuda")
    plain.initialize()
    monkeypatch.setenv("nnUNet_compile", "1")
    compiled = registered.trainer(device="cuda")
    compiled.initialize()
    x = torch.randn(2, 2, 16, 16, 16, device="cuda")
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        torch.testing.assert_close(compiled.network(x), plain.network(x), atol=1e-3, rtol=1e-3)
