"""Every benchmark runs on tiny shapes and prints its table: what they measure there means nothing."""

import ast
import importlib
import re
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from plans import NETWORK
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from nnunet_cmc.networks import CMCNet

FOLDER = Path(__file__).parents[2] / "benchmarks"
SHARED = {"measure.py", "planned.py", "workspace.py"}  # no scripts
QUICK = {
    "counts": ["--planners", "CMCPlannerTiny", "CMCPlannerNNUNet"],
    "public_model": ["--side", "32", "--small", "--repeats", "1"],
    "train_step": [
        *("--planners", "CMCPlannerTiny", "CMCPlannerNNUNet", "--trainer", "CMCTrainer_contrastTeacher"),
        *("--side", "16", "--repeats", "1", "--against", "nnunet"),
    ],
    "loading": ["--side", "16", "--batch", "1", "--draws", "1", "--repeats", "1", "--workers", "1"],
    "prediction": ["--planner", "CMCPlannerTiny", "--side", "32", "--windows", "2", "--repeats", "1"],
    "planned_memory": ["--memory", "8", "--classes", "2"],
    "messages": ["--ranks", "1", "--pairs", "2", "--classes", "3", "--sides", "16"],
    "preprocessing": ["--spacing", "6", "--repeats", "1", "--samples", "1e5"],
    "stacked_encoders": ["--side", "16", "--batch", "1", "--repeats", "1"],
    "shared_network": ["--side", "16", "--rows", "2", "--repeats", "1"],
    "scaling": ["--side", "32", "--repeats", "1", "--only", "patch", "cases", "--output", "figure.svg"],
}
ROWS = {
    "counts": [
        "| CMCPlannerTiny, 48^3 | decoders |",
        "| CMCPlannerNNUNet, 96^3 | encoders |",
        "| PlainConvUNet, 96^3 | all |",
    ],
    "public_model": ["| CMCPlanner |"],
    "train_step": [
        "| load |",
        "| teacher |",
        "| encoders |",
        "| pseudo loss |",
        "| CSC and CAC |",
        "| our whole step |",
    ],
    "loading": ["| registered | pairs |", "| unpaired | pairs, two more channels absent |", "| unpaired | 1 |"],
    "prediction": ["| not mirrored |", "| mirrored |", "| both |", "| nnU-Net, a window at a time |"],
    "messages": ["| supervised | 16^3 |", "| cac | 16^3 |"],
    "planned_memory": ["| abdomen, CT and MR | 8 |", "| brain, MR | 8 |"],
    "preprocessing": ["| intensity statistics |", "| CMCPreprocessor |"],
    "stacked_encoders": ["| stacked |"],
    "shared_network": ["| unpaired scans |", "| both modalities, fused |"],
    "scaling": ["| patch | 48 |", "| cases | 1000 |"],
}


@pytest.mark.parametrize(
    "file", sorted(set(FOLDER.glob("*.py")) - {FOLDER / name for name in SHARED}), ids=lambda f: f.name
)
def test_every_script_says_how_it_is_run(file):
    assert f"python benchmarks/{file.name}" in ast.get_docstring(ast.parse(file.read_text()))


@pytest.mark.parametrize("name", QUICK)
def test_tiny_run(name, tmp_path, monkeypatch, capsys):
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "NNUNET_CMC_SEED", "nnUNet_n_proc_DA"):
        monkeypatch.setenv(variable, "0")  # so that what the scripts set is forgotten after the test
    monkeypatch.chdir(tmp_path)
    script = importlib.import_module(name)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *QUICK[name]])
    script.main()
    printed = capsys.readouterr().out
    assert [row for row in ROWS[name] if row not in printed] == [], printed
    assert name != "scaling" or Path("figure.svg").stat().st_size > 1000


@pytest.mark.parametrize("fake", [False, True])
def test_what_operators_read_and_write(fake):
    """In tensors of 4000 bytes, read and written."""
    count = importlib.import_module("measure").count
    with FakeTensorMode() if fake else nullcontext():
        x, y = torch.ones(1000), torch.ones(1000)
        for function, tensors in (
            (lambda: x + y, 3),
            (lambda: x.clone(), 2),
            (lambda: y.copy_(x), 2),
            (lambda: x.relu_(), 2),
            (lambda: x.zero_(), 1),
            (lambda: torch.empty_like(x), 0),
            (lambda: x.view(10, 100).device, 0),
        ):
            assert count(function).bytes == 4000 * tensors


def test_operations_are_those_of_pytorch_s_counter():
    """And the lower bound is each operator's, not that of all together."""
    measure = importlib.import_module("measure")
    torch.manual_seed(0)
    network, x = CMCNet(2, 3, **NETWORK), torch.randn(2, 2, 16, 16, 16)

    def step():
        network(x).sum().backward()

    counted = measure.count(step)
    with FlopCounterMode(display=False) as flops:
        step()
    assert counted.flops == flops.get_total_flops()
    fast, slow = measure.Ceilings(1e12, 1e3), measure.Ceilings(1e3, 1e12)
    assert fast.seconds(counted) == pytest.approx(counted.bytes / 1e3)
    assert slow.seconds(counted) == pytest.approx(counted.flops / 1e3, rel=1e-3)
    even = measure.Ceilings(counted.flops, counted.bytes)
    assert 1 < even.seconds(counted) < 2


@pytest.mark.parametrize(
    ("losses", "unchanged", "sentence"),
    [
        ([0.6, -0.1], True, None),
        ([0.6, 0.6], True, "The training loss does not fall: 0.6 in the first epoch, 0.6 in the last."),
        ([0.6, 0.71], True, "The training loss does not fall: 0.6 in the first epoch, 0.71 in the last."),
        ([0.6, float("nan")], True, "The training loss does not fall: 0.6 in the first epoch, nan in the last."),
        ([0.6, -0.1], False, "The hidden labels changed the weights."),
    ],
)
def test_the_pipeline_on_real_scans_fails_if_it_does_not_learn(losses, unchanged, sentence):
    require = importlib.import_module("lgg_pipeline").require
    report = {"training_loss_first_and_last_epoch": losses, "weights_unchanged_by_garbage": unchanged}
    if sentence is None:
        require(report)
    else:
        with pytest.raises(SystemExit, match=re.escape(sentence)):
            require(report)
