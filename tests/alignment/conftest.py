"""Photographs of parts that have moved: drawn large, moved, then made smaller."""

import numpy as np
import pytest
import torch

from skpadim.alignment._motion import inverse, places, sample
from skpadim.alignment._registration import resized


def _some_motions(n, rng, shift, angle=0.0, scale=1.0):
    """Motions (n, 4), drawn evenly within limits; shifts in pixels."""
    shifts = rng.uniform(-shift, shift, size=(n, 2))
    angles = rng.uniform(-angle, angle, size=(n, 1))
    scales = np.exp(rng.uniform(-1, 1, size=(n, 1)) * np.log(scale))
    return torch.tensor(np.hstack([shifts, angles, scales]), dtype=torch.float32)


def _photograph(images, motions, size, light=None):
    """8-bit images (n, side, side, 3) after motions, in pixels of images of the smaller size."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    moved = motions.clone()
    moved[:, :2] *= images.shape[1] / size
    pixels = sample(pixels, places(inverse(moved), images.shape[1:3]), mode="bicubic")
    if light is not None:
        pixels *= torch.as_tensor(light, dtype=torch.float32)[:, None, None, None]
    pixels = resized(pixels, (size, size)).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope="session")
def some_motions():
    """Draw motions: ``some_motions(n, rng, shift, angle=0.0, scale=1.0)``."""
    return _some_motions


@pytest.fixture(scope="session")
def photograph():
    """Photograph parts that have moved: ``photograph(images, motions, size, light=None)``."""
    return _photograph
