"""Many small matrices, one a patch position: triangles, products, factors; and work on them all.

Free functions on torch tensors. On a CPU products and factors are NumPy's, whose BLAS computes one
triangle of a symmetric product and copies it to the other, and factorises matrices of this size in
half of the time that torch takes; elsewhere they are torch's. Loops that neither has are compiled
ones, of `_kernels`, where there is Numba.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache
from itertools import count
from types import FunctionType

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

from skpadim.machine._file_memory import in_turn, let_pages_go
from skpadim.machine._numba_cache import name_in_cache
from skpadim.machine._thread_limits import threads_limited

# Of the sixteen digits of float64, more than six are to be left.
_MAX_DIGITS_LOST = 3e9
# A block's temporaries stay in the caches of a CPU, and the block has enough positions that threads
# seldom meet in the interpreter. On a GPU they are large enough for its batched kernels and small
# beside its memory.
_BLOCK_BYTES = 8 * 2**20
_LARGE_BLOCK_BYTES = 64 * 2**20
_GPU_BLOCK_BYTES = 512 * 2**20
# Work on so little memory is done before a thread has begun.
_TINY_BYTES = 2**18
# Ranges of positions for each thread: more than one, so that all end at about the same time; and no
# more of what may lie in a file than fits in memory with ease.
_RANGES_PER_THREAD = 8
_LARGE_RANGE_BYTES = 256 * 2**20

_limiting = threading.Lock()


def triangle_size(n: int) -> int:
    """Number of entries of the lower triangle of an n x n matrix, the diagonal included."""
    return n * (n + 1) // 2


def triangle_rows(size: int) -> int:
    """Undo :func:`triangle_size`."""
    return (math.isqrt(8 * size + 1) - 1) // 2


def lower_triangles(matrices: torch.Tensor) -> torch.Tensor:
    """Lower triangles (n_matrices, n * (n + 1) / 2), row by row, of matrices (n_matrices, n, n)."""
    return _take(matrices.flatten(1), _of_lower_triangle(matrices.shape[-1], matrices.device))


def diagonals(triangles: torch.Tensor) -> torch.Tensor:
    """Diagonals (n_matrices, n) of the matrices of :func:`lower_triangles`."""
    steps = torch.arange(triangle_rows(triangles.shape[1]), device=triangles.device)
    diagonals = triangles.new_empty((len(triangles), len(steps)))
    for block in large_blocks(len(triangles), triangles[0].nbytes, triangles.device):
        diagonals[block] = triangles[block, steps * (steps + 3) // 2]
    return diagonals


def lower_matrices(triangles: torch.Tensor) -> torch.Tensor:
    """Matrices (n_matrices, n, n) of such triangles, with zeros above the diagonal."""
    return symmetric_matrices(triangles).tril_()


def symmetric_matrices(triangles: torch.Tensor) -> torch.Tensor:
    """Undo :func:`lower_triangles`: both triangles of the matrices (n_matrices, n, n)."""
    n = triangle_rows(triangles.shape[1])
    return _take(triangles, _of_symmetric_matrix(n, triangles.device)).unflatten(1, (n, n))


def _take(rows, indices):
    """Some entries of each row; by NumPy, which on a CPU takes a tenth of torch's time."""
    if rows.device.type != "cpu":
        return rows.index_select(1, indices)
    # NumPy has no bfloat16, but takes its bits. The mode spares a check of the indices.
    bits = rows.view(torch.uint16) if rows.dtype == torch.bfloat16 else rows
    taken = np.take(bits.numpy(), indices, axis=1, mode="clip")
    return torch.from_numpy(taken).view(rows.dtype)


# Of one size at a time there are many matrices.


@lru_cache(maxsize=2)
def _of_lower_triangle(n, device):
    """Where the entries of a lower triangle are in the matrix."""
    rows, columns = np.tril_indices(n)
    return _indices_on(rows * n + columns, device)


@lru_cache(maxsize=2)
def _of_symmetric_matrix(n, device):
    """Where the entries of the matrix are in its lower triangle."""
    one, other = np.indices((n, n))
    row, column = np.maximum(one, other), np.minimum(one, other)
    return _indices_on((triangle_size(row) + column).ravel(), device)


def _indices_on(indices, device):
    return indices if device.type == "cpu" else torch.from_numpy(indices).to(device)


