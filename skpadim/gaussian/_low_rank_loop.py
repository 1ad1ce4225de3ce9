"""Mahalanobis distances from the samples themselves, compiled for this CPU by Numba.

A position's samples are read from where they lie in the state, centred, and multiplied with the
differences of some embeddings to the mean; then the rows of the kernel's inverse factor with these
products.
Both are scalar products of many rows with some columns: five with two at a time fill the vector
registers with sums, or eight with one. All is float64, since squared lengths are subtracted in the
end. An embedding is measured in the same way whatever others are measured with it.
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
from skpadim._vector_code import DOUBLE, FLOAT, INTEGER, LANES, next_count, numbers_at

_LANES = LANES // 2
# Rows and columns that are multiplied at a time, each pair with sums in a register: more of them
# leave too few registers for the factors. Of one column, so many rows.
_ROWS, _COLUMNS = 5, 2
_ROWS_OF_ONE = 8
# Embeddings that are measured at a time, for the core's own cache.
_MAX_EMBEDDINGS = 16
# Positions that a thread takes at a time.
_POSITIONS = 16


def low_rank_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    samples: torch.Tensor,
    strips: list[torch.Tensor],
    regularization: float,
) -> torch.Tensor:
    """Distances ``sqrt((‖δ‖² - ‖L⁻¹ X δ‖²) / λ)`` of embeddings.

    Parameters
    ----------
    embeddings : tensor of shape (n_embeddings, n_positions, n_features), float32
        Their features lie next to each other, as do those of the samples.
    mean : tensor of shape (n_positions, n_features), float64
        Of the samples; contiguous.
    samples : tensor of shape (n_samples, n_positions, n_features), float32
        Those of X, not centred.
    strips : list of tensors of shape (n_positions, n_rows, n_columns), float64
        Rows of L⁻¹ without the columns that are zero in all rows of the strip; the numbers of a row
        lie next to each other.
    regularization : float
        λ

    Returns
    -------
    distances : tensor of shape (n_embeddings, n_positions), float32
    """
    n_embeddings, n_positions, n_features = embeddings.shape
    n_samples, n_threads = len(samples), torch.get_num_threads()
    distances = embeddings.new_empty(n_embeddings, n_positions)
    n_columns = _MAX_EMBEDDINGS + _COLUMNS
    # Differences to the mean, their products with the samples, those with the inverse factor, what
    # is left of the square sums; sums in progress; the centred samples.
    scratch_size = n_columns * (n_features + 2 * n_samples + 1) + _ROWS * _COLUMNS * _LANES
    scratch_size += n_samples * n_features
    scratch = mean.new_zeros(n_threads, scratch_size)
    layout = [(s.data_ptr(), 8 * s.stride(0), 8 * s.stride(1), *s.shape[1:]) for s in strips]
    layout = np.array(layout, np.int64)
    counters = np.zeros(2, np.int64)
    tensors = (embeddings, mean, samples, distances, scratch)
    addresses = [tensor.data_ptr() for tensor in tensors]
    addresses += [array.ctypes.data for array in (layout, counters)]
    steps = [4 * tensor.stride(k) for tensor in (embeddings, samples) for k in range(2)]
    sizes = (n_embeddings, n_positions, n_features, n_samples, len(strips), scratch_size)
    task = np.array((*addresses, *steps, *sizes, regularization), _TASK)
    run_on_threads(compiled(torch.float32), task, n_threads)
    return distances


@cache
def compiled(dtype: torch.dtype):
    """The compiled loop for samples of a dtype."""
    if dtype != torch.float32:
        raise NotImplementedError(f"none for {dtype}")
    return compile_loop(_measure_positions, _TASK, [code])


# What the compiled loop is told.
_TASK = np.dtype(
    [
        *(
            (name, np.int64)
            for name in (
                *("embeddings", "mean", "samples", "distances"),  # addresses
                *("scratch", "strips", "counters"),
                *("embedding", "position", "sample", "sample_position"),  # bytes to the next
                *("n_embeddings", "n_positions", "n_features", "n_samples"),
                *("n_strips", "scratch_size"),
            )
        ),
        ("regularization", np.float64),
    ]
)
_INT64 = types.int64


def _product_writer(n_rows, n_columns):
    """Function that multiplies rows with columns; each pair gives a register of sums.

    Rows of float32 are samples as they are, of which the mean is subtracted on the way.
    """

    @intrinsic
    def write_products(_context, number, rows, row, mean, columns, column, n_registers, sums):
        def write(context, builder, _signature, arguments):
            _, rows, row, mean, columns, column, n_registers, target = arguments
            rows = [code.step(builder, rows, i, row) for i in range(n_rows)]
            columns = [code.step(builder, columns, i, column) for i in range(n_columns)]

            def factors(k):
                starts = [code.step(builder, start, k, 8 * _LANES) for start in columns]
                others = [code.load(builder, start, types.float64) for start in starts]
                if number == types.float32:
                    address = code.step(builder, mean, k, 8 * _LANES)
                    means = code.load(builder, address, types.float64)
                for start in rows:
                    address = code.step(builder, start, k, _LANES * number.bitwidth // 8)
                    numbers = code.load_doubles(builder, address, number)
                    if number == types.float32:
                        numbers = numbers - means
                    yield from ((numbers, other) for other in others)

            n_sums = n_rows * n_columns
            totals = code.sums_of_products(builder, n_registers, n_sums, factors, types.float64)
            for i, total in enumerate(totals):
                code.store(total, code.step(builder, target, i, 8 * _LANES), types.float64)
            return context.get_dummy_value()

        return types.void(number, *[_INT64] * 7), write

    return write_products


_multiply_tile = _product_writer(_ROWS, _COLUMNS)
_multiply_row = _product_writer(1, _COLUMNS)
_multiply_column = _product_writer(_ROWS_OF_ONE, 1)


def _measure_positions(pointer):
    """Measure at positions as long as there are some left; what each thread does."""
    task = carray(pointer, 1)[0]
    n_columns = _MAX_EMBEDDINGS + _COLUMNS
    differences = task.scratch + 8 * task.scratch_size * next_count(task.counters)
    products = differences + 8 * n_columns * task.n_features
    whitened = products + 8 * n_columns * task.n_samples
    squares = whitened + 8 * n_columns * task.n_samples
    sums = squares + 8 * n_columns
    centred = sums + 8 * _ROWS * _COLUMNS * _LANES
    while True:
        first = _POSITIONS * next_count(task.counters + 8)
        if first >= task.n_positions:
            break
        for position in range(first, min(first + _POSITIONS, task.n_positions)):
            if task.n_embeddings > _COLUMNS:  # which are multiplied with them again and again
                _centre_samples(task, position, centred)
            for start in range(0, task.n_embeddings, _MAX_EMBEDDINGS):
                stop = min(start + _MAX_EMBEDDINGS, task.n_embeddings)
                count = stop - start
                _subtract_mean(task, position, start, stop, differences, squares)
                _multiply_samples(task, position, centred, count, differences, products, sums)
                _subtract_whitened(task, position, count, products, squares, whitened, sums)
                _write_distances(task, position, start, stop, squares)


@njit
def _centre_samples(task, position, centred):
    """Write a position's samples minus the mean, which lie far apart, into memory of the caches."""
    mean = numbers_at(DOUBLE, task.mean + 8 * position * task.n_features)
    for i in range(task.n_samples):
        address = task.samples + i * task.sample + position * task.sample_position
        sample = numbers_at(FLOAT, address)
        target = numbers_at(DOUBLE, centred + 8 * i * task.n_features)
        for k in range(task.n_features):
            target[k] = sample[k] - mean[k]


