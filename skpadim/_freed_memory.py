"""Keeping freed memory at hand, in workers whose allocator was told to give it back at once.

Dask starts its workers with ``MALLOC_TRIM_THRESHOLD_=65536``, so that the system sees what is free.
Then glibc asks the system anew for every feature map of the network, and the system clears the
pages first: embedding takes nearly twice as long.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import contextmanager
from functools import lru_cache

# What glibc itself goes up to when it may adapt: blocks of this size come from the system, and
# free memory of twice as much at the end of the heap returns to it.
_MMAP_THRESHOLD = 32 * 2**20
_TRIM_THRESHOLD = 2 * _MMAP_THRESHOLD
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_DEFAULT_MMAP_THRESHOLD = 128 * 2**10

_tasks = 0
_counting = threading.Lock()


@contextmanager
def freed_memory_kept():
    """Within the block glibc keeps freed memory, if the environment has told it not to.

    Afterwards what is free goes back to the system, and the environment's setting holds again.
    Elsewhere than under glibc nothing happens.
    """
    global _tasks
    trim = _setting("MALLOC_TRIM_THRESHOLD_", _TRIM_THRESHOLD)
    libc = _glibc() if trim < _TRIM_THRESHOLD else None
    if libc is None:
        yield
        return
    with _counting:
        _tasks += 1
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    try:
        yield
    finally:
        with _counting:
            _tasks -= 1
            if _tasks == 0:  # no other thread of the worker has a task
                mmap = _setting("MALLOC_MMAP_THRESHOLD_", _DEFAULT_MMAP_THRESHOLD)
                libc.mallopt(_M_MMAP_THRESHOLD, mmap)
                libc.mallopt(_M_TRIM_THRESHOLD, trim)
                libc.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc():
    """The C library of this process if it is glibc, else None."""
    try:
        libc = ctypes.CDLL(None)
        return libc if libc.gnu_get_libc_version and libc.mallopt and libc.malloc_trim else None
    except (AttributeError, OSError, TypeError):  # TypeError on Windows
        return None


def _setting(name, default):
    """A number of bytes from the environment."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else default
