"""Inner loops that Numba compiles for this CPU: whether there are any, how they are kept and run.

A module of such loops has a function ``compiled(dtype)``. It imports Numba and this module, and is
itself imported by :func:`loops` only, since Numba need not be there.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import torch


@cache
def loops(name: str, dtype: torch.dtype):
    """A module of compiled loops, or None where there is none: they are for CPUs with AVX2.

    Parameters
    ----------
    name : str
        Full name of the module.
    dtype : torch.dtype
        Of the numbers that the loops are for.

    Returns
    -------
    module : module or None
        With the loop compiled.

    Raises
    ------
    ValueError
        If a vector width is asked for that this CPU does not have; see :func:`vector_width`.
    """
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    try:
        vector_width()  # whose error is the developer's, and not excused as a compiler's is below
    except ImportError:
        return None
    try:
        module = import_module(name)
        module.compiled(dtype)
    except (ImportError, NotImplementedError):  # no Numba, none for this system, or this dtype
        return None
    except Exception as error:
        warnings.warn(
            f"Numba cannot compile fast loops ({type(error).__name__}: {error}); torch's operations"
            " are used, which give the same results more slowly.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return module


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


def is_readable(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a loop may take a tensor's numbers from its memory: it is what it seems to be."""
    return (
        tensor.dtype == dtype
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not tensor.is_neg()
        and not (torch.is_grad_enabled() and tensor.requires_grad)
        and _has_memory(tensor)
    )


def _has_memory(tensor):
    try:
        return tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:  # one of a transformed function, such as torch.func.vmap's
        return False


def compile_loop(function, task: np.dtype, sources):
    """Compile for this CPU, or take the machine code that Numba has kept.

    Numba knows it by the function's name, file and CPU. Into the name goes what else it depends on,
    the vector's width among it, and the CPU too: unlike ones that share a folder then write files
    of their own.

    Parameters
    ----------
    function : function
        Takes a pointer to a task, and works on it as long as there is work left: each of several
        threads calls it.
    task : dtype
        Of the task, which is a record.
    sources : list of modules
        Whose code the function depends on, beside its own.

    Returns
    -------
    compiled : object with the `address` of ``void function(void *task)``
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
