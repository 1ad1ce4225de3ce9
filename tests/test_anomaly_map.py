"""The map operator against the two steps it stands for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from skpadim._anomaly_map import anomaly_maps, image_scores


@settings(deadline=None, max_examples=50)
@given(
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    sigma=st.sampled_from([0.0, 0.7, 4.0, 11.0]),
)
def test_map_is_interpolation_then_gaussian_filter(grid, size, sigma):
    distances = torch.from_numpy(np.random.default_rng(0).random((2, *grid)))
    upsampled = F.interpolate(distances[:, None], size=size, mode="bilinear", align_corners=False)
    expected = [gaussian_filter(m, sigma) if sigma else m for m in upsampled[:, 0].numpy()]
    maps = anomaly_maps(distances, size, sigma)
    np.testing.assert_allclose(maps.numpy(), expected, atol=1e-12)


def test_float32_maps_are_exact_to_rounding():
    distances = torch.rand(3, 56, 56) * 30
    maps = anomaly_maps(distances, (224, 224), 4.0)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(
        maps.double(), anomaly_maps(distances.double(), (224, 224), 4.0), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("sigma", [0.0, 4.0])
def test_a_constant_grid_gives_a_constant_map(sigma):
    maps = anomaly_maps(torch.full((1, 7, 5), 3.0, dtype=torch.float64), (50, 40), sigma)
    np.testing.assert_allclose(maps, 3.0, rtol=1e-12)


def test_image_score_is_the_maps_maximum():
    maps = torch.rand(4, 8, 9)
    np.testing.assert_array_equal(image_scores(maps), maps.numpy().max(axis=(1, 2)))
