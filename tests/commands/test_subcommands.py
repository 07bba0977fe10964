import os
import signal
import sys
import time

import pytest

from nnunet_cmc.commands import subcommands
from nnunet_cmc.commands.subcommands import CommandError, run_logged


@pytest.fixture
def python(tmp_path, monkeypatch):
    """``python(code)`` runs it as a command whose log is ``tmp_path / "log.txt"``."""
    monkeypatch.setattr(subcommands, "script", lambda name: sys.executable)
    return lambda code, **more: run_logged(["python", "-c", code], tmp_path / "log.txt", os.environ, **more)


def test_output_goes_to_the_log_and_to_the_listener(python, tmp_path):
    lines, processes = [], []
    python("import sys; print('über'); print('err', file=sys.stderr)", line=lines.append, started=processes.append)
    assert sorted(lines) == ["err\n", "über\n"]
    assert sorted((tmp_path / "log.txt").read_text("utf-8").splitlines()) == ["err", "über"]
    assert processes[0].returncode == 0


@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("raise ValueError('Case a: no label: add it.')", "Case a: no label: add it."),
        ("raise RuntimeError('CUDA out of memory')", None),
        ("raise KeyError('spacing')", None),
        ("import sys; print('ValueError: of the past'); sys.exit(3)", "of the past"),
        ("try: int('x')\nexcept ValueError as error: raise RuntimeError('a worker died') from error", None),
        ("import os; os.kill(os.getpid(), 9)", None),
        ("import os; print('ValueError: of the past', flush=True); os.kill(os.getpid(), 9)", None),
    ],
)
def test_only_the_last_error_of_a_user_is_a_refusal(python, code, refusal):
    with pytest.raises(CommandError, match=r"python failed with exit code -?\d+; the end of .*log.txt:") as caught:
        python(code)
    assert caught.value.refusal == refusal


def test_what_interrupts_us_reaches_a_command_and_its_children_as_sigterm_alone(python, tmp_path):
    """A terminal sends SIGINT to all processes of a group, at which a training would end without saving."""

    def started(process):
        assert os.getpgid(process.pid) == process.pid != os.getpgrp()

    def interrupt(line):
        raise KeyboardInterrupt

    child = "import time; print('child', flush=True); time.sleep(20)"
    parent = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, lambda *_: None)
child = subprocess.Popen([sys.executable, "-c", {child!r}])
open({str(tmp_path / "end")!r}, "w").write(str(child.wait()))
"""
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        python(parent, line=interrupt, started=started)
    assert time.monotonic() - begin < 15
    assert (tmp_path / "end").read_text() == str(-signal.SIGTERM)


def test_a_command_that_is_not_installed():
    with pytest.raises(RuntimeError, match="The command nnUNetv3_train is not installed beside this Python"):
        subcommands.script("nnUNetv3_train")
