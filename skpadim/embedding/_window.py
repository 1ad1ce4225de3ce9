"""What does the network see of its input at a time, and of which patches are embeddings wanted?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from skpadim.backbones._backbone import Backbone

# Pixels that tiles have in common with the next one: a patch is taken from the tile that shows more
# of what is around it.
_OVERLAP = 64


class Window(NamedTuple):
    """A part of the input, and the patches that are wanted of it."""

    rows: slice  # of pixels
    columns: slice
    cells: np.ndarray  # bool, of the grid that the network makes of this part
    places: np.ndarray | None = None  # of these patches among all that are wanted; None is all


def windows_of(
    size: tuple[int, int],
    tile_size: tuple[int, int] | None,
    roi: np.ndarray | None,
    inspected: np.ndarray,
    backbone: Backbone,
    layers: tuple[str, ...],
) -> list[Window]:
    """Windows that show all patches which are inspected, each of them wanted of one."""
    if tile_size is not None:
        return tiles_of(size, tile_size, inspected, backbone.layers[layers[-1]].stride)
    if roi is not None:
        return [window_around(roi, inspected, backbone, layers)]
    return [whole_window(size, inspected)]


def whole_window(size: tuple[int, int], inspected: np.ndarray) -> Window:
    """All of an input of some size."""
    return Window(slice(0, size[0]), slice(0, size[1]), inspected)


def window_around(
    roi: np.ndarray, inspected: np.ndarray, backbone: Backbone, layers: tuple[str, ...]
) -> Window:
    """The smallest part of the input that has all of a region, as the network can take it."""
    step, stride = backbone.layers[layers[-1]].stride, backbone.layers[layers[0]].stride
    rows, columns = (
        _span(roi.any(axis=1 - axis), step, length) for axis, length in enumerate(roi.shape)
    )
    size = rows.stop - rows.start, columns.stop - columns.start
    if step % stride == 0 and size in backbone.sizes_near(size, layers):
        top, left = rows.start // stride, columns.start // stride
        try:
            height, width = backbone(torch.zeros(1, 3, *size), layers)[0].shape[2:]
        except (RuntimeError, AssertionError):  # a network that needs more pixels than these
            return whole_window(roi.shape, inspected)
        cells = inspected[top : top + height, left : left + width]
        if cells.shape == (height, width) and cells.sum() == inspected.sum():
            return Window(rows, columns, cells)
    return whole_window(roi.shape, inspected)


def _span(is_inside, step, length):
    """From the first to the last that is inside, at multiples of `step` or the end."""
    (places,) = is_inside.nonzero()
    start, stop = places[0] // step * step, -(-(places[-1] + 1) // step) * step
    return slice(int(start), int(min(stop, length)))


def tiles_of(
    size: tuple[int, int], tile_size: tuple[int, int], inspected: np.ndarray, step: int
) -> list[Window]:
    """Tiles that overlap, each with the patches that lie nearest to its centre; none without any.

    Sizes and the tiles' places are multiples of `step`.
    """
    numbers = np.cumsum(inspected).reshape(inspected.shape) - 1
    strides = [length // n for length, n in zip(size, inspected.shape, strict=True)]
    axes = (
        _axis_of_tiles(length, tile, step, stride)
        for length, tile, stride in zip(size, tile_size, strides, strict=True)
    )
    tiles = []
    all_rows, all_columns = axes
    for rows, wanted_rows in all_rows:
        for columns, wanted_columns in all_columns:
            wanted = np.zeros_like(inspected)
            wanted[wanted_rows, wanted_columns] = inspected[wanted_rows, wanted_columns]
            here = tuple(
                slice(part.start // stride, part.stop // stride)
                for part, stride in zip((rows, columns), strides, strict=True)
            )
            if wanted.any():
                tiles.append(Window(rows, columns, wanted[here], numbers[wanted]))
    return tiles


def _axis_of_tiles(length, tile, step, stride):
    """Pixels of the tiles along an axis, evenly spread, and the cells that are wanted of each."""
    tile = min(tile, length)
    overlap = min(_OVERLAP, tile // 2)
    n_tiles = 1 + -(-(length - tile) // max(step, (tile - overlap) // step * step))
    starts = np.linspace(0, (length - tile) // step, n_tiles).round().astype(int) * step
    ends = starts + tile
    # Between two tiles, in the middle of what they have in common.
    borders = [0, *((starts[1:] + ends[:-1]) // (2 * step) * step), length]
    return [
        (slice(int(start), int(end)), slice(int(first) // stride, int(last) // stride))
        for start, end, first, last in zip(starts, ends, borders[:-1], borders[1:], strict=True)
    ]


def seen_of(pixels: torch.Tensor, window: Window, roi: np.ndarray | None) -> torch.Tensor:
    """What the network sees of pixels (n_samples, 3, height, width).

    Of a region of interest, the region alone on a ground of its mean colour: what lies outside
    cannot play any part then.
    """
    seen = pixels[..., window.rows, window.columns]
    if roi is None:
        return seen
    seen, inside = seen.clone(), torch.tensor(roi[window.rows, window.columns]).to(seen.device)
    mean = seen[..., inside].mean(dim=-1, keepdim=True, dtype=torch.float32)
    seen[..., ~inside] = (mean.round() if seen.dtype == torch.uint8 else mean).to(seen.dtype)
    return seen
