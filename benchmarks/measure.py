"""What the benchmarks share: the machine's ceilings, counts, times of one run side by side, memory, tables.

On a CPU a time is the processor's, over all threads: other work on the machine does not stretch it.
"""

import argparse
import ctypes
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch reads it: a waiting thread takes no time
os.environ.setdefault("nnUNet_def_n_proc", "1")  # before nnU-Net reads it: all in this process

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Seconds = list[float]


def parser(description: str | None, repeats: int = 3) -> argparse.ArgumentParser:
    """Make a parser with what every benchmark takes; nnU-Net augments in this process, unless the variable is set."""
    os.environ.setdefault("nnUNet_n_proc_DA", "0")
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--threads", type=int, default=1, help="of torch on the CPU")
    made.add_argument("--repeats", type=int, default=repeats)
    made.add_argument("--seed", type=int, default=0)
    return made


def begin(args: argparse.Namespace) -> torch.device:
    """Set threads and seed, print what the numbers depend on, and return the device."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    processor = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    versions = f"torch {torch.__version__}, nnunetv2 {version('nnunetv2')}, Python {platform.python_version()}"
    print(
        f"{processor}, {os.cpu_count()} cores, {args.threads} thread(s); seed {args.seed}, median (lowest to highest) "
        f"of {args.repeats}; {versions}"
    )
    return device


# ---- time


def timed(function: Callable[[], object], device: torch.device | None = None) -> tuple[float, object]:
    """Return the seconds of a call, on a GPU until it is done, and its result."""
    if device is None or device.type == "cpu":
        started = time.process_time()
        result = function()
        return time.process_time() - started, result
    torch.cuda.synchronize()
    started = time.perf_counter()
    result = function()
    torch.cuda.synchronize()
    return time.perf_counter() - started, result


def interleaved(
    functions: dict[str, Callable[[], object]], repeats: int, device: torch.device | None = None
) -> dict[str, Seconds]:
    """Return the seconds of every function, called in turns, after one call of each that does not count."""
    seconds: dict[str, Seconds] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            spent, _ = timed(function, device)
            if turn:
                seconds[name].append(spent)
    return seconds


def spread(values: Seconds, scale: float = 1.0, digits: int = 3) -> str:
    """Format the median and the range: 2 (1 to 3)."""
    middle, low, high = (f"{scale * v:.{digits}g}" for v in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({low} to {high})"


def ratio(values: Seconds, others: Seconds) -> Seconds:
    """Divide the times of each turn."""
    return [a / b for a, b in zip(values, others, strict=True)]


# ---- counts


class Count(NamedTuple):
    """Floating-point operations, and bytes read and written, of each operator that does work.

    waits: operators whose result the host has to know, for which it waits until a GPU has come to them.
    """

    operators: tuple[tuple[float, float], ...]
    waits: int

    @property
    def flops(self) -> float:
        return sum(flops for flops, _ in self.operators)

    @property
    def bytes(self) -> float:
        return sum(moved for _, moved in self.operators)


OVERWRITE = {torch.ops.aten.copy_, torch.ops.aten.fill_, torch.ops.aten.zero_}  # without reading what was there
NO_WORK = {torch.ops.aten._unsafe_view, torch.ops.aten.promote_types}
ALLOCATE = {torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.new_empty, torch.ops.aten.new_empty_strided,
            torch.ops.aten.empty_strided}  # fmt: skip


class Counting(TorchDispatchMode):
    """Notes what operators do; a view or memory that is only reserved costs nothing."""

    def __init__(self):
        super().__init__()
        self.operators: list[tuple[float, float]] = []
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.waits += _waits(func, args)
        operator = func.overloadpacket
        if not func.is_view and func.namespace != "prim" and operator not in ALLOCATE | NO_WORK:
            read = args[1:] if operator in OVERWRITE else args
            tensors = [leaf for leaf in tree_leaves((read, kwargs, result)) if isinstance(leaf, Tensor)]
            moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            flops = flop_registry[operator](*args, **kwargs, out_val=result) if operator in flop_registry else 0
            self.operators.append((flops, moved))
        return result


def _waits(func, args) -> bool:
    if func is torch.ops.aten.index.Tensor:  # by numbers it takes as many rows as there are numbers
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return bool({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags))


def count(function: Callable[[], object]) -> Count:
    """Count what one call does, backward passes included."""
    with Counting() as counting:
        function()
    return Count(tuple(counting.operators), counting.waits)


class Ceilings(NamedTuple):
    """What the machine does at best, per second, in the precision of training."""

    flops: float
    bytes: float

    def seconds(self, count: Count) -> float:
        """Compute the lower bound of the time for the counted work, unless operators are fused.

        They run one after another, each as long as its operations or its traffic take at least.
        """
        return sum(max(flops / self.flops, moved / self.bytes) for flops, moved in count.operators)


def ceilings(device: torch.device) -> Ceilings:
    """Time products of square matrices (float32, on a GPU bfloat16) and copies of 256 MB (on a GPU 1 GB): the best."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (2048, torch.float32)
    a = torch.randn(side, side, device=device, dtype=dtype)
    source = torch.zeros(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(source)
    steps = {"product": lambda: a @ a, "copy": lambda: target.copy_(source)}
    best = {name: min(seconds) for name, seconds in interleaved(steps, 5, device).items()}
    return Ceilings(2 * side**3 / best["product"], 2 * source.nbytes / best["copy"])


def busy(function: Callable[[], object]) -> float:
    """Return the share of a call's time in which a GPU computes; in the rest it waits for the host."""
    function()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        seconds, _ = timed(function, torch.device("cuda"))
    return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6 / seconds


# ---- memory


def peak_bytes(function: Callable[[], object], device: torch.device) -> float:
    """Measure how far one call raises the memory, on a CPU that of this process; NaN where unknown."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system, so that it is not overlooked
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the high-water mark starts anew
    except (OSError, AttributeError):
        return float("nan")
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(name + ":"))


# ---- what is printed


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what nnU-Net prints meanwhile."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table, each row as soon as it is there."""
    print("\n| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