def gram_matrices(rows: torch.Tensor) -> torch.Tensor:
    """Products ``X Xᵀ`` (n_matrices, n_rows, n_rows) of X (n_matrices, n_rows, n_columns)."""
    if rows.device.type != "cpu":
        return torch.bmm(rows, rows.mT)
    array = rows.numpy()
    return torch.from_numpy(np.matmul(array, array.transpose(0, 2, 1)))


def cholesky(matrices: torch.Tensor, regularization: float) -> torch.Tensor:
    """Lower Cholesky factors of matrices (..., n, n), whose lower triangles alone are read.

    Where there are none :func:`not_positive_definite` is raised.
    """
    if matrices.device.type == "cpu":
        try:
            return torch.from_numpy(np.linalg.cholesky(matrices.numpy()))
        except np.linalg.LinAlgError:
            raise not_positive_definite(regularization) from None
    factors, info = torch.linalg.cholesky_ex(matrices)
    if info.any():
        raise not_positive_definite(regularization)
    return factors


def inverse_factors(factors: torch.Tensor) -> torch.Tensor:
    """Inverses of lower triangular matrices (..., n, n)."""
    identity = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    # By way of the transposes, which LAPACK takes as they lie in memory.
    return torch.linalg.solve_triangular(factors.mT, identity, upper=True).mT


def check_digits(lost: torch.Tensor, regularization: float) -> None:
    """Raise :func:`not_positive_definite` where float64 has too few digits for a factor.

    `lost` says by how much rounding errors are magnified: diagonal entries over what factorising
    has left of them, say.
    """
    if not (lost <= _MAX_DIGITS_LOST).all():  # NaN is too many, too
        raise not_positive_definite(regularization)


def not_positive_definite(regularization: float) -> np.linalg.LinAlgError:
    """The error for a covariance that has no Cholesky factor, or none that float64 can tell."""
    return np.linalg.LinAlgError(
        "A covariance matrix is not positive definite, as far as float64 can tell: there are too "
        "few samples, or features that depend on each other, and these vary too much for "
        f"regularization={regularization!r}. Use a larger regularization, or divide the features "
        "by a constant."
    )


@contextmanager
def blas_threads(n: int) -> Iterator[None]:
    """Within the block NumPy's BLAS shares a product out to at most so many threads.

    Threads that have positions of their own would otherwise wait for each other's helpers. The
    limit holds for the whole process, and a lower one of the user's stays. Of blocks that overlap
    the first to begin sets it and lifts it, since each would restore what it has found.
    """
    if not _limiting.acquire(blocking=False):
        yield
        return
    try:
        blas = _numpy_blas()
        found = [library.num_threads for library in blas.lib_controllers]
        with blas.limit(limits=min([n, *found])):
            yield
    finally:
        _limiting.release()


@lru_cache(maxsize=1)
def _numpy_blas():
    """NumPy's OpenBLAS, if it has threads of its own; OpenMP's are as many as torch asks for."""
    return ThreadpoolController().select(internal_api="openblas").select(threading_layer="pthreads")


def each_block(
    work: Callable[[slice], None],
    n_positions: int,
    bytes_per_position: int,
    device: torch.device,
    *,
    threads: bool = True,
) -> None:
    """Call `work` on slices of the positions; `bytes_per_position` is the size of its temporaries.

    Blocks may run at the same time: with `threads`, on a CPU, each core is given blocks of its own.
    Batched factorisations need it, since the libraries run those of small matrices on one core;
    large products spread by themselves.
    """
    limit = _BLOCK_BYTES if device.type == "cpu" else _GPU_BLOCK_BYTES
    blocks = _blocks(n_positions, bytes_per_position, limit)
    n_threads = torch.get_num_threads()
    if not threads or device.type != "cpu":
        for block in in_turn(blocks):
            work(block)
    elif n_threads == 1 or len(blocks) == 1:
        with blas_threads(n_threads):
            for block in in_turn(blocks):
                work(block)
    else:

        def work_alone(block):
            with threads_limited(1):
                work(block)
            let_pages_go()

        with blas_threads(1), ThreadPoolExecutor(min(n_threads, len(blocks))) as pool:
            for _ in pool.map(work_alone, blocks):
                pass  # raises what a block has raised


