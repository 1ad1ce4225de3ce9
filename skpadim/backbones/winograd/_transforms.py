"""Winograd's transforms of windows, kernels and products, at six points along rows and columns.

The points are 0, ±a, ±b and infinity, with a² = 1/2 and b² = 2: the transforms' factors then are
the closest to one, and so is what they do to rounding errors. Windows of 6 inputs give tiles of 4
outputs of a kernel of 3, or of 3 outputs of a kernel of 4.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

WINDOW = 6
POINTS = WINDOW**2

_A, _B = 0.5**0.5, 2**0.5
# The finite points, and what a kernel's values there are multiplied with: one over the derivative
# of x (x - a) (x + a) (x - b) (x + b).
_FINITE_POINTS = torch.tensor([0, _A, -_A, _B, -_B], dtype=torch.float64)
_SCALES = torch.tensor([1, -2 / 3, -2 / 3, 1 / 6, 1 / 6], dtype=torch.float64)


def transform_kernels(weight: torch.Tensor, stride: int) -> torch.Tensor:
    """Values of kernels at the 6 x 6 points: (6, 6, n_out, n_terms), float64.

    With stride 1 `weight` is (n_out, n_in, 3, 3), and a term is a channel; with stride 2 it is
    (n_out, 3, 7, 7), and terms are the 12 channels of :func:`pairs_of_pixels`.
    """
    weight = weight.detach().double()
    if stride == 2:
        weight = pairs_of_pixels(weight)
    size = weight.shape[-1]
    finite = _SCALES[:, None] * _FINITE_POINTS[:, None] ** torch.arange(size)
    at_infinity = torch.eye(size, dtype=torch.float64)[-1:]
    transform = torch.cat([finite, at_infinity])
    return torch.einsum("ia,jb,ocab->ijoc", transform, transform, weight)


def pairs_of_pixels(weight: torch.Tensor) -> torch.Tensor:
    """Kernels (n_out, n_in, 7, 7) with stride 2 as (n_out, 4 * n_in, 4, 4) on pairs of pixels.

    Two rows and two columns of pixels are taken as one pixel of four times the channels: those of
    the first row, left pixel and right pixel, then those of the second.
    """
    pairs = pad(weight, (1, 0, 1, 0)).unflatten(3, (4, 2)).unflatten(2, (4, 2))
    return pairs.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)


def transform_window(x0, x1, x2, x3, x4, x5):
    """Six inputs of a window to its values at the six points."""
    even_a, odd_a = x4 - 2 * x2, _A * (x3 - 2 * x1)  # x4 - b² x2, a (x3 - b² x1)
    even_b, odd_b = x4 - 0.5 * x2, _B * (x3 - 0.5 * x1)  # x4 - a² x2, b (x3 - a² x1)
    return (
        x4 - 2.5 * x2 + x0,
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        x5 - 2.5 * x3 + x1,
    )


def transform_products(tile, at_0, at_a, at_minus_a, at_b, at_minus_b, at_infinity):
    """Products at the six points to the outputs of a tile, of which there are 3 or 4."""
    even_a, odd_a = at_a + at_minus_a, _A * (at_a - at_minus_a)
    even_b, odd_b = at_b + at_minus_b, _B * (at_b - at_minus_b)
    first = at_0 + even_a + even_b, odd_a + odd_b
    if tile == 3:
        return *first, 0.5 * even_a + 2 * even_b + at_infinity
    return *first, 0.5 * even_a + 2 * even_b, 0.5 * odd_a + 2 * odd_b + at_infinity
