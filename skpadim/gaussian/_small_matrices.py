"""Products and Cholesky factors of many small matrices, each at one patch position.

On a CPU by NumPy, whose BLAS computes one triangle of a symmetric product and copies it to the
other, and factorises matrices of this size in half of the time that torch takes; elsewhere by
torch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

# Of the sixteen digits of float64, more than six are to be left.
_MAX_DIGITS_LOST = 3e9

_limiting = threading.Lock()


def gram_matrices(rows: torch.Tensor) -> torch.Tensor:
    """Products ``X Xᵀ``.

    Parameters
    ----------
    rows : tensor of shape (n_matrices, n_rows, n_columns)

    Returns
    -------
    products : tensor of shape (n_matrices, n_rows, n_rows)
    """
    if rows.device.type != "cpu":
        return torch.bmm(rows, rows.mT)
    array = rows.numpy()
    return torch.from_numpy(np.matmul(array, array.transpose(0, 2, 1)))


def cholesky(matrices: torch.Tensor, regularization: float) -> torch.Tensor:
    """Lower Cholesky factors, or an error that says what to do where there are none.

    Parameters
    ----------
    matrices : tensor of shape (..., n, n)
        Only the lower triangles are read.
    regularization : float
        For the error.

    Returns
    -------
    factors : tensor of shape (..., n, n)

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not positive definite.
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

    Parameters
    ----------
    lost : tensor
        By how much rounding errors are magnified: diagonal entries over what factorising has left
        of them, say.
    regularization : float
        For the error.
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
