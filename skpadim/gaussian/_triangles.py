"""Symmetric matrices kept as their lower triangles, row by row: in half of the memory.

Free functions on torch tensors of any device.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch


def triangle_size(n: int) -> int:
    """Number of entries of the lower triangle of an n x n matrix, the diagonal included."""
    return n * (n + 1) // 2


def triangle_rows(size: int) -> int:
    """Undo :func:`triangle_size`."""
    return (math.isqrt(8 * size + 1) - 1) // 2


def lower_triangles(matrices: torch.Tensor) -> torch.Tensor:
    """Lower triangles of matrices.

    Parameters
    ----------
    matrices : tensor of shape (n_matrices, n, n)

    Returns
    -------
    triangles : tensor of shape (n_matrices, n * (n + 1) / 2)
    """
    return _take(matrices.flatten(1), _of_lower_triangle(matrices.shape[-1], matrices.device))


def diagonals(triangles: torch.Tensor) -> torch.Tensor:
    """Diagonals (n_matrices, n) of the matrices of :func:`lower_triangles`."""
    steps = torch.arange(triangle_rows(triangles.shape[1]), device=triangles.device)
    return triangles[:, steps * (steps + 3) // 2]


def symmetric_matrices(triangles: torch.Tensor) -> torch.Tensor:
    """Undo :func:`lower_triangles`.

    Parameters
    ----------
    triangles : tensor of shape (n_matrices, n * (n + 1) / 2)

    Returns
    -------
    matrices : tensor of shape (n_matrices, n, n)
    """
    n = triangle_rows(triangles.shape[1])
    return _take(triangles, _of_symmetric_matrix(n, triangles.device)).unflatten(1, (n, n))


def _take(rows, indices):
    """Some entries of each row; by NumPy, which on a CPU takes a tenth of torch's time."""
    if rows.device.type != "cpu":
        return rows.index_select(1, indices)
    # The mode spares a check of the indices.
    return torch.from_numpy(np.take(rows.numpy(), indices, axis=1, mode="clip"))


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
