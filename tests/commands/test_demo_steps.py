import re
import sys
import time

import numpy as np
import pytest

from nnunet_cmc.commands import demo_steps, subcommands
from nnunet_cmc.dataset_conversion import phantom
from nnunet_cmc.evaluation.metrics import compute_metrics
from nnunet_cmc.evaluation.results import CaseResult, Evaluation


def test_progress_is_shown_while_a_command_runs(tmp_path, monkeypatch):
    """Without PYTHONUNBUFFERED a Python command keeps its first 8 KiB to itself."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    shown = {}
    monkeypatch.setattr(subcommands, "script", lambda name: sys.executable)
    monkeypatch.setattr(demo_steps, "_progress", lambda line: shown.setdefault(line.strip(), time.monotonic()) and None)
    steps = demo_steps.Demo(tmp_path / "demo", seed=0)
    steps._command("wait", "Wait", "python", "-c", "import time; print('first'); time.sleep(1.5); print('last')")
    assert shown["last"] - shown["first"] > 1
    assert (tmp_path / "demo" / "logs" / "wait.txt").read_text().split() == ["first", "last"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("Labelling:  25%|██▌       | 2/8 [00:05<00:16,  2.7s/scan]\n", "Labelling: 2 of 8, 00:16 left"),
        ("Preprocessing cases:   0%|          | 0/4 [00:00<?, ?it/s]\n", "Preprocessing cases: 0 of 4"),
        ("Preprocessing cases: 100%|██████████| 4/4 [00:19<00:00,  4.63s/it]\n", "Preprocessing cases: 4 of 4"),
        (" 17%|█▋        | 1/6 [00:01<00:05,  1.18s/it]\n", None),  # windows of a case
        ("2026-11-29 12:52:19.755099: predicting subject_003 \n", "predicting subject_003"),
        ("Epoch 1 of 10, 3.0 s, 27 s left: loss 1.86\n", "Epoch 1 of 10, 3.0 s, 27 s left: loss 1.86"),
        ("12:52:19.755099: Predicting pseudo-labels of 8 scans\n", "Predicting pseudo-labels of 8 scans"),
        ("Case subject_003 is predicted from CT, MR.\n", "Case subject_003 is predicted from CT, MR."),
        ("perform_everything_on_device: False\n", None),
    ],
)
def test_what_is_shown_of_the_output(line, shown):
    assert demo_steps._progress(line) == shown


@pytest.mark.parametrize(("seconds", "states"), [(0, [0, 1, 2, 3]), (60, [0, 3])])
def test_a_state_of_a_bar_is_shown_once_and_not_too_often(tmp_path, monkeypatch, capsys, seconds, states):
    monkeypatch.setattr(demo_steps, "SECONDS", seconds)
    monkeypatch.setattr(subcommands, "script", lambda name: sys.executable)
    steps = demo_steps.Demo(tmp_path / "demo", seed=0)
    bar = "import sys, tqdm; [sys.stderr.flush() for _ in tqdm.tqdm(range(3), 'Labelling', mininterval=0)]"
    steps._command("label", "Label", "python", "-c", bar)
    lines = [
        line.split("] ")[1].split(",")[0] for line in capsys.readouterr().out.splitlines() if "Labelling: " in line
    ]
    assert lines == [f"Labelling: {i} of 3" for i in states]


def test_the_steps_are_numbered_and_the_end_names_the_model(tmp_path, monkeypatch, capsys):
    """With commands that do nothing, and predictions that are right."""
    mask = np.ones(1, bool)
    right = CaseResult("a", "CT+MR", "r", "p", dict.fromkeys(phantom.CLASSES, compute_metrics(mask, mask, [1.0])))
    evaluated = Evaluation(phantom.CLASSES, 2.0, [right], [])
    monkeypatch.setattr(demo_steps, "run_logged", lambda *_: None)
    monkeypatch.setattr(demo_steps.DatasetDescription, "read", lambda file: None)
    monkeypatch.setattr(demo_steps, "evaluate_folder", lambda *_, **__: evaluated)
    monkeypatch.setattr(demo_steps, "save_overview", lambda *_: None)
    monkeypatch.setattr(demo_steps, "SUBJECTS", {"labeled": 1, "unlabeled": 1, "test": 1})
    steps = demo_steps.Demo(tmp_path / "demo", seed=0)
    outcome = steps.run()
    assert outcome.numbers["mean_dice"] == {"both": 1, "CT": 1, "MR": 1}
    results = tmp_path / "demo" / "results" / "Dataset999_CMCDemo"
    assert outcome.written[0] == results / "CMCTrainer_demo__CMCNNUNetSmallPlans__3d_fullres"
    titles = re.findall(r"Step (\d+) of (\d+): (\w+)", capsys.readouterr().out)
    assert [title for _, _, title in titles][:5] == ["Generate", "Convert", "Split", "Plan", "Train"]
    assert [(int(step), int(of)) for step, of, _ in titles] == [(i + 1, len(titles)) for i in range(len(titles))]


def test_a_failing_command_is_named_with_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(subcommands, "script", lambda name: sys.executable)
    steps = demo_steps.Demo(tmp_path / "demo", seed=0)
    with pytest.raises(RuntimeError, match=r"(?s)exit code 1.*out of luck"):
        steps._command("fail", "Fail", "python", "-c", "raise SystemExit('out of luck')")


def test_it_keeps_to_its_folder_where_the_variables_are_set(tmp_path, nnunet_folders):
    steps = demo_steps.Demo(tmp_path / "demo", seed=0)
    own = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
    assert {name: steps.environment[name] for name in own} == {n: str(tmp_path / "demo" / f) for n, f in own.items()}
    assert steps.dataset == tmp_path / "demo" / "raw" / "Dataset999_CMCDemo"
    assert steps.dataset.parent.is_dir()
