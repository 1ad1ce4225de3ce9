"""Mahalanobis distances, compiled for this CPU by Numba.

A position's factors are read from memory once, in the order in which they lie there, and multiplied
with all samples. Sixteen rows of them with some samples fill the vector registers with sums, which
are squared and added up as soon as they are complete. A sample's distances are computed in the same
way whatever others are computed with it. Differences to the mean are taken in float64: a mean
rounded to float32 is off by more than the samples vary, where these lie far from zero.
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

# Rows of a strip, and samples that they are multiplied with at a time: 12 sums in registers.
ROWS = 16
BLOCK = 12 * LANES // ROWS
# Samples whose differences to a mean are kept at a time, for the core's own cache.
_MAX_SAMPLES = 48
# Positions that a thread takes at a time.
_POSITIONS = 32
# Bytes of a strip that are asked for before they are needed: of short strips the CPU does not see
# in time that they follow each other.
_AHEAD = 4096


def mahalanobis_distances(
    embeddings: torch.Tensor, mean: torch.Tensor, strips: list[torch.Tensor]
) -> torch.Tensor:
    """Distances ``‖W (x - μ)‖`` of embeddings.

    Parameters
    ----------
    embeddings : tensor of shape (n_samples, n_positions, n_features), float32
        Its features lie next to each other.
    mean : tensor of shape (n_positions, n_features), float64
        Contiguous.
    strips : list of tensors of shape (n_positions, 16, n_columns), float32 or bfloat16
        Rows of W from the first to the last, without columns that are zero; column by column in
        memory.

    Returns
    -------
    distances : tensor of shape (n_samples, n_positions), float32
    """
    n_samples, n_positions, n_features = embeddings.shape
    n_threads = torch.get_num_threads()
    distances = embeddings.new_empty(n_samples, n_positions)
    # For differences to the mean, and sums of squares.
    scratch = embeddings.new_zeros(n_threads, (_MAX_SAMPLES + BLOCK) * (n_features + LANES))
    item = strips[0].element_size()
    layout = np.array([(s.data_ptr(), s.shape[2], item * s.stride(0)) for s in strips], np.int64)
    counters = np.zeros(2, np.int64)
    addresses = [tensor.data_ptr() for tensor in (embeddings, mean, distances, scratch)]
    addresses += [array.ctypes.data for array in (layout, counters)]
    steps = (4 * embeddings.stride(0), 4 * embeddings.stride(1))
    sizes = (n_samples, n_positions, n_features, len(strips), scratch.shape[1])
    dtype = strips[0].dtype
    task = np.array((*addresses, *steps, *sizes, 0), _task(dtype))
    run_on_threads(compiled(dtype), task, n_threads)
    return distances


@cache
def compiled(dtype: torch.dtype):
    """The compiled loop for strips of a dtype."""
    if dtype not in NUMBERS:
        raise NotImplementedError(f"none for {dtype}")
    return compile_loop(_measure_positions, _task(dtype), [code])


def _task(dtype):
    """What the compiled loop is told."""
    names = (
        *("embeddings", "mean", "distances", "scratch", "strips", "counters"),  # addresses
        *("sample", "position"),  # bytes from one to the next
        *("n_samples", "n_positions", "n_features", "n_strips", "scratch_size"),
    )
    # The last is there for its type.
    return np.dtype([*((name, np.int64) for name in names), ("number", NUMBERS[dtype])])


_INT64 = types.int64


@intrinsic
def _add_squares(_context, number, values, sample, strip, n_columns, squares):
    """Multiply a strip with the samples of a block; add the squares to theirs, lane by lane."""

    def write(context, builder, _signature, arguments):
        _, values, sample, strip, n_columns, squares = arguments
        lanes = range(0, ROWS, LANES)
        samples = [values]
        for _ in range(1, BLOCK):
            samples.append(code.step(builder, samples[-1], 1, sample))

        def factors(column):
            item = number.bitwidth // 8
            start = code.step(builder, strip, column, ROWS * item)
            code.prefetch(builder, code.step(builder, start, 1, _AHEAD))
            addresses = (code.step(builder, start, k, item) for k in lanes)
            rows = [code.load(builder, address, number) for address in addresses]
            for start in samples:
                value = code.load_repeated(builder, code.step(builder, start, column, 4))
                yield from ((value, row) for row in rows)

        sums = iter(code.sums_of_products(builder, n_columns, BLOCK * len(lanes), factors))
        for i in range(BLOCK):
            start = code.step(builder, squares, i, 4 * LANES)
            total = code.load(builder, start)
            for _ in lanes:
                product = next(sums)
                total = product * product + total
            code.store(total, start)
        return context.get_dummy_value()

    return types.void(number, *[_INT64] * 5), write


def _measure_positions(pointer):
    """Measure at positions as long as there are some left; what each thread does."""
    task = carray(pointer, 1)[0]
    differences = task.scratch + 4 * task.scratch_size * next_count(task.counters)
    squares = differences + 4 * (_MAX_SAMPLES + BLOCK) * task.n_features
    while True:
        first = _POSITIONS * next_count(task.counters + 8)
        if first >= task.n_positions:
            break
        for position in range(first, min(first + _POSITIONS, task.n_positions)):
            for start in range(0, task.n_samples, _MAX_SAMPLES):
                stop = min(start + _MAX_SAMPLES, task.n_samples)
                _subtract_mean(task, position, start, stop, differences)
                _sum_squares(task, position, stop - start, differences, squares)
                _write_distances(task, position, start, stop, squares)


@njit
def _subtract_mean(task, position, start, stop, differences):
    mean = numbers_at(DOUBLE, task.mean + 8 * position * task.n_features)
    for i in range(start, stop):
        address = task.embeddings + i * task.sample + position * task.position
        sample = numbers_at(FLOAT, address)
        difference = numbers_at(FLOAT, differences + 4 * (i - start) * task.n_features)
        for k in range(task.n_features):
            difference[k] = sample[k] - mean[k]


@njit
def _sum_squares(task, position, n_samples, differences, squares):
    """Of each sample the sums of squares, one for each lane of a register."""
    sums = numbers_at(FLOAT, squares)
    for i in range((n_samples + BLOCK) * LANES):
        sums[i] = 0
    strips = numbers_at(INTEGER, task.strips)
    sample = 4 * task.n_features
    for k in range(task.n_strips):
        strip, n_columns = strips[3 * k] + position * strips[3 * k + 2], strips[3 * k + 1]
        # In the last block, samples of an earlier one go along unused.
        for i in range(0, n_samples, BLOCK):
            first, to = differences + i * sample, squares + 4 * i * LANES
            _add_squares(task.number, first, sample, strip, n_columns, to)


@njit
def _write_distances(task, position, start, stop, squares):
    distances, sums = numbers_at(FLOAT, task.distances), numbers_at(FLOAT, squares)
    for i in range(start, stop):
        total = FLOAT
        for lane in range(LANES):
            total += sums[(i - start) * LANES + lane]
        distances[i * task.n_positions + position] = np.sqrt(total)
