"""Inverse Cholesky factors of many covariances, compiled for this CPU by Numba.

A position's covariance is factorised, and the factor inverted, row by row: from each row the
products of those before it are subtracted, eight registers of columns at a time. Of the usual 100
features both matrices, in float64, stay in a core's own cache.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numba import carray, njit, types
from numba.extending import intrinsic

from skpadim import _vector_code as code
from skpadim._machine_code import compile_loop
from skpadim._torch_threads import run_on_threads
from skpadim._vector_code import DOUBLE, FLOAT, INTEGER, LANES, NUMBERS, next_count, numbers_at
from skpadim.gaussian import _mahalanobis_loop
from skpadim.gaussian._mahalanobis_loop import ROWS

# Columns of a matrix that are summed at a time.
_LANES = LANES // 2
COLUMNS = 8 * _LANES
# Positions that a thread takes at a time.
_POSITIONS = 8
# Of more features the matrices are far larger than that cache, and LAPACK, working in blocks, is
# quick with them.
MAX_FEATURES = 600


def invert(
    scatter: torch.Tensor,
    degrees_of_freedom: int,
    regularization: float,
    strips: list[torch.Tensor],
) -> bool:
    """Write inverse Cholesky factors of ``scatter / degrees_of_freedom + regularization * I``.

    Parameters
    ----------
    scatter : tensor of shape (n_positions, n_features * (n_features + 1) / 2), float64
        Lower triangles; contiguous.
    degrees_of_freedom : int
    regularization : float
    strips : list of tensors of shape (n_positions, 16, n_columns), float32 or bfloat16
        Where to write the rows of the factors, column by column in memory.

    Returns
    -------
    is_done : bool
        False if a covariance is not positive definite.
    """
    n_positions, n_features = len(scatter), strips[-1].shape[2]
    n_threads, dtype = torch.get_num_threads(), strips[0].dtype
    row = n_features + COLUMNS  # with room for what is computed behind the last column
    scratch_size = 2 * n_features * row + ROWS
    scratch = scatter.new_zeros(n_threads, scratch_size)
    item = strips[0].element_size()
    layout = np.array([(s.data_ptr(), s.shape[2], item * s.stride(0)) for s in strips], np.int64)
    counters = np.zeros(3, np.int64)
    addresses = (scatter.data_ptr(), scratch.data_ptr(), layout.ctypes.data, counters.ctypes.data)
    sizes = (n_positions, n_features, len(strips), item, row, scratch_size, degrees_of_freedom)
    task = np.array((*addresses, *sizes, regularization, 0), _task(dtype))
    run_on_threads(compiled(dtype), task, n_threads)
    return counters[2] == n_positions


@cache
def compiled(dtype: torch.dtype):
    """The compiled loop for strips of a dtype."""
    if dtype not in NUMBERS:
        raise NotImplementedError(f"none for {dtype}")
    return compile_loop(_invert_at_positions, _task(dtype), [code, _mahalanobis_loop])


@cache
def _task(dtype):
    """What the compiled loop is told."""
    names = (
        *("scatter", "scratch", "strips", "counters"),  # addresses
        *("n_positions", "n_features", "n_strips", "item", "row", "scratch_size"),
        "degrees_of_freedom",
    )
    fields = [(name, np.int64) for name in names]
    # The last is there for its type.
    return np.dtype([*fields, ("regularization", np.float64), ("number", NUMBERS[dtype])])


_INT64 = types.int64


@intrinsic
def _subtract_products(_context, factors, rows, n_rows, row, target):
    """Subtract from a part of a row those of rows before it, times their factors."""

    def write(context, builder, _signature, arguments):
        factors, rows, n_rows, row, target = arguments
        lanes = range(0, COLUMNS, _LANES)

        def terms(k):
            factor = code.load_repeated(builder, code.step(builder, factors, k, row), types.float64)
            start = code.step(builder, rows, k, row)
            addresses = (code.step(builder, start, lane, 8) for lane in lanes)
            return [(factor, code.load(builder, a, types.float64)) for a in addresses]

        sums = code.sums_of_products(builder, n_rows, len(lanes), terms, types.float64)
        for lane, total in zip(lanes, sums, strict=True):
            address = code.step(builder, target, lane, 8)
            code.store(code.load(builder, address, types.float64) - total, address, types.float64)
        return context.get_dummy_value()

    return types.void(*[_INT64] * 5), write


@intrinsic
def _convert(_context, number, source, target):
    """Write a column of a strip, float32, in the strip's precision."""

    def write(context, builder, _signature, arguments):
        _, source, target = arguments
        for lane in range(0, ROWS, LANES):
            numbers = code.load(builder, code.step(builder, source, lane, 4))
            address = code.step(builder, target, lane, number.bitwidth // 8)
            code.store(numbers, address, number)
        return context.get_dummy_value()

    return types.void(number, _INT64, _INT64), write


def _invert_at_positions(pointer):
    """Invert at positions as long as there are some left; what each thread does."""
    task = carray(pointer, 1)[0]
    factor = task.scratch + 8 * task.scratch_size * next_count(task.counters)
    inverse = factor + 8 * task.n_features * task.row
    column = inverse + 8 * task.n_features * task.row
    while True:
        first = _POSITIONS * next_count(task.counters + 8)
        if first >= task.n_positions:
            break
        for position in range(first, min(first + _POSITIONS, task.n_positions)):
            _read_covariance(task, position, factor)
            if _factorise(task, factor):
                _invert(task, factor, inverse)
                _write_strips(task, position, inverse, column)
                next_count(task.counters + 16)


@njit(error_model="numpy")  # what divides by zero is no covariance, and has no factor
def _read_covariance(task, position, factor):
    """Read a lower triangle, row by row, as the columns of an upper one."""
    n = task.n_features
    scatter = numbers_at(DOUBLE, task.scatter + 8 * position * (n * (n + 1) // 2))
    upper = numbers_at(DOUBLE, factor)
    for i in range(n):
        first = i * (i + 1) // 2
        for k in range(i + 1):
            upper[k * task.row + i] = scatter[first + k] / task.degrees_of_freedom
        upper[i * task.row + i] += task.regularization


@njit
def _factorise(task, factor):
    """Make a covariance ``U = Lᵀ`` of its factor, in place; whether it is positive definite."""
    n, row = task.n_features, 8 * task.row
    upper = numbers_at(DOUBLE, factor)
    for i in range(n):
        first = i * task.row
        if i > 0:
            for k in range(i, n, COLUMNS):
                to = factor + i * row + 8 * k
                _subtract_products(factor + 8 * i, factor + 8 * k, i, row, to)
        pivot = upper[first + i]
        if not 0 < pivot < np.inf:
            return False
        scale = 1 / np.sqrt(pivot)
        for k in range(i, n):
            upper[first + k] *= scale
    return True


@njit
def _invert(task, factor, inverse):
    """Invert a lower factor, of which the columns are given as rows; its upper half stays zero."""
    n, row = task.n_features, 8 * task.row
    upper, lower = numbers_at(DOUBLE, factor), numbers_at(DOUBLE, inverse)
    for i in range(n):
        first = i * task.row
        for k in range(i):
            lower[first + k] = 0
        for k in range(0, i, COLUMNS):
            # Rows before this one have nothing in these columns.
            rows, to = inverse + k * row + 8 * k, inverse + i * row + 8 * k
            _subtract_products(factor + k * row + 8 * i, rows, i - k, row, to)
        scale = 1 / upper[first + i]
        for k in range(i):
            lower[first + k] *= scale
        lower[first + i] = scale


@njit
def _write_strips(task, position, inverse, column):
    strips = numbers_at(INTEGER, task.strips)
    lower, numbers = numbers_at(DOUBLE, inverse), numbers_at(FLOAT, column)
    for s in range(task.n_strips):
        strip, n_columns = strips[3 * s] + position * strips[3 * s + 2], strips[3 * s + 1]
        n_rows = min(ROWS, task.n_features - s * ROWS)
        for i in range(n_rows, ROWS):
            numbers[i] = 0
        for k in range(n_columns):
            for i in range(n_rows):
                numbers[i] = lower[(s * ROWS + i) * task.row + k]
            _convert(task.number, column, strip + k * ROWS * task.item)
