"""Run compiled loops on the threads that torch computes with.

Threads of a second pool would compete with torch's, which wait actively for a while after each of
its operations. To import this module takes a torch whose threads are those of an OpenMP library as
GCC calls it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch


def run_on_threads(loop, task: np.ndarray, n_threads: int) -> None:
    """Call a loop once on each of several of torch's threads, the caller's among them.

    `loop` has the `address` of ``void loop(void *task)``; `task` is a record, of shape ().
    """
    _parallel(loop.address, task.ctypes.data, n_threads, 0)


def _find_parallel():
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # It is found in the OpenMP library that this one was linked with.
        parallel = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError) as error:
        raise ImportError(f"torch's threads are not OpenMP's: {error}") from error
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


_parallel = _find_parallel()
