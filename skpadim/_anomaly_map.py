"""From a grid of patch distances to the anomaly map and the image's score.

Bilinear upsampling and a Gaussian blur are both linear and separable, so the two together are a
matrix for the rows and a matrix for the columns: ``map = M_h @ grid @ M_w.T``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d


def upsampling_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Matrix (n_out, n_in) of bilinear interpolation from cells to pixels along one axis, float64.

    Cell and pixel centres are half a step from the border (torch's ``align_corners=False``); beyond
    the outermost centres the border value is repeated. Rows sum to one.
    """
    centres = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
    left = np.minimum(centres.astype(int), max(n_in - 2, 0))
    weight = centres - left
    matrix = np.zeros((n_out, n_in))
    rows = np.arange(n_out)
    matrix[rows, left] = 1 - weight
    matrix[rows, np.minimum(left + 1, n_in - 1)] += weight
    return matrix


@lru_cache(maxsize=32)
def map_matrix(n_in: int, n_out: int, sigma: float) -> np.ndarray:
    """Matrix (n_out, n_in) of upsampling and Gaussian blur along one axis, float64.

    `sigma` is in pixels; 0 leaves the blur out. It is that of :func:`scipy.ndimage.gaussian_filter`
    with its defaults: half-sample symmetric border, cut at four standard deviations.
    """
    matrix = upsampling_matrix(n_in, n_out)
    return gaussian_filter1d(matrix, sigma, axis=0) if sigma > 0 else matrix


@lru_cache(maxsize=32)
def _map_matrix_on(n_in, n_out, sigma, dtype, device):
    """As a tensor: a GPU would wait for each copy of it."""
    return torch.as_tensor(map_matrix(n_in, n_out, sigma)).to(device, dtype)


def anomaly_maps(distances: torch.Tensor, size: tuple[int, int], sigma: float) -> torch.Tensor:
    """Maps (n_samples, height, width) of distances (n_samples, grid_height, grid_width).

    Section 3.3 of the PaDiM paper. Higher is more anomalous; `size` and `sigma` are in pixels;
    dtype and device are those of `distances`.
    """
    rows, columns = (
        _map_matrix_on(n_in, n_out, sigma, distances.dtype, distances.device)
        for n_in, n_out in zip(distances.shape[1:], size, strict=True)
    )
    return rows @ (distances @ columns.T)


def image_scores(maps: torch.Tensor) -> torch.Tensor:
    """Score of each image: the highest value of its anomaly map, of shape (n_samples,)."""
    if maps.device.type == "cpu":  # where torch would wake its threads for each image
        return torch.from_numpy(maps.numpy().max(axis=(1, 2)))
    return maps.amax(dim=(1, 2))
