"""Processes: a pool that runs a function over many cases with nnU-Net's progress bar, and how processes end."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache, partial
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

TERMINATED = 128 + signal.SIGTERM  # exit code, as a shell reports it
_SET_DEATH_SIGNAL, _GET_DEATH_SIGNAL = 1, 2  # of prctl(2)


def run_parallel(
    function: Callable, arguments: Sequence[tuple], processes: int, description: str, show_progress: bool = True
) -> list[Any]:
    """Compute ``[function(*a) for a in arguments]`` in spawned processes; in this one where one suffices.

    Raises:
        Exception: the first that ``function`` raises; calls that have not begun by then are dropped.
        RuntimeError: a process was killed from outside.
    """
    from tqdm import tqdm  # not with this module, whose pool nnunet_cmc doctor uses where packages are missing

    processes = min(processes, len(arguments))
    progress = partial(tqdm, total=len(arguments), desc=description, disable=not show_progress)
    if processes <= 1:
        return [function(*argument) for argument in progress(arguments)]
    with process_pool(processes) as pool:
        futures = [pool.submit(function, *argument) for argument in arguments]
        try:
            for future in progress(as_completed(futures)):
                future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"{description}: one of {processes} processes was killed, most likely out of memory: "
                "use fewer processes."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


def finish_loaders(*loaders: Any) -> None:
    """End the processes of nnU-Net's data loaders now; ended at exit, they would raise an error in a thread."""
    from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

    for loader in loaders:
        if isinstance(loader, NonDetMultiThreadedAugmenter):
            loader._finish()


def process_pool(processes: int) -> ProcessPoolExecutor:
    """Make a pool of spawned processes, which raises, and does not hang, when one of them is killed."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=end_with_parent)


def terminate_with_parent() -> None:
    """Let a process of ``torch.multiprocessing.spawn`` get SIGTERM when its parent dies.

    Torch asks Linux for SIGINT (a KeyboardInterrupt, at which nothing is saved), for the thread that calls this.
    """
    if sys.platform == "linux":
        asked_for, linux = ctypes.c_int(), ctypes.CDLL(None)
        linux.prctl(_GET_DEATH_SIGNAL, ctypes.byref(asked_for))
        if asked_for.value == signal.SIGINT:
            linux.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


def end_with_parent() -> None:
    """Let this process, a worker, end with the one that started it, which kill -9 leaves no time to end its workers."""
    _end_with_parent(os.getpid())


@cache
def _end_with_parent(pid: int) -> None:  # once a process: a fork knows what its parent has cached, but has no thread
    if (parent := parent_process()) is not None:
        Thread(target=_leave_after, args=(parent,), daemon=True).start()


def _leave_after(parent) -> None:
    parent.join()
    os._exit(1)
