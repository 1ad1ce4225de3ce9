"""The loops over patch positions that libraries lack, in plain Numba.

Each works on a range of positions, ``start`` to ``stop``, and lets other Python threads run
meanwhile: :func:`skpadim.gaussian._linalg.run_kernel` shares the positions out. Scatters and
factors are lower triangles, row by row. What is computed with over and over lies in small arrays
that stay in a core's own cache, several rows are taken at a time, so that a number is loaded once
for several products, and small arrays are filled up with zeros rather than treated apart at ends.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

_FAST = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc"}}
# Samples that are multiplied at a time. The compiler knows their number, and keeps to registers.
_BLOCK = 32
# So few samples are multiplied one by one: not worth a block, which would be zeros for the most.
_FEW = 8


@njit(**_FAST)
def add_scatter(embeddings, mean, scatter, count, start, stop):
    """Add a batch to the means and scatters of some positions, by Chan's rule."""
    n_samples, _, n_features = embeddings.shape
    total = count + n_samples
    share, rank_one = n_samples / total, np.sqrt(count * n_samples / total)
    # Centred samples, the rank-one term of Chan's rule as one more, and zeros.
    rows = np.zeros((_up_to(4, n_samples + 1), _up_to(2, n_features)))
    one, two = np.empty(rows.shape[1]), np.empty(rows.shape[1])
    for p in range(start, stop):
        shift = rows[n_samples]
        shift[:] = 0
        for s in range(n_samples):
            for k in range(n_features):
                rows[s, k] = embeddings[s, p, k]
                shift[k] += rows[s, k]
        for k in range(n_features):
            shift[k] /= n_samples
        for s in range(n_samples):
            for k in range(n_features):
                rows[s, k] -= shift[k]
        for k in range(n_features):
            difference = shift[k] - mean[p, k]
            shift[k] = rank_one * difference
            mean[p, k] += share * difference
        if count == 0:
            scatter[p] = 0
        first = 0
        for i in range(0, n_features, 2):  # two rows of the scatter, four samples at a time
            one[: i + 2] = 0
            two[: i + 2] = 0
            for s in range(0, len(rows), 4):
                r0, r1, r2, r3 = rows[s], rows[s + 1], rows[s + 2], rows[s + 3]
                a0, a1, a2, a3 = r0[i], r1[i], r2[i], r3[i]
                b0, b1, b2, b3 = r0[i + 1], r1[i + 1], r2[i + 1], r3[i + 1]
                for k in range(i + 2):
                    one[k] += a0 * r0[k] + a1 * r1[k] + a2 * r2[k] + a3 * r3[k]
                    two[k] += b0 * r0[k] + b1 * r1[k] + b2 * r2[k] + b3 * r3[k]
            for k in range(i + 1):
                scatter[p, first + k] += one[k]
            first += i + 1
            if i + 1 < n_features:
                for k in range(i + 2):
                    scatter[p, first + k] += two[k]
                first += i + 2


@njit(**_FAST)
def inverse_factors(scatter, degrees_of_freedom, regularization, factors, start, stop):
    """Inverse Cholesky factors of ``scatter / degrees_of_freedom + regularization * I``.

    Their last number is NaN where a covariance is not positive definite.
    """
    n = _rows_of(scatter[0])
    upper, lower = np.empty((n, n)), np.zeros((n, _up_to(4, n)))  # Lᵀ and L⁻¹
    for p in range(start, stop):
        first = 0
        for i in range(n):
            for k in range(i + 1):
                upper[k, i] = scatter[p, first + k] / degrees_of_freedom
            upper[i, i] += regularization
            first += i + 1
        for i in range(n):  # each row of Lᵀ from those above it
            row = upper[i]
            _subtract_rows(upper[:, i], upper, i, i, n, row)
            scale = 1 / np.sqrt(row[i])  # of a negative number, NaN, which spreads
            for k in range(i, n):
                row[k] *= scale
        first = 0
        for i in range(n):  # and of L⁻¹
            row = lower[i]
            row[:] = 0
            _subtract_rows(upper[:, i], lower, i, 0, 0, row)
            scale = 1 / upper[i, i]
            for k in range(i):
                row[k] *= scale
            row[i] = scale
            for k in range(i + 1):
                factors[p, first + k] = row[k]
            first += i + 1


