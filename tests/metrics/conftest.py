import numpy as np
import pytest


@pytest.fixture
def pairs():
    """Masks and maps of 12 images, the first four good; overlapping scores."""
    rng = np.random.default_rng(0)
    masks = np.zeros((12, 40, 50), bool)
    for mask in masks[4:]:
        for _ in range(3):
            row, column = rng.integers(0, 30, 2)
            mask[row : row + rng.integers(1, 9), column : column + rng.integers(1, 9)] = True
    maps = (rng.normal(size=masks.shape) + 1.5 * masks).astype(np.float32)
    return masks, maps


@pytest.fixture
def fitted(make_detector, good):
    return make_detector(n_features=20).fit(good)
