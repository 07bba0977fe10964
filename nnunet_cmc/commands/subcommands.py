"""Commands of nnU-Net and of this package as subprocesses with a log."""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TAIL = 15  # lines of a log that an error shows
_ERROR = re.compile(r"(?P<kind>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))(?:: (?P<message>.*))?\s*")


class CommandError(RuntimeError):
    """A command that ended with an exit code other than 0.

    Attributes:
        refusal: the sentence of the ValueError that ended it, with its remedy; None after any other error.
    """

    def __init__(self, message: str, refusal: str | None = None):
        super().__init__(message)
        self.refusal = refusal


def run_logged(
    command: Sequence[str],
    log: str | Path,
    environment: Mapping[str, str],
    line: Callable[[str], None] = lambda text: None,
    started: Callable[[subprocess.Popen], None] = lambda process: None,
) -> None:
    """Run a command of this environment with output to ``log``. CommandError, with the end of the log, if it fails.

    It has its own process group: Ctrl-C at a terminal reaches it as SIGTERM, at which a training saves a checkpoint.

    Args:
        line: is called with each line of output as it comes.
        started: is called with the process.
    """
    last: deque[str] = deque(maxlen=TAIL)
    error = None
    with (
        Path(log).open("w", encoding="utf-8") as file,
        subprocess.Popen(
            [script(command[0]), *command[1:]],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            process_group=0,
        ) as process,
    ):
        try:
            started(process)
            assert process.stdout is not None
            for text in process.stdout:  # a progress bar ends each of its states with a carriage return: one line too
                file.write(text)
                last.append(text)
                error = _ERROR.fullmatch(text) or error
                line(text)
        except BaseException:
            terminate(process)
            assert process.stdout is not None
            file.writelines(process.stdout)  # without a reader, its next message would end it before it saves
            raise
    if process.returncode:
        tail = "".join(last)
        refused = process.returncode > 0 and error is not None and error["kind"] == "ValueError"  # and was not killed
        raise CommandError(
            f"{command[0]} failed with exit code {process.returncode}; the end of {log}:\n{tail}",
            error["message"] if error is not None and refused else None,
        )


def terminate(process: subprocess.Popen) -> None:
    """Send SIGTERM to a command of :func:`run_logged` and to its subprocesses, unless it has ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):  # it ends just now
            os.killpg(process.pid, signal.SIGTERM)


def script(name: str) -> str:
    """Find a command of this environment, which need not be on PATH. RuntimeError if it is not there."""
    found = Path(sysconfig.get_path("scripts")) / name
    path = str(found) if found.exists() else shutil.which(name)
    if path is None:
        raise RuntimeError(f"The command {name} is not installed beside this Python: install nnunetv2 and nnunet_cmc.")
    return path
