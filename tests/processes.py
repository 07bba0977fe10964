"""Processes that tests wait for and kill (Linux)."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def wait_for(condition, seconds: float = 300) -> None:
    """Until ``condition()``; an error if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def children(process: int) -> list[int]:
    """Processes that were started by this one."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if (_state(pid) or "Z 0").split()[1] == str(process)]


def kill_with_workers(process: int, workers: int, ready=lambda: True) -> None:
    """kill -9 it once it has so many workers and ``ready()``: they must end as well, and at once."""
    wait_for(lambda: len(children(process)) >= workers and ready(), 100)
    found = children(process)
    os.kill(process, signal.SIGKILL)
    try:
        wait_for(lambda: not any(map(_runs, found)), 10)
    finally:
        for pid in filter(_runs, found):
            os.kill(pid, signal.SIGKILL)


def _runs(pid: int) -> bool:
    return (_state(pid) or "Z")[0] != "Z"


def _state(pid: int) -> str | None:
    """ "STATE PARENT ...", or None where there is no such process."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    return None
