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
    (shift, turn), (shift_then, turn_then) = as_complex(first), as_complex(then)
    return as_rows(turn_then * shift + shift_then, turn_then * turn)


def inverse(motions: torch.Tensor) -> torch.Tensor:
    """The motions that undo some."""
    shift, turn = as_complex(motions)
    return as_rows(-shift / turn, 1 / turn)


def about(motions: torch.Tensor, centre: tuple[float, float]) -> torch.Tensor:
    """The same motions about another centre, given by its (row, column) from the image's."""
    shift, turn = as_complex(motions)
    return as_rows(shift + (turn - 1) * complex(*reversed(centre)), turn)


def as_complex(motions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers (n,): where x + i * y lies then is this times the second, plus the first."""
    # y points down, so a counter-clockwise turn is a negative one.
    turn = torch.polar(motions[:, 3].contiguous(), torch.deg2rad(-motions[:, 2]))
    return torch.complex(motions[:, 1], motions[:, 0]), turn


def as_rows(shift: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Motions (n, 4) of what :func:`as_complex` gives."""
    return torch.stack([shift.imag, shift.real, -torch.rad2deg(turn.angle()), turn.abs()], dim=1)


def places(motions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Where in images of a size those parts lie that are at each pixel of the reference.

    (n, height, width, 2) of (x, y) from -1 to 1, as :func:`torch.nn.functional.grid_sample` has
    them.
    """
    height, (shift, turn) = size[0], as_complex(motions)
    y, x = (
        torch.arange(side, device=motions.device, dtype=motions.dtype) - (side - 1) / 2
        for side in size
    )
    # Rows and columns apart, and both coordinates at once: a hundredth of F.affine_grid's time.
    parts = turn[:, None] * torch.cat([y * 1j, x])
    parts[:, :height] += shift[:, None]
    parts = torch.view_as_complex(torch.view_as_real(parts) * to_unit(size, motions))
    return torch.view_as_real(parts[:, :height, None] + parts[:, None, height:])


def to_unit(size: tuple[int, int], like: torch.Tensor) -> torch.Tensor:
    """What pixels (x, y) from the centre are multiplied by to lie from -1 to 1."""
    return like.new_tensor([2 / size[1], 2 / size[0]])


def are_inside(grid: torch.Tensor) -> torch.Tensor:
    """Which :func:`places` lie in the images."""
    near = grid.abs() <= 1
    return near[..., 0] & near[..., 1]


def sample(images: torch.Tensor, grid: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
    """Values of images (n, channels, height, width) at places; beyond the border, reflected."""
    return F.grid_sample(images, grid, mode=mode, padding_mode="reflection", align_corners=False)
