"""Motions of a part in the image plane, and images moved by them.

A motion is a row (dy, dx, angle, scale): a part lies dy pixels lower and dx further right than in
the reference, is turned counter-clockwise by `angle` degrees and is `scale` times as large, both
about the centre of the image. Here they are tensors (n, 4) in float32, in pixels of the image.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def no_motion(n: int) -> torch.Tensor:
    """Motions of n parts that lie where they should."""
    return torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(n, 1)


def compose(first: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """The motion of a part that is moved by one motion, and with its surroundings by another."""
    shifts = _turned(then, first[:, 0], first[:, 1]) + then[:, :2]
    return torch.cat([shifts, first[:, 2:3] + then[:, 2:3], first[:, 3:] * then[:, 3:]], dim=1)


def inverse(motions: torch.Tensor) -> torch.Tensor:
    """The motions that undo some."""
    back = torch.stack([motions[:, 0], motions[:, 1], -motions[:, 2], 1 / motions[:, 3]], 1)
    back[:, :2] = -_turned(back, back[:, 0], back[:, 1])
    return back


def about(motions: torch.Tensor, centre: tuple[float, float]) -> torch.Tensor:
    """The same motions about another centre, given by its (row, column) from the image's."""
    moved = motions.clone()
    moved[:, :2] += _turned(motions, *centre) - motions.new_tensor(centre)
    return moved


def _turned(motions, rows, columns):
    """Places (n, 2), from the centre, turned and scaled."""
    cos, sin = _cos_and_sin(motions)
    # Rows point down: a counter-clockwise turn takes (0, 1), to the right, to (-sin, cos), upwards.
    return torch.stack([cos * rows - sin * columns, sin * rows + cos * columns], 1)


def _cos_and_sin(motions):
    angle = torch.deg2rad(motions[:, 2])
    return motions[:, 3] * torch.cos(angle), motions[:, 3] * torch.sin(angle)


def places(
    motions: torch.Tensor, size: tuple[int, int], points: tuple[int, int] | None = None
) -> torch.Tensor:
    """Where in images of a size those parts lie that are at even points in the reference.

    (n, height, width, 2) of (x, y) from -1 to 1, as :func:`torch.nn.functional.grid_sample` has
    them; by default a point a pixel.
    """
    (height, width), (cos, sin) = size, _cos_and_sin(motions)
    y, x = (
        (torch.arange(n, device=motions.device, dtype=motions.dtype) * 2 + 1) / n - 1
        for n in points or size
    )
    by_x = torch.stack([cos, sin * (-width / height)], 1)
    by_y = torch.stack([sin * (height / width), cos], 1)
    shifts = torch.stack([motions[:, 1] * (2 / width), motions[:, 0] * (2 / height)], 1)
    # Rows and columns apart: a tenth of the time of F.affine_grid.
    of_rows = by_y[:, None] * y[:, None] + shifts[:, None]
    return of_rows[:, :, None] + (by_x[:, None] * x[:, None])[:, None]


def are_inside(grid: torch.Tensor) -> torch.Tensor:
    """Which :func:`places` lie in the images."""
    return (grid[..., 0].abs() <= 1) & (grid[..., 1].abs() <= 1)


def sample(images: torch.Tensor, grid: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Values of images (n, channels, height, width) at places; beyond the border, reflected."""
    return F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
