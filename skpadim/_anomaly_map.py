"""From a grid of patch distances to the anomaly map and the image's score.

Bilinear upsampling and a Gaussian blur are both linear and separable, so the two together are a
matrix for the rows and a matrix for the columns: ``map = M_h @ grid @ M_w.T``.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from skpadim.alignment._motion import about, are_inside, inverse, places, sample

# Pixels of the input that features see around their cell, at least where it matters.
_SEEN_AROUND = 16


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


@lru_cache(maxsize=32)  # a GPU would wait for each copy
def _map_matrix(n_in, n_out, sigma, dtype, device):
    """Matrix (n_out, n_in) of upsampling and, unless `sigma` is 0, Gaussian blur along one axis."""
    matrix = upsampling_matrix(n_in, n_out)
    if sigma > 0:  # half-sample symmetric border, cut at four standard deviations
        matrix = gaussian_filter1d(matrix, sigma, axis=0)
    return torch.as_tensor(matrix).to(device, dtype)


def anomaly_maps(
    distances: torch.Tensor,
    size: tuple[int, int],
    sigma: float,
    shown: torch.Tensor | None = None,
) -> torch.Tensor:
    """Maps (n_samples, height, width) of distances (n_samples, grid_height, grid_width).

    Section 3.3 of the PaDiM paper. Higher is more anomalous; `size` and `sigma` are in pixels;
    dtype and device are those of `distances`. Where `shown`, in [0, 1] and (grid_height,
    grid_width) or one an image, is less, distances count less beside those around.
    """
    if shown is not None:
        shown = shown.to(distances.device, distances.dtype)
        maps = anomaly_maps(distances * shown, size, sigma)
        weights = shown if shown.ndim == 3 else shown[None]
        maps /= anomaly_maps(weights, size, sigma).clamp(min=1e-6)
        # A number that is none must not be taken for a place that is not inspected.
        maps[~distances.isfinite().flatten(1).all(dim=1)] = torch.inf
        return maps
    rows, columns = (
        _map_matrix(n_in, n_out, sigma, distances.dtype, distances.device)
        for n_in, n_out in zip(distances.shape[1:], size, strict=True)
    )
    return rows @ (distances @ columns.T)


def on_grid(distances: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Distances (n_samples, n_positions) at the cells of a grid that are True, 0 elsewhere."""
    if cells.all():
        return distances.reshape(len(distances), *cells.shape)
    grids = distances.new_zeros((len(distances), *cells.shape))
    grids[:, cells.to(grids.device)] = distances
    return grids


def maps_in_images(
    distances: torch.Tensor,
    motions: torch.Tensor,
    image_size: tuple[int, int],
    size: tuple[int, int],
    sigma: float,
    inspected: torch.Tensor | None = None,
    roi: torch.Tensor | None = None,
) -> torch.Tensor:
    """As :func:`anomaly_maps`, of images that were moved back by `motions` (n_samples, 4).

    Distances count by the share of their cell that the image has shown. The maps lie as the images
    do, and are NaN where the reference has nothing, or nothing of the region `roi` (height, width),
    whose cells are `inspected`. `size` is that of the centre of the aligned images, of
    `image_size`, that distances and maps are of.
    """
    motions = motions.to(distances.device, distances.dtype)
    shown = _shares_shown(motions, image_size, size, distances.shape[1:])
    if inspected is not None:
        shown *= inspected.to(shown.device)
    maps = anomaly_maps(distances, size, sigma, shown)
    # Half a pixel from the image's centre where one more is cut off on that side.
    centre = [-((whole - part) % 2) / 2 for whole, part in zip(image_size, size, strict=True)]
    grid = places(inverse(about(motions, centre)), size)
    moved = sample(maps[:, None], grid)[:, 0]
    is_known = are_inside(grid)
    if roi is not None:
        region = roi.to(moved.device, moved.dtype).expand(len(moved), 1, *size)
        is_known &= sample(region, grid, mode="nearest")[:, 0] > 0
    return moved.masked_fill_(~is_known, torch.nan)


def _shares_shown(motions, image_size, size, grid):
    """Share of each cell (n_samples, grid_height, grid_width) that its image has shown."""
    shown = are_inside(places(motions, image_size))[:, None].to(torch.float32)
    top, left = ((whole - part) // 2 for whole, part in zip(image_size, size, strict=True))
    shown = adaptive_avg_pool2d(shown[..., top : top + size[0], left : left + size[1]], grid)
    # A cell has that of the least shown around it: what features see of the border is reflected.
    around = [round(_SEEN_AROUND * n / side) for n, side in zip(grid, size, strict=True)]
    window = [2 * n + 1 for n in around]
    return -max_pool2d(-shown, window, stride=1, padding=around)[:, 0]


def image_scores(maps: torch.Tensor) -> torch.Tensor:
    """Score of each image: the highest value of its anomaly map, of shape (n_samples,).

    Pixels that are NaN do not count, unless all are.
    """
    if maps.device.type == "cpu":  # where torch would wake its threads for each image
        return torch.from_numpy(np.fmax.reduce(maps.numpy(), axis=(1, 2)))
    highest = maps.nan_to_num(nan=-torch.inf).amax(dim=(1, 2))
    return highest.masked_fill(highest == -torch.inf, torch.nan)
