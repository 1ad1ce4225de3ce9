"""Means and scatters of a batch added to those before, compiled for this CPU by Numba.

A position's samples are centred once, in float64, and the sums of their products are formed in
vector registers: six rows of the scatter with two registers of columns at a time, which are then
added to the rows where they lie. A position is computed in the same way whatever the threads.
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
from skpadim._vector_code import DOUBLE, FLOAT, LANES, next_count, numbers_at

# Rows of the scatter that are summed at a time, and columns: 12 sums in registers.
ROWS, COLUMNS = 6, LANES
# Samples that are centred at a time, for the core's own cache.
_MAX_SAMPLES = 64
# Positions that a thread takes at a time.
_POSITIONS = 16
# With more features the scatter of a position leaves no room for anything in that cache.
MAX_FEATURES = 256


def add_batch(
    mean: torch.Tensor, scatter: torch.Tensor, count: int, embeddings: torch.Tensor
) -> None:
    """Add a batch to means and scatters, in place, by Chan's rule.

    Parameters
    ----------
    mean : tensor of shape (n_positions, n_features), float64
        Contiguous, as is `scatter`.
    scatter : tensor of shape (n_positions, n_features * (n_features + 1) / 2), float64
        Lower triangles. Not read where `count` is 0.
    count : int
        Number of samples before.
    embeddings : tensor of shape (n_samples, n_positions, n_features), float32
        Its features lie next to each other.
    """
    n_samples, n_positions, n_features = embeddings.shape
    n_threads = torch.get_num_threads()
    total = count + n_samples
    # Centred samples and the one for the means' difference, with room for what is loaded behind
    # the last feature; the batch's mean; the sums.
    row = n_features + max(ROWS, COLUMNS)
    scratch_size = (_MAX_SAMPLES + 2) * row + ROWS * COLUMNS
    scratch = mean.new_zeros(n_threads, scratch_size)
    counters = np.zeros(2, np.int64)
    addresses = [tensor.data_ptr() for tensor in (embeddings, mean, scatter, scratch)]
    steps = (4 * embeddings.stride(0), 4 * embeddings.stride(1))
    sizes = (count, n_samples, n_positions, n_features, row, scratch_size)
    rank_one = (count * n_samples / total) ** 0.5
    values = (*addresses, counters.ctypes.data, *steps, *sizes, rank_one, n_samples / total)
    run_on_threads(compiled(torch.float32), np.array(values, _TASK), n_threads)


@cache
def compiled(dtype: torch.dtype):
    """The compiled loop for embeddings of a dtype."""
    if dtype != torch.float32:
        raise NotImplementedError(f"none for {dtype}")
    return compile_loop(_add_at_positions, _TASK, [code])


# What the compiled loop is told.
_TASK = np.dtype(
    [
        *(
            (name, np.int64)
            for name in (
                *("embeddings", "mean", "scatter", "scratch", "counters"),  # addresses
                *("sample", "position"),  # bytes from one to the next
                *("count", "n_samples", "n_positions", "n_features", "row", "scratch_size"),
            )
        ),
        ("rank_one", np.float64),
        ("share", np.float64),
    ]
)
_INT64 = types.int64


def _product_writer(*, is_inside):
    """Function that sums products of six features with others, over samples.

    Inside of the triangle the sums are added to its rows, otherwise they are written to a tile.
    """

    @intrinsic
    def write_products(_context, samples, n_samples, row, first, column, target):
        def write(context, builder, _signature, arguments):
            samples, n_samples, row, first, column, target = arguments
            lanes = range(0, COLUMNS, COLUMNS // 2)

            def factors(k):
                sample = code.step(builder, samples, k, row)
                start = code.step(builder, sample, column, 8)
                addresses = (code.step(builder, start, lane, 8) for lane in lanes)
                others = [code.load(builder, address, types.float64) for address in addresses]
                start = code.step(builder, sample, first, 8)
                for i in range(ROWS):
                    address = code.step(builder, start, i, 8)
                    value = code.load_repeated(builder, address, types.float64)
                    yield from ((value, other) for other in others)

            n_sums = ROWS * len(lanes)
            sums = code.sums_of_products(builder, n_samples, n_sums, factors, types.float64)
            sums = iter(sums)
            for _ in range(ROWS):
                for lane in lanes:
                    address, total = code.step(builder, target, lane, 8), next(sums)
                    if is_inside:
                        total += code.load(builder, address, types.float64)
                    code.store(total, address, types.float64)
                if is_inside:  # the rows of a triangle are each longer by one
                    first = code.step(builder, first, 1, 1)
                    target = code.step(builder, target, first, 8)
                else:
                    target = code.step(builder, target, COLUMNS, 8)
            return context.get_dummy_value()

        return types.void(*[_INT64] * 6), write

    return write_products


_add_products = _product_writer(is_inside=True)
_write_products = _product_writer(is_inside=False)


def _add_at_positions(pointer):
    """Add the batch at positions as long as there are some left; what each thread does."""
    task = carray(pointer, 1)[0]
    scratch = task.scratch + 8 * task.scratch_size * next_count(task.counters)
    while True:
        first = _POSITIONS * next_count(task.counters + 8)
        if first >= task.n_positions:
            break
        for position in range(first, min(first + _POSITIONS, task.n_positions)):
            _add_at(task, position, scratch)


@njit
def _add_at(task, position, samples):
    n_features, row = task.n_features, 8 * task.row
    batch_mean = samples + (_MAX_SAMPLES + 1) * row
    tile = batch_mean + row
    scatter = task.scatter + 8 * position * (n_features * (n_features + 1) // 2)
    _average(task, position, batch_mean)
    if task.count == 0:
        numbers = numbers_at(DOUBLE, scatter)
        for k in range(n_features * (n_features + 1) // 2):
            numbers[k] = 0
    for start in range(0, task.n_samples, _MAX_SAMPLES):
        stop = min(start + _MAX_SAMPLES, task.n_samples)
        _centre(task, position, start, stop, batch_mean, samples)
        n_rows = stop - start
        if stop == task.n_samples:
            # The rank-one term of Chan's rule rides along as one more centred row.
            _shift_mean(task, position, batch_mean, samples + n_rows * row)
            n_rows += 1
        _add_triangle(task, samples, n_rows, scatter, tile)


@njit
def _average(task, position, batch_mean):
    average = numbers_at(DOUBLE, batch_mean)
    for k in range(task.n_features):
        average[k] = 0
    for i in range(task.n_samples):
        sample = numbers_at(FLOAT, task.embeddings + i * task.sample + position * task.position)
        for k in range(task.n_features):
            average[k] += sample[k]
    for k in range(task.n_features):
        average[k] /= task.n_samples


@njit
def _centre(task, position, start, stop, batch_mean, samples):
    average = numbers_at(DOUBLE, batch_mean)
    for i in range(start, stop):
        sample = numbers_at(FLOAT, task.embeddings + i * task.sample + position * task.position)
        centred = numbers_at(DOUBLE, samples + 8 * (i - start) * task.row)
        for k in range(task.n_features):
            centred[k] = sample[k] - average[k]


@njit
def _shift_mean(task, position, batch_mean, rank_one):
    average, row = numbers_at(DOUBLE, batch_mean), numbers_at(DOUBLE, rank_one)
    mean = numbers_at(DOUBLE, task.mean + 8 * position * task.n_features)
    for k in range(task.n_features):
        shift = average[k] - mean[k]
        row[k] = task.rank_one * shift
        mean[k] += task.share * shift


@njit
def _add_triangle(task, samples, n_samples, scatter, tile):
    """Add the products of samples to the triangle, by tiles of 6 rows."""
    n_features, row = task.n_features, 8 * task.row
    for first in range(0, n_features, ROWS):
        last = min(first + ROWS, n_features)
        for column in range(0, last, COLUMNS):
            if first + ROWS <= n_features and column + COLUMNS <= first + 1:
                target = scatter + 8 * (first * (first + 1) // 2 + column)
                _add_products(samples, n_samples, row, first, column, target)
            else:
                _write_products(samples, n_samples, row, first, column, tile)
                _add_tile(first, last, column, tile, scatter)


@njit
def _add_tile(first, last, column, tile, scatter):
    """Add what lies in the triangle of a tile across its border."""
    sums, numbers = numbers_at(DOUBLE, tile), numbers_at(DOUBLE, scatter)
    for i in range(first, last):
        for k in range(column, min(column + COLUMNS, i + 1)):
            numbers[i * (i + 1) // 2 + k] += sums[(i - first) * COLUMNS + k - column]
