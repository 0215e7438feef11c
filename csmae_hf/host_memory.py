"""How this process treats memory that its tensors gave back."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of glibc's `mallopt`, which no header needs to change."""


def keep_freed_memory() -> bool:
    """Keep memory that tensors gave back for the tensors to come, instead of handing it to the system each time.

    glibc gives large blocks back at once and asks for new ones, which the system clears page by page. A training step on a CPU frees
    and asks for gigabytes, so much of its time may go there (docs/performance.md). Afterwards a process keeps as much memory as it
    once needed, as torch does on a GPU. It counts for the whole process and for those that it forks, so a library must not do it
    unasked: the scripts and commands of this package do where they compute on a CPU.

    Returns:
        Whether it was done; only glibc, on Linux, can do it.

    Example:
        >>> kept = keep_freed_memory()  # before the first batch
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # no block of its own for what is large, and no trimming of what is free at the end
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1))
