"""A loop that Numba compiles for this CPU: how wide its vectors are, and how it is kept."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from pathlib import Path

import numpy as np


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
    each of several threads calls it. What is returned has the `address` of its machine code. Numba
    knows it by the function's name, file and CPU. Into the name goes what else it depends on: the
    code of the modules `sources`, the vector's width, and the CPU too, so that unlike ones that
    share a folder write files of their own.
    """
    from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
    from numba import cfunc, config, from_dtype, types

    if config.DISABLE_JIT:
        raise ImportError("Numba is told to compile nothing, by NUMBA_DISABLE_JIT.")
    cpu = f"{get_host_cpu_name()} {get_host_cpu_features().flatten()} {vector_width()}"
    digest = hashlib.sha256(cpu.encode())
    for module in sources:
        digest.update(Path(module.__file__).read_bytes())
    function.__qualname__ = f"{function.__name__}_{digest.hexdigest()[:16]}"
    signature = types.void(types.CPointer(from_dtype(task)))
    try:
        return cfunc(signature, cache=True)(function)
    except Exception:  # no folder to keep it in, a full disk, or what was kept is damaged
        return cfunc(signature)(function)
