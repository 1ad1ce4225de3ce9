"""Covariances of the Gaussians, without the regularization: a model holds scatters, or samples."""

from __future__ import annotations

import numpy as np
import torch

from skpadim.gaussian._linalg import blas_threads, diagonals, symmetric_matrices
from skpadim.gaussian._moments import Moments, Samples
from skpadim.gaussian._sharing import all_moments


def covariances(state: Moments | Samples, sharing: str, grid: np.ndarray) -> np.ndarray:
    """Matrices (n_gaussians, n_features, n_features), float64, of a state on a CPU."""
    if isinstance(state, Samples) and sharing == "position":
        centred = (state.rows.numpy() - state.mean.numpy()).swapaxes(0, 1)
        with blas_threads(torch.get_num_threads()):
            products = centred.swapaxes(1, 2) @ centred
        products /= max(state.count - 1, 1)  # in place: they may be gigabytes
        return products
    n_gaussians, n_features = state.mean.shape
    matrices = np.empty((n_gaussians, n_features, n_features))
    for positions, moments in all_moments(state, sharing, grid):
        products = symmetric_matrices(moments.scatter).numpy()
        matrices[positions] = products / max(moments.count - 1, 1)
    return matrices


def variances(state: Moments | Samples, sharing: str, grid: np.ndarray) -> np.ndarray:
    """Their diagonals (n_gaussians, n_features), float64, without making the matrices."""
    if isinstance(state, Samples) and sharing == "position":
        squares = state.rows.double().sub_(state.mean).square_().sum(dim=0)
        return (squares / max(state.count - 1, 1)).numpy()
    values = torch.empty_like(state.mean)
    for positions, moments in all_moments(state, sharing, grid):
        values[positions] = diagonals(moments.scatter) / max(moments.count - 1, 1)
    return values.numpy()
