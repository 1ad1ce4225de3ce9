"""A region of interest of any kind to the pixels of the network's input, True where inspected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn.functional import adaptive_max_pool2d

from skpadim.images._masks import read_mask
from skpadim.images._read import centre_of

_KINDS = (
    "a bool array (height, width), an image file that is black outside of the region and white "
    "inside, or a list of polygons, each a list of (x, y) in pixels of the images"
)


def read_roi(
    roi,
    sizes: Sequence[tuple[int, int] | None],
    size: tuple[int, int],
    crop: tuple[int, int],
    name: str = "roi",
) -> np.ndarray:
    """A region as bool (height, width) of `crop`, the centre of images that are resized to `size`.

    `sizes` are those of the images as they are, None if one is unknown; errors call it `name`.
    """
    known = set(sizes)
    own = known.pop() if len(known) == 1 else None  # what all images have
    if isinstance(roi, (list, tuple)) or _are_corners(roi):
        whole = _of_polygons(roi, own, name)
    else:
        whole = _of_mask(roi, name)
        if whole.shape not in (own, size):
            images = "have several sizes" if own is None else f"are {_words(own)}"
            raise ValueError(
                f"{name} is {_words(whole.shape)}. The images {images}, and image_size is "
                f"{_words(size)}: it must have the size of all images, or that of image_size."
            )
    rows, columns = (
        ((np.arange(n) + 0.5) * n_own / n).astype(int)
        for n, n_own in zip(size, whole.shape, strict=True)
    )
    top, left, bottom, right = centre_of(size, crop)
    inside = whole[np.ix_(rows[top:bottom], columns[left:right])]
    if not inside.any():
        where = ""
        if whole[np.ix_(rows, columns)].any():
            where = " within crop_size"
        elif whole.any():
            where = f" that is left at image_size, {_words(size)}"
        raise ValueError(f"{name} has no pixel{where}: there is nothing to inspect.")
    return inside


def _are_corners(roi):
    return isinstance(roi, np.ndarray) and roi.dtype != bool and roi.shape[-1:] == (2,)


def _of_mask(roi, name):
    try:
        return read_mask(roi, 0)
    except (TypeError, ValueError) as error:
        problem = str(error).removeprefix("masks[0]").partition(";")[0].partition(", and it ")[0]
        raise ValueError(f"{name}{problem.rstrip('.')}; it must be {_KINDS}.") from error


def _of_polygons(polygons, size, name):
    """Polygons, or one, drawn on a mask; their edges belong to them."""
    if size is None:
        raise ValueError(
            f"{name} is a list of polygons in pixels of the images, which have no common size: "
            "give a bool array or an image file of image_size."
        )
    try:
        corners = [np.asarray(each, dtype=np.float64) for each in polygons]
        if corners and all(each.size == 2 for each in corners):  # of a single one
            corners = [np.stack(corners)]
        # OpenCV's contours are (n, 1, 2).
        corners = [each.squeeze(1) if each.ndim == 3 else each for each in corners]
    except (TypeError, ValueError):
        corners = []
    are_polygons = [c.ndim == 2 and c.shape[1] == 2 and len(c) >= 3 for c in corners]
    if not are_polygons or not all(are_polygons) or not np.isfinite(np.concatenate(corners)).all():
        raise ValueError(
            f"{name} is a list, but not of polygons of 3 corners or more; it must be {_KINDS}."
        )
    height, width = size
    lowest, highest = np.concatenate(corners).min(axis=0), np.concatenate(corners).max(axis=0)
    if (lowest < -1).any() or (highest > (width, height)).any():
        raise ValueError(
            f"{name} has corners from ({lowest[0]:g}, {lowest[1]:g}) to ({highest[0]:g}, "
            f"{highest[1]:g}) as (x, y), outside of the images, which are {_words(size)}."
        )
    drawing = Image.new("1", (width, height))
    for each in corners:
        ImageDraw.Draw(drawing).polygon([tuple(corner) for corner in each.tolist()], fill=1)
    return np.array(drawing)


def _words(size):
    return f"{size[0]} pixels high and {size[1]} wide"


def cells_of(rois: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Which cells of a grid have a pixel of regions (n, height, width), bool (n, *grid)."""
    return adaptive_max_pool2d(rois.float(), grid) > 0
