"""Processes that tests start, wait for and kill (Linux)."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_cmc.commands import comparison_runs
from nnunet_cmc.commands.subcommands import run_logged

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "nnunet_cmc.inference.predictor",
        "nnunet_cmc.commands.evaluate",
        "nnunet_cmc.trainers.cmc_trainer",
        "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
        "nnunetv2.run.run_training",
    ]
)
COMMAND = """
import os, sys
from importlib.metadata import entry_points
with open(output, "wb") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
for function in prepare:
    function()
sys.argv = [name, *arguments]
(command,) = entry_points(group="console_scripts", name=name)
sys.exit(command.load()())
"""


def clean_process(source: str, environment: dict[str, str] = os.environ, **values) -> multiprocessing.Process:
    """A process that executes ``source``, in which ``values`` (which can be pickled) have their names, has begun.

    It is no fork of this process, whose libraries have threads: for a lock of one of them it might wait for ever.
    """
    process = FORKSERVER.Process(target=_execute, args=(source, values, dict(environment)))
    process.start()
    return process


def finish_command(
    name: str, arguments: list[str], environment: dict[str, str], output: Path, *prepare: Callable[[], None]
) -> int:
    """Run a command that a package installs, all of whose output goes to a file; return its exit code.

    Its process has nnU-Net imported when it starts, which takes a new one longer than most tests, and so its pools are
    threads. (The demo's commands are processes with pools as they are.) ``prepare`` are called in it before. A
    TimeoutError after 500 s.
    """
    values = {"name": name, "arguments": arguments, "output": str(output), "prepare": (use_threads, *prepare)}
    process = clean_process(COMMAND, environment, **values)
    process.join(500)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{name} runs for more than 500 s: {output.read_text()[-3000:]}")
    return process.exitcode


def run_forked(command: list[str], log: Path, environment: dict[str, str], *callbacks) -> None:
    """Run a command as :func:`run_logged` does, but those of nnU-Net as :func:`finish_command`."""
    if command[0].startswith("nnUNetv2_"):
        output = Path(f"{log}.output")
        code = finish_command(command[0], command[1:], environment, output)
        command = ["sh", "-c", 'cat "$0"; exit "$1"', str(output), str(code)]
    run_logged(command, log, environment, *callbacks)


def fork_commands() -> None:
    """Let ``nnunet_cmc compare`` run nnU-Net's commands by :func:`run_forked`."""
    comparison_runs.run_logged = run_forked


def execute_rank(rank: int, source: str, values: dict) -> None:
    """For ``torch.multiprocessing.spawn``: execute ``source``, in which ``rank`` and ``values`` have their names."""
    exec(source, {"rank": rank, **values})


def _execute(source: str, values: dict, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    exec(source, values)


def use_threads(patch: pytest.MonkeyPatch | None = None) -> None:
    """nnU-Net's pools become threads, for good without a ``patch``: a process takes seconds to import torch."""
    patch, get_context = patch or pytest.MonkeyPatch(), multiprocessing.get_context

    def with_threads(kind: str | None = None) -> SimpleNamespace:
        context = get_context(kind)
        others = {name: getattr(context, name) for name in dir(context) if not name.startswith("_")}
        return SimpleNamespace(**others | {"Pool": ThreadPool})

    patch.setattr("multiprocessing.get_context", with_threads)
    patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)


def wait_for(condition, seconds: float = 300) -> None:
    """Until ``condition()``; an error if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(process: int) -> list[int]:
    """Processes that were started by this one."""
    if not Path("/proc/self").exists():
        pytest.skip("this system does not list processes in /proc")
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if (_state(pid) or "Z 0").split()[1] == str(process)]


def kill_with_workers(process: int, workers: int, ready=lambda: True, may_stay: int = 0) -> None:
    """kill -9 it once it has so many workers and ``ready()``: all but ``may_stay`` must end as well, and soon."""
    wait_for(lambda: len(children(process)) >= workers and ready(), 100)
    found = children(process)
    os.kill(process, signal.SIGKILL)
    try:
        wait_for(lambda: sum(map(runs, found)) <= may_stay, 30)
    finally:
        for pid in filter(runs, found):
            os.kill(pid, signal.SIGKILL)


def runs(pid: int) -> bool:
    return (_state(pid) or "Z")[0] != "Z"


def _state(pid: int) -> str | None:
    """ "STATE PARENT ...", or None where there is no such process."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    return None
