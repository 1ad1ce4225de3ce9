"""How do embeddings of any kind, arrays or tensors, become tensors of one layout?"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.utils.validation import check_array, validate_data

from skpadim._arrays import check_dense
from skpadim.machine._file_memory import note_map

# Between these are the largest absolute values whose squares, multiplied and divided by variances
# and summed, do not overflow or vanish.
_FLOAT64_VALUES = 1e-100, 1e100


def check_embeddings(
    estimator, X, *, min_samples: int, fitted: bool = False
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Return X as a tensor (n_samples, n_positions, n_features), and its grid.

    X is an array or a tensor (n_samples, height, width, n_features) or (n_samples, n_features);
    its samples have the shape of the estimator's `location_` if that is `fitted`. The tensor is
    float32 or float64, and shares X's memory where it can; the grid is (height, width) or ().
    """
    check_dense(X, "X")
    if isinstance(X, torch.Tensor) and X.ndim in (2, 4):
        if not X.is_floating_point():
            raise TypeError(f"X must be a tensor of floats; its dtype is {X.dtype}.")
        X = X.detach()
        if X.dtype not in (torch.float32, torch.float64):
            X = X.to(torch.float32)  # half precision cannot be factorised
        # A finite sum has finite terms, and takes far less time; a sum may overflow, too.
        if not (X.sum().isfinite() or torch.isfinite(X).all()):
            raise ValueError("X has NaN or infinite values.")
        if len(X) < min_samples:
            raise ValueError(f"X has n_samples={len(X)}; at least {min_samples} are needed.")
    elif isinstance(X, torch.Tensor):
        pass  # refused below
    elif fitted and estimator.location_.ndim == 1:
        X = validate_data(estimator, X, reset=False, dtype=[np.float64, np.float32])
    else:
        X = check_array(
            X,
            dtype=[np.float64, np.float32],
            allow_nd=True,
            ensure_min_samples=min_samples,
            estimator=estimator,
            input_name="X",
        )
    if X.ndim not in (2, 4):
        raise ValueError(
            f"X has {X.ndim} dimensions, {tuple(X.shape)}: embeddings must be "
            "(n_samples, height, width, n_features) or (n_samples, n_features)."
        )
    if 0 in X.shape[1:]:
        raise ValueError(f"X has shape {tuple(X.shape)}: it has no features or positions.")
    grid = tuple(X.shape[1:-1])
    if fitted and tuple(X.shape[1:]) != estimator.location_.shape:
        raise ValueError(
            f"X has embeddings of shape {tuple(X.shape[1:])}, but {type(estimator).__name__} was "
            f"fitted with {estimator.location_.shape} as (height, width, n_features)."
        )
    tensor = X if isinstance(X, torch.Tensor) else as_tensor(X)
    if tensor.dtype == torch.float64:  # the squares of any float32 have a place in float64
        _check_squares(tensor)
    return tensor.reshape(len(X), -1, X.shape[-1]), grid


def _check_squares(X):
    """Raise if float64 has no place for the squares of values, or for sums of them."""
    largest = max(abs(value.item()) for value in X.aminmax())
    smallest, limit = _FLOAT64_VALUES
    if largest > limit or 0 < largest < smallest:
        raise ValueError(
            f"X has absolute values of up to {largest:.3g}, whose squares float64 has no place "
            f"for: the largest may be {limit:g}, and must be {smallest:g} or more unless all are "
            f"0. {'Divide' if largest > limit else 'Multiply'} all features by a constant."
        )


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Tensor that shares memory with an array, unless torch cannot (flips)."""
    note_map(array)
    shareable = array.flags.writeable or isinstance(array, np.memmap)  # which nothing writes to
    if not shareable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def as_numpy(array: np.ndarray | torch.Tensor) -> np.ndarray:
    """Array of the values of an array or a tensor, wherever that is."""
    return array.numpy(force=True) if isinstance(array, torch.Tensor) else array