@njit
def _subtract_mean(task, position, start, stop, differences, squares):
    """Of each embedding the difference to the mean, and its square sum."""
    mean = numbers_at(DOUBLE, task.mean + 8 * position * task.n_features)
    rest = numbers_at(DOUBLE, squares)
    for i in range(start, stop):
        address = task.embeddings + i * task.embedding + position * task.position
        embedding = numbers_at(FLOAT, address)
        difference = numbers_at(DOUBLE, differences + 8 * (i - start) * task.n_features)
        for k in range(task.n_features):
            difference[k] = embedding[k] - mean[k]
        rest[i - start] = _sum_of_products(difference, difference, task.n_features)


@njit
def _multiply_samples(task, position, centred, count, differences, products, sums):
    """Multiply the centred samples with the differences of `count` embeddings."""
    n, size = task.n_samples, task.n_features
    if task.n_embeddings > _COLUMNS:
        row = 8 * size
        _multiply(DOUBLE, centred, row, 0, n, differences, size, count, size, products, n, sums)
    else:
        rows, row = task.samples + position * task.sample_position, task.sample
        mean = task.mean + 8 * position * size
        _multiply(FLOAT, rows, row, mean, n, differences, size, count, size, products, n, sums)


@njit
def _subtract_whitened(task, position, n_embeddings, products, squares, whitened, sums):
    """Multiply the inverse factor with these products; subtract the square sums from the rest."""
    n, rest = task.n_samples, numbers_at(DOUBLE, squares)
    strips = numbers_at(INTEGER, task.strips)
    for k in range(task.n_strips):
        rows, row = strips[5 * k] + position * strips[5 * k + 1], strips[5 * k + 2]
        n_rows, size = strips[5 * k + 3], strips[5 * k + 4]
        _multiply(DOUBLE, rows, row, 0, n_rows, products, n, n_embeddings, size, whitened, n, sums)
        for i in range(n_embeddings):
            numbers = numbers_at(DOUBLE, whitened + 8 * i * n)
            rest[i] -= _sum_of_products(numbers, numbers, n_rows)


