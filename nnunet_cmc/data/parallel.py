"""One function over many cases, in processes and with a progress bar as nnU-Net has them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from tqdm import tqdm


def run_parallel(
    function: Callable, arguments: Sequence[tuple], processes: int, description: str, show_progress: bool = True
) -> list[Any]:
    """``[function(*a) for a in arguments]`` in spawned processes; where one is enough, in this process.

    Raises:
        Exception: the first that ``function`` raises; calls that have not begun by then are dropped.
        RuntimeError: a process was killed from outside.
    """
    processes = min(processes, len(arguments))
    with tqdm(total=len(arguments), desc=description, disable=not show_progress) as bar:
        if processes <= 1:
            results = []
            for argument in arguments:
                results.append(function(*argument))
                bar.update()
            return results
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            futures = [pool.submit(function, *argument) for argument in arguments]
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    f"{description}: one of {processes} processes was killed, most likely for lack of memory: "
                    "use fewer processes."
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]
