"""What generated pictures are drawn with: coordinates, smooth noise, distances, soft edges.

Lengths are shares of the picture's side, so that one seed draws the same part at any size.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np


class Canvas:
    """Coordinates of a square picture's pixels.

    Attributes
    ----------
    x, y : ndarray of shape (1, size) and (size, 1), float32
        From -0.5 (left, top) to 0.5.
    shape : tuple of int
    """

    def __init__(self, size):
        axis = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
        self.size, self.shape = size, (size, size)
        self.x, self.y = axis[None, :], axis[:, None]

    def edge(self, depth):
        """Share of each pixel that is inside, given its depth there (negative outside)."""
        return np.clip(depth * self.size + 0.5, 0, 1)

    def noise(self, rng, scale, scale_x=None):
        """Smooth Gaussian noise of mean 0 and variance 1 at every pixel.

        Parameters
        ----------
        rng : Generator
        scale, scale_x : float
            Correlation length down and across; `scale_x` is `scale` where it is not given.
        """
        down, across = self._kernel(scale), self._kernel(scale_x or scale)
        nodes = rng.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32)
        return down @ nodes @ across.T

    def _kernel(self, scale):
        """Gaussian weights (size, nodes) of nodes `scale` apart; each pixel's have norm 1."""
        nodes = np.arange(-0.5 - 3 * scale, 0.5 + 4 * scale, scale, dtype=np.float32)
        weights = np.exp(-(((self.y - nodes) / scale) ** 2))
        return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def distance_to_line(x, y, points):
    """Distance of each place (x, y) to a line through `points`, (x, y) each."""
    nearest = np.float32(np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
        u, v = x - np.float32(x0), y - np.float32(y0)
        along = np.clip((u * dx + v * dy) / (dx**2 + dy**2 + np.float32(1e-12)), 0, 1)
        nearest = np.minimum(nearest, (u - along * dx) ** 2 + (v - along * dy) ** 2)
    return np.sqrt(nearest)


def blend(below, above, share):
    """Lay a colour or picture over another, with opacity `share` (height, width)."""
    return below + share[..., None] * (np.asarray(above, dtype=np.float32) - below)


def box_depth(x, y, half_width, half_height, corner=0.0):
    """Depth of points inside a box around 0 with round corners; negative outside."""
    dx, dy = np.abs(x) - half_width + corner, np.abs(y) - half_height + corner
    return (
        corner - np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) - np.minimum(np.maximum(dx, dy), 0)
    )
