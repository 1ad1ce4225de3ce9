"""Run compiled functions on the threads that torch computes with.

Threads of a second pool would compete with torch's, which wait actively for a while after each of
its operations.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch


def thread_runner():
    """Return the function that runs another one on several of torch's threads.

    Returns
    -------
    run : function
        ``run(address, argument, n_threads, 0)`` calls the C function ``void f(void *argument)``
        at the address once on each thread, the caller's among them, and waits for them.

    Raises
    ------
    ImportError
        If torch computes with other threads than those of an OpenMP library as GCC calls it.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # It is found in the OpenMP library that this one was linked with.
        run = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError) as error:
        raise ImportError(f"torch's threads are not OpenMP's: {error}") from error
    run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    run.restype = None
    return run
