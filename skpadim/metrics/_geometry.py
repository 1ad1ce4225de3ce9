"""Where a detector's maps lie in the images: masks to maps, and maps to masks.

A detector resizes an image, cuts out a window and makes a map of it. Masks go the same way with
nearest-neighbour sampling; on the way back a map is sampled bilinearly at the pixels of the mask,
inside the window only.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image

_RAMP = 64
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Window:
    """The part of the resized image that maps show.

    Attributes
    ----------
    resized : tuple of int
        Height and width of the resized image.
    corner : tuple of int
        Row and column of the window's first pixel in it.
    size : tuple of int
        Height and width of the window, and of the maps.
    """

    resized: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, detector, map_shape: tuple[int, int]) -> Window:
        """Window of a detector: what its ``embedder_.preprocess`` does, or the whole image."""
        preprocess = getattr(getattr(detector, "embedder_", None), "preprocess", None)
        torch = sys.modules.get("torch")
        if preprocess is None or torch is None:
            return cls(map_shape, (0, 0), map_shape)
        # An image that shows its own coordinates tells what becomes of them.
        ramp = (torch.arange(_RAMP, dtype=torch.float32) + 0.5) / _RAMP
        image = torch.zeros(3, _RAMP, _RAMP)
        image[0], image[1] = ramp[:, None], ramp
        rows, columns, _ = preprocess(image).double().numpy()
        axes = [_axis(rows[:, rows.shape[1] // 2]), _axis(columns[columns.shape[0] // 2])]
        resized, corner = (tuple(pair) for pair in zip(*axes, strict=True))
        window = cls(resized, corner, rows.shape)
        if window.size != tuple(map_shape):
            raise ValueError(
                f"The detector's maps have shape {tuple(map_shape)}, and its preprocessing makes "
                f"images of shape {window.size}: the two must be the same."
            )
        return window

    def crop_mask(self, mask: np.ndarray) -> np.ndarray:
        """Mask of an image, resized (nearest neighbour) and cropped to the window."""
        rows, columns = (
            ((np.arange(corner, corner + size) + 0.5) * length / resized).astype(int)
            for corner, size, length, resized in self._axes(mask.shape)
        )
        return mask[np.ix_(rows, columns)]

    def inspected(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of an image of that shape whose centres lie in the window."""
        return tuple(
            slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
            for inside, _ in (self._inside(*axis) for axis in self._axes(shape))
        )

    def resize_map(self, anomaly_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Sample a map bilinearly at the pixels that :meth:`inspected` names.

        Parameters
        ----------
        anomaly_map : ndarray of shape `size`
        shape : tuple of int
            Height and width of the original image.

        Returns
        -------
        anomaly_map : ndarray
        """
        for axis, geometry in enumerate(self._axes(shape)):
            size = anomaly_map.shape[axis]
            _, centres = self._inside(*geometry)
            centres = np.clip(centres, 0, size - 1)
            left = np.minimum(centres.astype(int), max(size - 2, 0))
            weight = (centres - left).astype(anomaly_map.dtype)
            weight = weight[:, None] if axis == 0 else weight
            low = anomaly_map.take(left, axis)
            high = anomaly_map.take(np.minimum(left + 1, size - 1), axis)
            anomaly_map = low + weight * (high - low)
        return anomaly_map

    def _axes(self, shape):
        return list(zip(self.corner, self.size, shape, self.resized, strict=True))

    def _inside(self, corner, size, length, resized):
        """Pixels along an axis that the window holds, and their places in the map."""
        places = (np.arange(length) + 0.5) * resized / length - corner
        inside = np.flatnonzero((places > 0) & (places < size))
        return inside, places[inside] - 0.5


def read_mask(mask, index: int, shape: tuple[int, int] | None = None) -> np.ndarray:
    """One mask as bool (height, width): an array, a path, or None for a good image.

    Parameters
    ----------
    mask : ndarray, tensor, any object with ``__array__``, path or None
    index : int
        Named in errors.
    shape : tuple of int, default=None
        Of the zeros that None stands for.
    """
    if is_missing(mask):
        return np.zeros(shape, bool)
    if isinstance(mask, (str, os.PathLike)):
        try:
            with Image.open(mask) as image:
                return np.asarray(image.convert("L")) > 127
        except OSError as error:
            raise ValueError(
                f"{_mask_name(mask, index)} cannot be read as an image ({error})."
            ) from error
    try:
        array = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)
    except (OSError, ValueError) as error:
        raise ValueError(f"masks[{index}] cannot be read: {error}") from error
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise ValueError(
            f"masks[{index}] has shape {array.shape} and dtype {array.dtype}; a mask must be an "
            "array (height, width), the path of an image, or None for a good image."
        )
    if array.dtype != bool:
        values = np.unique(array)
        if not any(np.isin(values, (0, value)).all() for value in (1, 255)):
            raise ValueError(
                f"masks[{index}] has {len(values)} values up to {values.max():g}; a mask must be "
                "bool, or 0 and 1, or 0 and 255, anomalous where not 0."
            )
    return array != 0


def is_missing(mask) -> bool:
    """Whether there is no mask: None, or the NaN that pandas may make of it."""
    return mask is None or (isinstance(mask, float) and np.isnan(mask))


def check_mask_size(array: np.ndarray, mask, image, index: int):
    """Check that a mask in a file has the size of its image, if that is a file too.

    Only the image's header is read. Files that Pillow does not know are let pass, as the
    detector's own affair, and so are masks in memory, which somebody may have resized.

    Parameters
    ----------
    array : ndarray of shape (height, width)
        What was read of the mask.
    mask, image
        As given.
    index : int
        Named in errors.
    """
    in_memory = is_missing(mask) or hasattr(mask, "dtype")
    if in_memory or not isinstance(image, (str, os.PathLike)):
        return
    size = image_size(image)
    if size is not None and size != array.shape:
        raise ValueError(
            f"{_mask_name(mask, index)} is {array.shape[0]} x {array.shape[1]} pixels (height x "
            f"width) and its image {os.fspath(image)} is {size[0]} x {size[1]}: a mask must have "
            "the size of its image. Are masks and images in the same order?"
        )


def image_size(path) -> tuple[int, int] | None:
    """Height and width of an image file, turned as its EXIF orientation says.

    Returns
    -------
    size : tuple of int, or None if it cannot be read as an image
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except (OSError, ValueError):
        return None
    return (width, height) if turned else (height, width)


def _mask_name(mask, index):
    name = os.fspath(mask) if isinstance(mask, (str, os.PathLike)) else repr(mask)
    return f"masks[{index}] ({name})"


def _axis(coordinates):
    """Length of the resized axis, and the window's start on it, from a ramp over the image."""
    n = len(coordinates)
    # Away from the borders, where the ends of the ramp are repeated, it is a straight line.
    inner = np.flatnonzero((coordinates > 1.5 / _RAMP) & (coordinates < 1 - 1.5 / _RAMP))
    if len(inner) < 2:
        return n, 0
    first, last = inner[0], inner[-1]
    resized = round((last - first) / (coordinates[last] - coordinates[first]))
    return resized, round(coordinates[first] * resized - 0.5 - first)
