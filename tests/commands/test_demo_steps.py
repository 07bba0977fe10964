import sys
import time

import pytest

from nnunet_cmc.commands import demo_steps, subcommands


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
