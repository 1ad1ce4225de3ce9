"""How many threads torch's operations use, set for one Python thread alone where that can be done.

``torch.set_num_threads`` is for the whole process, and with it MKL no longer decides for itself how
many threads are good for a product. What it then does is wrong at times: torch's batched LU
factorisations can return garbage (https://github.com/pytorch/pytorch/issues/142815). So it is not
called on behalf of a user who has not called it, where torch's threads are OpenMP's.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch


def limit_threads(n: int) -> None:
    """Let operations that this Python thread starts use `n` threads."""
    setters = _local_setters()
    if setters is None:
        torch.set_num_threads(n)
        return
    torch.get_num_threads()  # makes the thread's own settings, which would undo these later
    set_openmp, set_mkl = setters
    set_openmp(n)
    set_mkl(n)


def lift_limit(n: int) -> None:
    """Go back to `n` threads, as many as there were; to be called by the thread that has waited.

    Where the limit was set for the whole process, this is too.
    """
    setters = _local_setters()
    if setters is None:
        torch.set_num_threads(n)
        return
    set_openmp, set_mkl = setters
    set_openmp(n)
    set_mkl(0)  # as the process has it


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
