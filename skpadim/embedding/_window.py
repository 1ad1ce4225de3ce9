"""What does the network see of its input, and of which patches are embeddings wanted?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from skpadim.backbones._backbone import Backbone
from skpadim.images._roi import cells_of


class Window(NamedTuple):
    """A part of the input, and the patches that are wanted of it."""

    rows: slice  # of pixels
    columns: slice
    cells: np.ndarray  # bool, of the grid that the network makes of this part


def whole_window(size: tuple[int, int], cells: np.ndarray) -> Window:
    """All of an input of some size."""
    return Window(slice(0, size[0]), slice(0, size[1]), cells)


def window_around(roi: np.ndarray, backbone: Backbone, layers: tuple[str, ...], grid) -> Window:
    """The smallest part of the input that has all of a region, as the network can take it."""
    size, step = roi.shape, backbone.layers[layers[-1]].stride
    cells = cells_of(torch.tensor(roi)[None], grid)[0].numpy()
    rows, columns = (_span(roi.any(axis=1 - axis), step, size[axis]) for axis in (0, 1))
    window = rows.stop - rows.start, columns.stop - columns.start
    if window in backbone.sizes_near(window, layers):
        stride = backbone.layers[layers[0]].stride
        top, left = rows.start // stride, columns.start // stride
        height, width = backbone(torch.zeros(1, 3, *window), layers[:1])[0].shape[2:]
        inside = cells[top : top + height, left : left + width]
        if inside.shape == (height, width) and inside.sum() == cells.sum():
            return Window(rows, columns, inside)
    return whole_window(size, cells)


def _span(is_inside, step, length):
    """From the first to the last that is inside, at multiples of `step` or the end."""
    (places,) = is_inside.nonzero()
    start, stop = places[0] // step * step, -(-(places[-1] + 1) // step) * step
    return slice(int(start), int(min(stop, length)))


def seen_of(pixels: torch.Tensor, window: Window, roi: np.ndarray | None) -> torch.Tensor:
    """What the network sees of pixels (n_samples, 3, height, width).

    Of an image its region alone, surrounded by the mean colour of that: what lies outside cannot
    play any part then.
    """
    if roi is None:
        return pixels
    where = window.rows, window.columns
    seen = pixels[..., where[0], where[1]].clone()
    inside = torch.tensor(roi[where]).to(seen.device)
    mean = seen[..., inside].mean(dim=-1, keepdim=True, dtype=torch.float32)
    seen[..., ~inside] = (mean.round() if seen.dtype == torch.uint8 else mean).to(seen.dtype)
    return seen
