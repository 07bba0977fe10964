"""Peak memory and time of a command, or of each command that it runs one after the other (Linux).

    python benchmarks/command_memory.py nnunet_cmc demo --output FOLDER
    python benchmarks/command_memory.py python benchmarks/lgg_pipeline.py --data FOLDER --output FOLDER
    python benchmarks/command_memory.py nnunet_cmc evaluate -r FOLDER -p FOLDER

Memory is the resident memory of a command and all processes below it, read five times a second. What processes share,
such as torch's libraries, counts in each of them: the figure is an upper bound. Prints a table in Markdown.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.2  # seconds
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Usage:
    name: str
    started: float
    ended: float
    peak: int = 0  # bytes

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def gib(self) -> float:
        return self.peak / 2**30


def watch(command: list[str], **options) -> tuple[int, Usage, list[Usage]]:
    """Run ``command``; ``options`` are those of ``subprocess.Popen``.

    Returns:
        its exit code, its usage with all below it, and the usage of each process that it started itself.
    """
    with subprocess.Popen(command, **options) as process:
        whole = Usage(Path(command[0]).name, time.monotonic(), time.monotonic())
        parts: dict[int, Usage] = {}
        while process.poll() is None:
            children, resident = _processes()
            _note(whole, process.pid, children, resident)
            for child in children.get(process.pid, []):
                part = parts.setdefault(child, Usage("", time.monotonic(), time.monotonic()))
                part.name = _name(child) or part.name
                _note(part, child, children, resident)
            time.sleep(INTERVAL)
    return process.returncode, whole, list(parts.values())


def _note(usage: Usage, process: int, children: dict[int, list[int]], resident: dict[int, int]) -> None:
    usage.ended = time.monotonic()
    below = [process]
    for one in below:
        below += children.get(one, [])
    usage.peak = max(usage.peak, sum(resident.get(one, 0) for one in below))


def _processes() -> tuple[dict[int, list[int]], dict[int, int]]:
    """Return the children of every process of this machine, and its resident memory in bytes."""
    children: dict[int, list[int]] = {}
    resident = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            children.setdefault(int(fields[1]), []).append(int(folder.name))
            resident[int(folder.name)] = int(fields[21]) * PAGE
    return children, resident


def _name(process: int) -> str:
    """Return the command of a process, without its interpreter and folder; with the subcommand of one of ours."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return ""
    if Path(words[0]).name.startswith("python"):
        words = words[1:]
    name = Path(words[0]).name if words else ""
    return f"{name} {words[1]}" if name == "nnunet_cmc" and len(words) > 1 else name


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    code, whole, parts = watch(sys.argv[1:])
    rows = [part for part in parts if part.seconds > 1] or [whole]
    print("\n| command | peak (GiB) | time (s) |\n|---|---|---|")
    for usage in rows:
        print(f"| `{usage.name}` | {usage.gib:.2f} | {usage.seconds:.0f} |")
    sys.exit(code)


if __name__ == "__main__":
    main()
