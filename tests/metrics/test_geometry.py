import numpy as np
import pytest
import torch
from torch.nn import functional as F

from skpadim.metrics._geometry import Window


@pytest.mark.parametrize(
    ("shape", "image_size", "crop_size"),
    [((90, 70), 64, 40), ((50, 61), (64, 80), (64, 70)), ((64, 64), 64, None), ((200, 64), 32, 32)],
)
def test_masks_are_resized_and_cropped_as_images_are(
    make_detector, good, shape, image_size, crop_size
):
    detector = make_detector(image_size=image_size, crop_size=crop_size).fit(good)
    window = Window.of(detector, detector.embedder_.input_size_)
    # A mask of two smooth halves: the images' bilinear way and the masks' agree but at the edge.
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    mask = rows / shape[0] + columns / shape[1] > 0.9
    image = torch.from_numpy(mask).float().expand(3, *shape).contiguous()
    expected = detector.embedder_.preprocess(image)[0].numpy()
    cropped = window.crop_mask(mask)
    assert cropped.shape == expected.shape
    assert ((expected > 0.5) == cropped).mean() > 0.96
    clear = (expected < 0.02) | (expected > 0.98)
    np.testing.assert_array_equal(cropped[clear], expected[clear] > 0.5)


def test_maps_are_resized_bilinearly_to_the_inspected_part():
    window = Window((40, 60), (10, 12), (20, 36))
    one = np.random.default_rng(0).normal(size=(20, 36)).astype(np.float32)
    # At twice the resized image's size, each pixel of the window becomes two by two.
    shape = (80, 120)
    expected = F.interpolate(torch.from_numpy(one)[None, None], scale_factor=2, mode="bilinear")
    assert window.inspected(shape) == (slice(20, 60), slice(24, 96))
    np.testing.assert_allclose(window.resize_map(one, shape), expected[0, 0], atol=1e-6)
    assert (
        window.resize_map(one, (97, 33)).shape
        == np.zeros((97, 33))[window.inspected((97, 33))].shape
    )


@pytest.mark.parametrize("scale", [0.75, 1, 1.3, 10])
def test_pixels_count_where_the_nearest_of_the_map_is_known(scale):
    window = Window((40, 60), (0, 0), (40, 60))
    one = np.full((40, 60), np.nan, np.float32)
    one[10, 5:50] = 1  # no pixel beside it is known
    one[20:30, 5:50] = np.arange(45)
    shape = round(40 * scale), round(60 * scale)
    resized = window.resize_map(one, shape)
    rows, columns = (((np.arange(n) + 0.5) / scale).astype(int) for n in shape)
    near = one[np.ix_(rows, columns)]
    np.testing.assert_array_equal(np.isnan(resized), np.isnan(near))
    np.testing.assert_allclose(resized, near, atol=0.51)
    assert np.nanmax(resized) <= 44


@pytest.mark.parametrize("shape", [(30, 40), (31, 37), (30, 900)])
def test_no_peak_is_lost_in_a_small_picture(shape):
    window = Window((620, 800), (10, 0), (600, 800))
    one = np.zeros((600, 800), np.float32)
    one[:300, :400] = np.nan
    peaks = {(402, 509): 1, (100, 700): 2, (0, 797): 3, (599, 2): 4}
    for (row, column), value in peaks.items():
        one[row, column - 2 : column + 3] = value
    picture = window.in_picture(one, shape)
    scale = np.divide(shape, window.resized)
    for (row, column), value in peaks.items():
        y, x = ((np.array([row, column]) + window.corner) * scale).astype(int)
        assert np.nanmax(picture[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]) == value
    unseen = np.ceil((310, 400) * scale).astype(int)
    assert np.isnan(picture[: unseen[0] - 2, : unseen[1] - 2]).all()
    assert np.isfinite(picture[unseen[0] : -1, unseen[1] : -1]).all()
    larger = window.in_picture(one, (450, 600)), window.in_image(one, (450, 600))
    np.testing.assert_array_equal(*larger)