@njit(inline="always", **_FAST)
def _subtract_rows(weights, rows, n, start, stop, target):
    """Subtract n rows, times their weights, between `start` and `stop`; 0: up to the diagonal."""
    whole = n // 4 * 4
    for j in range(0, whole, 4):
        a, b, c, d = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        r0, r1, r2, r3 = rows[j], rows[j + 1], rows[j + 2], rows[j + 3]
        for k in range(start, stop or j + 4):
            target[k] -= a * r0[k] + b * r1[k] + c * r2[k] + d * r3[k]
    for j in range(whole, n):
        a, r0 = weights[j], rows[j]
        for k in range(start, stop or j + 1):
            target[k] -= a * r0[k]


@njit(**_FAST)
def mahalanobis(embeddings, mean, factors, distances, number, start, stop):
    """Distances ``‖W (x - μ)‖`` of embeddings, computed in numbers of the dtype `number`."""
    n_samples, _, n_features = embeddings.shape
    columns, few = _scratch(n_features, number)
    rows = np.empty((4, len(columns)), number)
    bits = rows.view(np.uint32)
    squared = np.empty(_BLOCK, number)
    for p in range(start, stop):
        for first in range(0, n_samples, _BLOCK):
            n = min(_BLOCK, n_samples - first)
            # In float64: a mean rounded to float32 is off by more than samples far from 0 vary.
            if n <= _FEW:
                for s in range(n):
                    for k in range(n_features):
                        few[s, k] = embeddings[first + s, p, k] - mean[p, k]
            else:
                for s in range(n):
                    for k in range(n_features):
                        columns[k, s] = embeddings[first + s, p, k] - mean[p, k]
            _square(factors[p], columns, few, n, rows, bits, squared)
            for s in range(n):
                distances[first + s, p] = np.sqrt(squared[s])


@njit(**_FAST)
def low_rank_mahalanobis(
    embeddings, mean, samples, inverse, regularization, distances, start, stop
):
    """Distances ``sqrt((‖δ‖² - ‖L⁻¹ X δ‖²) / λ)``; X are the samples, not centred yet."""
    n_samples, _, n_features = samples.shape
    columns, few = _scratch(n_features, np.float64)
    products, few_products = _scratch(n_samples, np.float64)
    centred, rows = np.zeros((4, len(columns))), np.empty((4, len(products)))
    sums, bits = np.empty((4, _BLOCK)), rows.view(np.uint32)
    squared, whitened = np.empty(_BLOCK), np.empty(_BLOCK)
    for p in range(start, stop):
        for first in range(0, len(embeddings), _BLOCK):
            n = min(_BLOCK, len(embeddings) - first)
            squared[:] = 0
            for s in range(n):
                for k in range(n_features):
                    difference = embeddings[first + s, p, k] - mean[p, k]
                    squared[s] += difference * difference
                    if n <= _FEW:
                        few[s, k] = difference
                    else:
                        columns[k, s] = difference
            if n <= _FEW:
                _multiply_few(samples, mean, p, few, n, few_products)
            else:
                for i in range(0, n_samples, 4):
                    end = min(i + 4, n_samples)
                    for r in range(i, end):
                        for k in range(n_features):
                            centred[r - i, k] = samples[r, p, k] - mean[p, k]
                    _multiply(centred, columns, len(columns), sums)
                    products[i:end] = sums[: end - i]
            _square(inverse[p], products, few_products, n, rows, bits, whitened)
            for s in range(n):
                rest = squared[s] - whitened[s]
                distances[first + s, p] = 0 if rest < 0 else np.sqrt(rest / regularization)


