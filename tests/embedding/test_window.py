"""Which parts of its input the network sees, and which patches are taken from each."""

import numpy as np
import pytest
from torch import nn

from skpadim.backbones import ModuleBackbone, load_backbone
from skpadim.embedding._window import tiles_of, window_around

STEP, STRIDE = 16, 8


@pytest.mark.parametrize("tile", [(64, 96), (96, 96), (160, 48), (512, 512)])
@pytest.mark.parametrize("size", [(256, 256), (160, 416), (64, 128)])
@pytest.mark.parametrize("share", [1, 0.1])
def test_every_patch_that_is_wanted_is_taken_once(size, tile, share, rng):
    inspected = rng.random((size[0] // STRIDE, size[1] // STRIDE)) <= share
    tile = tuple(map(min, tile, size))
    windows = tiles_of(size, tile, inspected, STEP)
    taken = np.zeros(inspected.shape, dtype=int)
    numbers = np.cumsum(inspected).reshape(inspected.shape) - 1
    for window in windows:
        lengths = window.rows.stop - window.rows.start, window.columns.stop - window.columns.start
        assert lengths == tile
        assert window.cells.shape == (tile[0] // STRIDE, tile[1] // STRIDE)
        assert window.rows.start % STEP == window.columns.start % STEP == 0
        top, left = window.rows.start // STRIDE, window.columns.start // STRIDE
        rows, columns = np.nonzero(window.cells)
        taken[rows + top, columns + left] += 1
        np.testing.assert_array_equal(window.places, numbers[rows + top, columns + left])
        assert len(rows)
    np.testing.assert_array_equal(taken, inspected)


def test_patches_keep_away_from_the_borders_of_tiles():
    windows = tiles_of((256, 1024), (256, 256), np.ones((32, 128), bool), STEP)
    assert [window.columns.start for window in windows] == [0, 192, 384, 576, 768]
    for window in windows[1:-1]:
        (columns,) = window.cells.any(axis=0).nonzero()
        assert columns[0] * STRIDE == 32
        assert (columns[-1] + 1) * STRIDE == 256 - 32


@pytest.mark.parametrize("backbone", ["filter_bank", "resnet18"])
def test_the_window_around_a_region_begins_and_ends_at_steps_of_the_coarsest_layer(backbone):
    network = load_backbone(backbone, None)
    layers = ("layer1", "layer2")
    step, stride = (network.layers[layer].stride for layer in layers[::-1])
    roi = np.zeros((128, 192), bool)
    roi[3 * step + 1, 2 * step : 4 * step] = True
    inspected = np.zeros((128 // stride, 192 // stride), bool)
    inspected[(3 * step + 1) // stride, 2 * step // stride : 4 * step // stride] = True
    window = window_around(roi, inspected, network, layers)
    assert (window.rows, window.columns) == (
        slice(3 * step, 4 * step),
        slice(2 * step, 4 * step),
    )
    assert window.cells.sum() == inspected.sum()


@pytest.mark.parametrize("kernel", [2, 5])
def test_a_network_that_needs_more_pixels_sees_all(kernel):
    module = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 4, kernel, 2, (kernel - 2) // 2))
    network = ModuleBackbone(module, ["0", "1"])
    roi = np.zeros((64, 64), bool)
    roi[20, 9] = True
    inspected = roi.reshape(16, 4, 16, 4).any(axis=(1, 3))
    window = window_around(roi, inspected, network, ("0", "1"))
    assert window.rows == (slice(16, 24) if kernel == 2 else slice(0, 64))
    assert window.cells.sum() == 1
