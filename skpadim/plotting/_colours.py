"""Anomaly maps in colours: grey where all is well, and from the threshold on yellow to dark purple.

The one scale of all pictures. Its lightness falls from white to nearly black, so that it is read in
grey too, and by those who see fewer colours.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion

# At the threshold grey ends and yellow begins. Place of each colour: 0 is a map's 0, 1/2 the
# threshold, 1 twice the threshold and more.
_PLACES = np.array([0, 0.5, 0.5, 0.6, 0.7, 0.8, 0.9, 1])
_COLOURS = np.array(
    [(247, 247, 247), (217, 217, 217), (253, 212, 60), (249, 160, 20), (229, 92, 48),
     (178, 42, 90), (106, 23, 110), (45, 10, 80)]
)  # fmt: skip


def map_colours(anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Colour a map (uint8): grey below the threshold, dark purple from twice it on; NaN hatched."""
    place = np.clip(np.nan_to_num(anomaly_map) / (2 * max(threshold, 1e-12)), 0, 1)
    # Values at the threshold are good ones.
    good = place <= 0.5
    channels = []
    for channel in _COLOURS.T:
        below = np.interp(place, _PLACES[:2], channel[:2])
        above = np.interp(place, _PLACES[2:], channel[2:])
        channels.append(np.where(good, below, above))
    coloured = np.stack(channels, axis=-1).round().astype(np.uint8)
    coloured[np.isnan(anomaly_map)] = 255
    return hatched(coloured, anomaly_map)


def plain_colours() -> np.ndarray:
    """The scale without its grey (n_colours, 3), for maps without a threshold: from white on."""
    return np.delete(_COLOURS, 1, axis=0)


def overlay(
    image: np.ndarray, anomaly_map: np.ndarray, threshold: float, opacity: float = 0.6
) -> np.ndarray:
    """An image (uint8, RGB) with its map's colours above the threshold; hatched where it is NaN."""
    coloured = map_colours(anomaly_map, threshold)
    anomalous = (np.nan_to_num(anomaly_map) > threshold)[..., None]
    mixed = (1 - opacity) * image + opacity * coloured
    return hatched(np.where(anomalous, mixed, image).round().astype(np.uint8), anomaly_map)


def hatched(image: np.ndarray, anomaly_map: np.ndarray) -> np.ndarray:
    """An image (uint8, RGB), greyed and with stripes where its map is NaN, not inspected."""
    unseen = np.isnan(anomaly_map)
    if not unseen.any():
        return image
    height, width = unseen.shape
    period = max(6, max(height, width) // 24)
    stripes = (np.arange(height)[:, None] + np.arange(width)) % period < period // 3
    grey = np.where(stripes, 230, 128)[..., None]
    return np.where(unseen[..., None], (image + grey) // 2, image).astype(np.uint8)


def outline(mask: np.ndarray, width: int = 1) -> np.ndarray:
    """The pixels of a mask's regions that lie along their edge."""
    return mask & ~binary_erosion(mask, np.ones((3, 3), bool), iterations=width, border_value=0)
