"""Where a detector's maps lie in the images: masks to maps, and maps to masks.

A detector resizes an image, cuts out a window and makes a map of it. Masks go the same way with
nearest-neighbour sampling; on the way back a map is sampled bilinearly at the pixels of the mask,
inside the window only.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

_RAMP = 64


@dataclass(frozen=True)
class Window:
    """The part of the resized image that maps show."""

    resized: tuple[int, int]  # height and width of the resized image
    corner: tuple[int, int]  # row and column of the window's first pixel in it
    size: tuple[int, int]  # height and width of the window, and of the maps

    @classmethod
    def of(cls, detector, map_shape: tuple[int, int]) -> Window:
        """Window of a detector: what its ``embedder_.preprocess`` does, or the whole image."""
        preprocess = getattr(getattr(detector, "embedder_", None), "preprocess", None)
        torch = sys.modules.get("torch")
        if preprocess is None or torch is None:
            return cls(map_shape, (0, 0), map_shape)
        # An image that shows its own coordinates tells what becomes of them.
        ramp = (torch.arange(_RAMP, dtype=torch.float32, device="cpu") + 0.5) / _RAMP
        image = torch.zeros(3, _RAMP, _RAMP, dtype=torch.float32, device="cpu")
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

    def loses(self, mask: np.ndarray) -> bool:
        """Whether anomalous pixels lie in the window, and the cropped mask has none of them."""
        return bool(mask[self.inspected(mask.shape)].any() and not self.crop_mask(mask).any())

    def inspected(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of an image of that shape whose centres lie in the window."""
        return tuple(
            slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)
            for inside, _ in (self._inside(*axis) for axis in self._axes(shape))
        )

    def resize_map(self, anomaly_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Sample a map bilinearly at those pixels of an image that :meth:`inspected` names.

        NaN where the nearest pixel of the map is; beside those that are not, they do not count.
        """
        centres = [
            np.clip(self._inside(*axis)[1], 0, size - 1)
            for axis, size in zip(self._axes(shape), self.size, strict=True)
        ]
        known = ~np.isnan(anomaly_map)
        if known.all():
            return self._sample(anomaly_map, centres)
        is_near = known[np.ix_(*((each + 0.5).astype(int) for each in centres))]
        values = self._sample(np.where(known, anomaly_map, 0), centres)
        weights = self._sample(known.astype(anomaly_map.dtype), centres)
        resized = np.divide(values, weights, out=np.full_like(values, np.nan), where=is_near)
        return np.minimum(resized, np.fmax.reduce(anomaly_map, axis=None))  # but for rounding

    @staticmethod
    def _sample(anomaly_map, places):
        """Values at rows and columns, which may lie between pixels."""
        for axis, centres in enumerate(places):
            size = anomaly_map.shape[axis]
            left = np.minimum(centres.astype(int), max(size - 2, 0))
            weight = (centres - left).astype(anomaly_map.dtype)
            weight = weight[:, None] if axis == 0 else weight
            low = anomaly_map.take(left, axis)
            high = anomaly_map.take(np.minimum(left + 1, size - 1), axis)
            anomaly_map = low + weight * (high - low)
        return anomaly_map

    def in_image(self, anomaly_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """A map of an image of that shape, NaN at the pixels that :meth:`inspected` leaves out."""
        in_image = np.full(shape, np.nan, dtype=anomaly_map.dtype)
        in_image[self.inspected(shape)] = self.resize_map(anomaly_map, shape)
        return in_image

    def in_picture(self, anomaly_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """As :meth:`in_image`; if it is much smaller, its pixels have the highest they cover."""
        resized, corner, size = (list(pair) for pair in (self.resized, self.corner, self.size))
        for axis, inside in enumerate(self.inspected(shape)):
            n = shape[axis]
            if resized[axis] < 2 * n:
                continue
            starts = np.arange(inside.start, inside.stop) * resized[axis] / n - corner[axis]
            starts = np.maximum(starts, 0).astype(int)
            starts[:1] = 0
            anomaly_map = np.fmax.reduceat(anomaly_map, starts, axis)
            resized[axis], corner[axis], size[axis] = n, inside.start, len(starts)
        window = Window(tuple(resized), tuple(corner), tuple(size))
        return window.in_image(anomaly_map, shape)

    def _axes(self, shape):
        return list(zip(self.corner, self.size, shape, self.resized, strict=True))

    def _inside(self, corner, size, length, resized):
        """Pixels along an axis that the window holds, and their places in the map."""
        places = (np.arange(length) + 0.5) * resized / length - corner
        inside = np.flatnonzero((places > 0) & (places < size))
        return inside, places[inside] - 0.5


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


def with_peak(in_image: np.ndarray, highest: float) -> np.ndarray:
    """A map in an image's pixels, and its highest value, which may lie between them, at one."""
    in_image = in_image.copy()
    if not np.isnan(in_image).all():
        in_image.flat[np.nanargmax(in_image)] = highest
    return in_image
