import os
import signal
import subprocess
import sys

import pytest
from processes import kill_with_workers

from nnunet_cmc.utils.parallel import run_parallel


def test_one_process_is_this_one_and_keeps_the_order():
    pids = run_parallel(lambda i: (i, os.getpid()), [(2,), (0,), (1,)], 1, "test", show_progress=False)
    assert pids == [(i, os.getpid()) for i in (2, 0, 1)]
    assert run_parallel(print, [], 4, "test", show_progress=False) == []


def test_processes_keep_the_order_and_pass_on_errors(capsys):
    assert run_parallel(divmod, [(7, 2), (9, 4)], 2, "test") == [(3, 1), (2, 1)]
    assert "test: 100%" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        run_parallel(divmod, [(1, 1), (1, 0)], 2, "test", show_progress=False)


def test_a_killed_process_is_named():
    with pytest.raises(RuntimeError, match=r"one of 2 processes was killed, .* use fewer processes"):
        run_parallel(os._exit, [(1,), (1,)], 2, "test", show_progress=False)


SLEEPING = """
import time
from pathlib import Path
from nnunet_cmc.utils.parallel import run_parallel
def work(name):
    Path(__file__).with_name(name).touch()
    time.sleep(60)
if __name__ == "__main__":
    run_parallel(work, [("1",), ("2",)], 2, "test", show_progress=False)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    parent = subprocess.Popen([sys.executable, tmp_path / "sleeping.py"])
    kill_with_workers(parent.pid, 2, lambda: {"1", "2"} <= {file.name for file in tmp_path.iterdir()})
    assert parent.wait() == -signal.SIGKILL