@njit(inline="always")
def _scratch(n, number):
    """Arrays for a block of vectors of length n, side by side, and for a few, as rows."""
    return np.zeros((_up_to(4, n), _BLOCK), number), np.zeros((_FEW, _up_to(4, n)), number)


@njit(inline="always", **_FAST)
def _square(triangle, columns, few, n_vectors, rows, bits, squared):
    """Square lengths of the products of a triangle with vectors: a few, or a block of columns."""
    n, first = _rows_of(triangle), 0
    sums = np.empty((4, _BLOCK), columns.dtype)
    squared[:] = 0
    rows[:] = 0
    for i in range(0, n, 4):
        for r in range(4):
            size = i + r + 1 if i + r < n else 0
            _copy_row(triangle[first : first + size], rows[r], bits[r])
            if size == 0:
                rows[r] = 0
            first += size
        if n_vectors <= _FEW:
            r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
            for s in range(n_vectors):
                vector = few[s]
                p0 = p1 = p2 = p3 = vector.dtype.type(0)
                for k in range(i + 4):
                    x = vector[k]
                    p0 += r0[k] * x
                    p1 += r1[k] * x
                    p2 += r2[k] * x
                    p3 += r3[k] * x
                squared[s] += p0 * p0 + p1 * p1 + p2 * p2 + p3 * p3
        else:
            _multiply(rows, columns, i + 4, sums)
            for r in range(4):
                for s in range(_BLOCK):
                    squared[s] += sums[r, s] * sums[r, s]


@njit(inline="always", **_FAST)
def _multiply(rows, columns, n, sums):
    """Products of four rows with a block of columns, of which n numbers count, four at a time."""
    sums[:] = 0
    for k in range(0, n, 4):
        a0, a1, a2, a3 = rows[0, k], rows[0, k + 1], rows[0, k + 2], rows[0, k + 3]
        b0, b1, b2, b3 = rows[1, k], rows[1, k + 1], rows[1, k + 2], rows[1, k + 3]
        c0, c1, c2, c3 = rows[2, k], rows[2, k + 1], rows[2, k + 2], rows[2, k + 3]
        d0, d1, d2, d3 = rows[3, k], rows[3, k + 1], rows[3, k + 2], rows[3, k + 3]
        for s in range(_BLOCK):
            x0, x1, x2, x3 = columns[k, s], columns[k + 1, s], columns[k + 2, s], columns[k + 3, s]
            sums[0, s] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
            sums[1, s] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
            sums[2, s] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
            sums[3, s] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@njit(inline="always", **_FAST)
def _multiply_few(samples, mean, p, vectors, n_vectors, products):
    """Products of a few vectors with the samples of a position, centred, four at a time."""
    centre, last = mean[p], len(samples) - 1
    for i in range(0, len(samples), 4):
        one, two, three = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        r0, r1, r2, r3 = samples[i, p], samples[one, p], samples[two, p], samples[three, p]
        for s in range(n_vectors):
            vector = vectors[s]
            p0 = p1 = p2 = p3 = 0.0
            for k in range(len(centre)):
                x, c = vector[k], centre[k]
                p0 += (r0[k] - c) * x
                p1 += (r1[k] - c) * x
                p2 += (r2[k] - c) * x
                p3 += (r3[k] - c) * x
            products[s, i], products[s, one] = p0, p1
            products[s, two], products[s, three] = p2, p3


@njit(inline="always")
def _rows_of(triangle):
    return int(np.sqrt(2 * len(triangle)))


@njit(inline="always")
def _up_to(step, n):
    """The next multiple of a number."""
    return -(-n // step) * step


def _copy_row(row, target, bits):
    """Copy factors; bfloat16, which Numba does not know, comes as the upper half of float32."""


@overload(_copy_row, inline="always")
def _copy_row_of(row, target, bits):
    if row.dtype != types.uint16:

        def copy(row, target, bits):
            for k in range(len(row)):
                target[k] = row[k]

    else:

        def copy(row, target, bits):
            for k in range(len(row)):
                bits[k] = np.uint32(row[k]) << np.uint32(16)

    return copy
