"""Photographs of generated parts: pose, light, focus and noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter


def photograph(pixels, mask, rng):
    """Photograph a part that lies a little off its place.

    Parameters
    ----------
    pixels : ndarray of shape (size, size, 3), float32
        Colours of the part in [0, 1].
    mask : ndarray of shape (size, size), bool
    rng : Generator
        All that differs between two photographs of one part.

    Returns
    -------
    photo : ndarray of shape (size, size, 3), uint8
    mask : ndarray of shape (size, size), bool
    """
    size = len(mask)
    angle, zoom = np.deg2rad(rng.normal(scale=1.5)), rng.uniform(0.985, 1.015)
    shift = rng.uniform(-0.015, 0.015, size=2) * size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    middle = np.full(2, (size - 1) / 2)
    pose = {"matrix": turn, "offset": middle - turn @ (middle + shift), "order": 1}
    slope, focus = rng.uniform(-0.12, 0.12, size=2), rng.uniform(0.3, 0.5) * size / 256
    gain = rng.uniform(0.94, 1.06) * rng.uniform(0.985, 1.015, size=3)
    axis = (np.arange(size) / size - 0.5).astype(np.float32)
    light = 1 + slope[0] * axis[:, None] + slope[1] * axis
    photo = np.empty((size, size, 3), dtype=np.float32)
    for channel in range(3):
        moved = affine_transform(pixels[..., channel], mode="mirror", output=np.float32, **pose)
        photo[..., channel] = gaussian_filter(moved, focus) * light * gain[channel]
    # A sensor's noise: grows with the light, and differs a little between the colours.
    photo += (0.004 + 0.012 * np.sqrt(np.maximum(photo, 0))) * rng.standard_normal(
        photo.shape, dtype=np.float32
    )
    if mask.any():
        mask = affine_transform(mask.astype(np.float32), mode="constant", **pose) > 0.4
    return (255 * np.clip(photo, 0, 1)).round().astype(np.uint8), mask
