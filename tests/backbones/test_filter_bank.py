"""The filter bank: shapes, geometry, and what its features do not depend on."""

import pickle

import numpy as np
import pytest
import torch

from skpadim.backbones import load_backbone
from skpadim.backbones._filter_bank import (
    CELL,
    STRIDE,
    WAVELENGTHS,
    cell_variances,
    morlet_pair,
)
from skpadim.datasets import make_defects

LAYERS = ("layer1", "layer2", "layer3")


@pytest.fixture(scope="module")
def bank():
    return load_backbone("filter_bank")


@pytest.fixture(scope="module")
def images():
    parts = make_defects(3, 0, image_size=96, random_state=0)
    return torch.from_numpy(parts.data).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (33, 100), (225, 31)])
def test_every_layer_divides_the_image_evenly(bank, size):
    maps = bank(torch.rand(1, 3, *size), LAYERS)
    for layer, layer_maps in zip(LAYERS, maps, strict=True):
        assert layer_maps.shape[1] == bank.layers[layer].channels
        enlarged = [-(-side // 32) * 32 for side in size]
        assert list(layer_maps.shape[2:]) == [
            side // bank.layers[layer].stride for side in enlarged
        ]
        assert torch.isfinite(layer_maps).all()


def test_each_layer_is_the_same_alone_and_together(bank, images):
    together = dict(zip(LAYERS, bank(images, LAYERS), strict=True))
    for layers in [(layer,) for layer in LAYERS] + [("layer1", "layer3")]:
        for layer, maps in zip(layers, bank(images, layers), strict=True):
            torch.testing.assert_close(maps, together[layer])


def test_images_do_not_depend_on_their_neighbours_in_the_batch(bank, images):
    alone = bank(images[1:2], LAYERS)
    for one, all_of_them in zip(alone, bank(images, LAYERS), strict=True):
        torch.testing.assert_close(one[0], all_of_them[1], rtol=1e-4, atol=1e-4)


def test_float32_keeps_the_digits_of_faint_contrasts(bank, images):
    faint = 0.02 + 1e-3 * images  # far from log(1), and all but even
    in_float64 = load_backbone("filter_bank").double()(faint.double(), LAYERS)
    for got, want in zip(bank(faint, LAYERS), in_float64, strict=True):
        assert float((got - want).abs().max()) < 2e-4


def test_variances_of_cells_are_those_of_their_pixels_inside_the_image():
    pixels = np.random.default_rng(0).normal(size=(2, 3, 64, 32))
    got = cell_variances(torch.from_numpy(pixels)).numpy()
    assert got.shape == (2, 3, 8, 4)
    margin = (CELL - STRIDE) // 2
    for row, column in np.ndindex(8, 4):
        rows, columns = (
            slice(max(0, STRIDE * i - margin), STRIDE * i - margin + CELL) for i in (row, column)
        )
        expected = pixels[:, :, rows, columns].var(axis=(2, 3))
        np.testing.assert_allclose(got[:, :, row, column], expected, rtol=1e-12)


@pytest.mark.parametrize("wavelength", WAVELENGTHS)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_wavelets_have_zero_mean_and_measure_the_amplitude_of_their_wave(wavelength, angle):
    even, odd = morlet_pair(wavelength, angle)
    assert abs(even.sum()) < 1e-5
    assert abs(odd.sum()) < 1e-5
    radius = even.shape[0] // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    for phase in (0.0, 1.0, 2.5):
        along = x * np.cos(angle) + y * np.sin(angle)
        wave = torch.from_numpy(0.3 * np.cos(2 * np.pi / wavelength * along + phase)).float()
        amplitude = torch.hypot((even * wave).sum(), (odd * wave).sum())
        assert amplitude == pytest.approx(0.3, rel=0.15)


def test_exposure_matters_little(bank, images):
    maps, brighter = (bank(pixels, ("layer1",))[0] for pixels in (0.6 * images, images))
    spread = maps.std()
    assert (maps - brighter).abs().mean() < 0.25 * spread


def test_a_model_file_does_not_hold_the_filters(bank):
    assert len(pickle.dumps(bank)) < 200
    again = pickle.loads(pickle.dumps(bank))
    assert torch.equal(again.filters, bank.filters)


@pytest.mark.parametrize("size", [100, 225, (65, 97)])
def test_maps_point_at_the_defect_whatever_the_size(make_detector, size):
    rng = np.random.default_rng(0)
    height, width = (size, size) if isinstance(size, int) else size
    good = rng.uniform(0.4, 0.6, size=(25, height, width))
    detector = make_detector(image_size=size, sigma=2.0).fit(good)
    for y, x in [(0.3, 0.25), (0.8, 0.8)]:
        row, column = int(y * height), int(x * width)
        image = rng.uniform(0.4, 0.6, size=(1, height, width))
        image[0, row - 3 : row + 4, column - 3 : column + 4] = 0.9
        anomaly_map = detector.anomaly_map(image)[0]
        found = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert np.abs(np.subtract(found, (row, column))).max() <= 5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_cpus_maps(bank, images):
    on_gpu = load_backbone("filter_bank").cuda()(images.cuda(), LAYERS)
    for got, want in zip(on_gpu, bank(images, LAYERS), strict=True):
        torch.testing.assert_close(got.cpu(), want, rtol=1e-2, atol=1e-2)
