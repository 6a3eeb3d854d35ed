"""What the C library does with memory that was freed."""

from __future__ import annotations

import ctypes

# Of malloc.h: the size of the top of the heap above which it is given back, and how many blocks may
# be mapped one by one.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step.

    A step of training on a CPU frees and takes its large tensors again and again; where each comes
    from the system anew, the kernel's clearing of pages is up to a third of the step. False where
    the C library has no such settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, -1) and mallopt(_MMAP_MAX, 0))
