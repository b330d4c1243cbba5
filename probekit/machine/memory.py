"""How the C library hands out memory."""

from __future__ import annotations

import contextlib
import ctypes

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of glibc's malloc.h
_LARGE = 256 * 1024  # bytes


def give_back() -> None:
    """From here on large arrays go back to the kernel when nobody needs them, and all threads share one heap.

    glibc keeps what was freed, more of it the larger it was, and a heap for each thread. A run makes arrays of
    thousands of rows in each interval, in several threads: it grew for minutes, to twice what it needs.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        adjust = ctypes.CDLL(None).mallopt
        adjust(_MMAP_THRESHOLD, _LARGE)
        adjust(_ARENA_MAX, 1)