def large_blocks(
    n_positions: int, bytes_per_position: int, device: torch.device
) -> Iterator[slice]:
    """Slices of positions, for work of several steps that are each shared out by themselves.

    `bytes_per_position` is the size of what passes from one step to the next.
    """
    limit = _LARGE_BLOCK_BYTES if device.type == "cpu" else _GPU_BLOCK_BYTES
    return in_turn(_blocks(n_positions, bytes_per_position, limit))


def _blocks(n_positions, bytes_per_position, limit):
    size = max(1, limit // max(1, bytes_per_position))
    return [slice(start, min(start + size, n_positions)) for start in range(0, n_positions, size)]


def run_kernel(name: str, n_positions: int, *arguments) -> bool:
    """Run a compiled loop of `_kernels` at all positions, shared out to as many threads as torch's.

    The arguments, tensors, numbers or dtypes, are the loop's before the range of positions;
    bfloat16 comes to it as 16 bits. False where there is no such loop, for want of Numba say, or
    where a tensor is not such as it takes: contiguous, on the CPU, without gradients. Nothing has
    been changed then.
    """
    arrays = [_as_array(each) if isinstance(each, torch.Tensor) else each for each in arguments]
    kernel = None if any(each is None for each in arrays) else _compiled_for(name, arrays)
    if kernel is None:
        return False
    n_threads, n_bytes = torch.get_num_threads(), sum(getattr(each, "nbytes", 0) for each in arrays)
    if n_bytes < _TINY_BYTES or (n_threads == 1 and n_bytes <= _LARGE_RANGE_BYTES):
        kernel(*arrays, 0, n_positions)
        return True
    n_ranges = max(_RANGES_PER_THREAD * n_threads, n_bytes // _LARGE_RANGE_BYTES)
    size, taken = -(-n_positions // n_ranges), count()

    def work():
        while (start := size * next(taken)) < n_positions:
            kernel(*arrays, start, min(start + size, n_positions))
            let_pages_go()

    try:
        others = [_pool(n_threads, os.getpid()).submit(work) for _ in range(n_threads - 1)]
    except RuntimeError:  # the main thread has ended, and Python starts no more for pools
        others = []
    work()
    for other in others:
        other.result()
    return True


def has_kernels() -> bool:
    """Whether there are compiled loops."""
    return _kernels() is not None


@cache
def _kernels():
    """The module of compiled loops, or None where there are none."""
    try:
        from numba import config

        from skpadim.gaussian import _kernels
    except ImportError:
        return None
    except Exception as error:  # a Numba that does not suit NumPy, or this system
        return _warn_of_slow(error)
    return None if config.DISABLE_JIT else _kernels


def _compiled_for(name, arguments):
    """A loop that is compiled for arguments of these types, or None."""
    if not has_kernels():
        return None
    from numba import int64, typeof

    return _compiled(name, (*map(typeof, arguments), int64, int64))


@cache
def _compiled(name, types):
    from numba import jit

    kernel = getattr(_kernels(), name)
    options = kernel.targetoptions
    try:
        compiled = jit(_named_for_cache(kernel.py_func, types), cache=True, **options)
        compiled.compile(types)
    except Exception:  # no folder to keep it in, a full disk, or what was kept is damaged
        try:
            compiled = jit(kernel.py_func, **options)
            compiled.compile(types)
        except Exception as error:
            return _warn_of_slow(error)
    return compiled


def _named_for_cache(function, types):
    """A copy of a function, under a name of its own for the types of its arguments."""
    copied = FunctionType(function.__code__, function.__globals__, function.__name__)
    copied.__module__ = function.__module__
    sources = [function.__code__.co_filename]
    copied.__qualname__ = name_in_cache(function.__name__, sources, types)
    return copied


def _warn_of_slow(error):
    warnings.warn(
        f"Numba cannot compile fast loops ({type(error).__name__}: {error}); torch's operations "
        "are used, which give the same results more slowly.",
        RuntimeWarning,
        stacklevel=2,
    )


def _as_array(tensor):
    """A tensor's memory as an array, bfloat16 as 16 bits; None if that cannot be."""
    if tensor.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        return None
    if not torch.is_grad_enabled():
        tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.view(torch.uint16)
    try:
        array = tensor.numpy()
    except (RuntimeError, TypeError):  # on a GPU, with gradients, negated, of vmap
        return None
    return array if array.flags.c_contiguous else None


@lru_cache(maxsize=1)
def _pool(n_threads, _process):
    """Threads that wait for ranges of positions; a forked process has to have its own."""
    return ThreadPoolExecutor(n_threads - 1)
