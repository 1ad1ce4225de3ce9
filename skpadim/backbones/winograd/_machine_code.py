"""A loop that Numba compiles for this CPU: how wide its vectors are, and how it is kept."""

from __future__ import annotations

import os
from functools import cache

import numpy as np

from skpadim.machine._numba_cache import name_in_cache


@cache
def vector_width() -> int:
    """Float32 numbers in a vector register: 16 with AVX-512, else 8.

    For tests on a CPU that has both, the environment variable SKPADIM_VECTOR_WIDTH chooses one.
    """
    from llvmlite.binding import get_host_cpu_features

    widths = (8, 16) if get_host_cpu_features().get("avx512f") else (8,)
    wanted = os.environ.get("SKPADIM_VECTOR_WIDTH") or str(widths[-1])
    if wanted not in map(str, widths):
        raise ValueError(
            f"SKPADIM_VECTOR_WIDTH={wanted!r}: the compiled loops of this CPU can be "
            f"{' or '.join(map(str, widths))} float32 numbers wide (16 takes AVX-512); unset the "
            "environment variable for the widest."
        )
    return int(wanted)


def compile_loop(function, task: np.dtype, sources):
    """Compile for this CPU, or take the machine code that Numba has kept.

    `function` takes a pointer to a record of dtype `task`, and works as long as there is work left:
    each of several threads calls it. What is returned has the `address` of its machine code, which
    depends on the code of the modules `sources` too.
    """
    from numba import cfunc, config, from_dtype, types

    if config.DISABLE_JIT:
        raise ImportError("Numba is told to compile nothing, by NUMBA_DISABLE_JIT.")
    files = [module.__file__ for module in sources]
    details = task.descr, vector_width()
    function.__qualname__ = name_in_cache(function.__name__, files, *details)
    signature = types.void(types.CPointer(from_dtype(task)))
    try:
        return cfunc(signature, cache=True)(function)
    except Exception:  # no folder to keep it in, a full disk, or what was kept is damaged
        return cfunc(signature)(function)
