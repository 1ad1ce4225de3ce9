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
