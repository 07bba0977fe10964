"""How the memory of freed tensors is kept on a CPU."""

import ctypes
import functools
import platform

# of glibc's mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc keep up to 2 GB of freed memory for the next tensors; with another C library do nothing.

    By default it returns blocks above 32 MB to the system, which clears their pages anew for the next operator: up to a
    tenth of a training step on a CPU, and a fifth of a prediction (benchmarks/NOTES.md, "Memory of a CPU training").
    """
    if platform.libc_ver()[0] == "glibc":
        allocator = ctypes.CDLL(None)
        allocator.mallopt(M_MMAP_THRESHOLD, 2**30)
        allocator.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
