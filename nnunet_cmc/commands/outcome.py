"""Result of a command, its numbers and the files it wrote, printed alike by all commands or as JSON."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """Result of a command.

    Attributes:
        numbers: content of ``--json``, beside the key ``written``.
        written: files, or folders of files.
    """

    numbers: Mapping[str, Any]
    written: Sequence[Path] = ()


class PartialError(RuntimeError):
    """An error with an outcome, when some of several checks or runs failed."""

    def __init__(self, message: str, outcome: Outcome):
        super().__init__(message)
        self.outcome = outcome


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print the result as JSON on stdout, and everything else on stderr"
    )


def show(outcome: Outcome, as_json: bool) -> None:
    """Print the result as JSON, or else only the written files: commands print the rest themselves."""
    written = list(map(str, outcome.written))
    if as_json:
        from nnunet_cmc.utils.files import to_json

        print(to_json({**outcome.numbers, "written": written}, indent=2))
    elif written:
        print(f"\n{_written(outcome.written)}")


def _written(files: Sequence[Path]) -> str:
    """Format the written files, of several in one folder by their names in it."""
    shared = set.intersection(*({*file.parents} for file in files)) - {Path(), Path(files[0].anchor)}
    if len(files) == 1 or not shared:
        return f"Written: {', '.join(map(str, files))}"
    folder = max(shared, key=lambda path: len(path.parts))
    return f"Written to {folder}: {', '.join(str(file.relative_to(folder)) for file in files)}"


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Redirect stdout of this process and of its subprocesses to stderr."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