@njit
def _write_distances(task, position, start, stop, squares):
    distances, rest = numbers_at(FLOAT, task.distances), numbers_at(DOUBLE, squares)
    for i in range(start, stop):
        # NaN stays.
        squared = DOUBLE if rest[i - start] < 0 else rest[i - start] / task.regularization
        distances[i * task.n_positions + position] = np.sqrt(squared)


@njit
def _multiply(
    number, rows, row, mean, n_rows, columns, column, n_columns, size, products, product, sums
):
    """Scalar products of rows, whose numbers are like `number`, with columns of float64.

    Of rows of float32 the mean is subtracted; others are taken as they are, and `mean` is 0.
    A row begins `row` bytes after the one before, a column `column` numbers, the products with a
    column `product` numbers. There is memory behind the last column.
    """
    n_registers = size // _LANES
    for first in range(0, n_columns, _COLUMNS):
        start, count = columns + 8 * first * column, min(_COLUMNS, n_columns - first)
        i = 0
        while i < n_rows:
            address, height, width = rows + i * row, 1, _COLUMNS
            if n_registers == 0:
                totals = numbers_at(DOUBLE, sums)
                for k in range(_COLUMNS * _LANES):
                    totals[k] = 0
            elif count == 1 and i + _ROWS_OF_ONE <= n_rows:
                height, width = _ROWS_OF_ONE, 1
                _multiply_column(number, address, row, mean, start, 0, n_registers, sums)
            elif i + _ROWS <= n_rows:
                height = _ROWS
                _multiply_tile(number, address, row, mean, start, 8 * column, n_registers, sums)
            else:
                _multiply_row(number, address, row, mean, start, 8 * column, n_registers, sums)
            for r in range(height):
                for c in range(count):
                    total = _total(
                        number,
                        address + r * row,
                        mean,
                        start + 8 * c * column,
                        size,
                        sums + 8 * _LANES * (r * width + c),
                    )
                    numbers_at(DOUBLE, products)[(first + c) * product + i + r] = total
            i += height


@njit
def _total(number, row, mean, column, size, sums):
    """A scalar product, of which all but the last terms are in a register of sums."""
    numbers, others = numbers_at(number, row), numbers_at(DOUBLE, column)
    parts, total = numbers_at(DOUBLE, sums), DOUBLE
    for lane in range(_LANES):
        total += parts[lane]
    for k in range(size - size % _LANES, size):
        value = DOUBLE + numbers[k]
        if mean != 0:
            value -= numbers_at(DOUBLE, mean)[k]
        total += value * others[k]
    return total


@njit
def _sum_of_products(numbers, others, n):
    first = second = third = fourth = DOUBLE
    for k in range(0, n - n % 4, 4):
        first += numbers[k] * others[k]
        second += numbers[k + 1] * others[k + 1]
        third += numbers[k + 2] * others[k + 2]
        fourth += numbers[k + 3] * others[k + 3]
    for k in range(n - n % 4, n):
        first += numbers[k] * others[k]
    return (first + second) + (third + fourth)
