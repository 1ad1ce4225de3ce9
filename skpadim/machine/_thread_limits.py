"""How many threads torch's operations use, set for one Python thread alone where that can be done.

``torch.set_num_threads`` is for the whole process, and with it MKL no longer decides for itself how
many threads are good for a product. What it then does is wrong at times: torch's batched LU
factorisations can return garbage (https://github.com/pytorch/pytorch/issues/142815). So it is not
called on behalf of a user who has not called it, where torch has MKL and OpenMP's threads.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

_limiting = threading.Lock()


@contextmanager
def threads_limited(n: int) -> Iterator[None]:
    """Within the block, operations that this Python thread starts use `n` threads.

    Elsewhere than on Linux with MKL this may hold for other Python threads too; of blocks that
    overlap the first to begin then sets the limit and lifts it.
    """
    setters = _local_setters()
    if setters is None:
        if not _limiting.acquire(blocking=False):
            yield
            return
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(n)
            yield
        finally:
            torch.set_num_threads(before)
            _limiting.release()
        return
    before = torch.get_num_threads()  # makes the thread's own settings, if it had none
    set_openmp, set_mkl = setters
    set_openmp(n)
    mkls_before = set_mkl(n)  # 0 for nothing
    try:
        yield
    finally:
        set_openmp(before)
        set_mkl(mkls_before)


@cache
def _local_setters():
    """Functions that set a thread's own number of threads, OpenMP's and MKL's, or None."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        set_openmp, set_mkl = library.omp_set_num_threads, library.MKL_Set_Num_Threads_Local
    except (OSError, AttributeError):  # another system, or another library than MKL
        return None
    for function, result in ((set_openmp, None), (set_mkl, ctypes.c_int)):
        function.argtypes, function.restype = [ctypes.c_int], result
    return set_openmp, set_mkl
