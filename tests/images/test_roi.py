"""Regions of interest of all kinds, and the cells that they take."""

import numpy as np
import pytest
import torch
from PIL import Image

from skpadim.images._roi import cells_of, read_roi

SIZE = (20, 30)


@pytest.fixture
def region():
    region = np.zeros(SIZE, dtype=bool)
    region[5:15, 10:25] = True
    return region


def test_arrays_files_and_pictures_are_the_same_region(region, tmp_path):
    path = tmp_path / "roi.png"
    Image.fromarray(region).save(path)
    for roi in (region, region.astype(np.uint8) * 255, region * 1.0, path, Image.open(path)):
        np.testing.assert_array_equal(read_roi(roi, [SIZE] * 3, SIZE, SIZE), region)


def test_it_may_have_the_size_of_the_images_or_of_the_input(region):
    doubled = region.repeat(2, axis=0).repeat(2, axis=1)
    for sizes in ([(40, 60)], [(40, 60), (40, 60)]):
        np.testing.assert_array_equal(read_roi(doubled, sizes, SIZE, SIZE), region)
        np.testing.assert_array_equal(read_roi(region, sizes, SIZE, SIZE), region)
    np.testing.assert_array_equal(read_roi(region, [(40, 60), (7, 8)], SIZE, SIZE), region)
    np.testing.assert_array_equal(read_roi(region, [], SIZE, SIZE), region)


def test_the_crop_is_cut_out_of_its_centre(region):
    np.testing.assert_array_equal(read_roi(region, [], SIZE, (10, 20)), region[5:15, 5:25])


def test_polygons_lie_in_the_pixels_of_the_images(region):
    corners = [(10, 5), (24, 5), (24, 14), (10, 14)]
    contour = np.array(corners)[:, None]  # as OpenCV has them
    for roi in (corners, [corners], np.array(corners), [np.array(corners, float)], [contour]):
        np.testing.assert_array_equal(read_roi(roi, [SIZE], SIZE, SIZE), region)
    np.testing.assert_array_equal(read_roi(contour, [SIZE], SIZE, SIZE), region)
    two = read_roi([corners, [(0, 0), (3, 0), (0, 3)]], [SIZE], SIZE, SIZE)
    assert two[:15].sum() == region.sum() + 10
    halved = read_roi(corners, [SIZE], (10, 15), (10, 15))
    np.testing.assert_array_equal(halved, region[1::2, 1::2])


@pytest.mark.parametrize(
    ("roi", "sizes", "problem"),
    [
        (np.ones((20, 31), bool), [SIZE], r"roi is 20 pixels high and 31 wide\. The images are 20"),
        (np.ones((21, 30), bool), [SIZE, (3, 3)], "The images have several sizes, and image_size"),
        (np.zeros(SIZE, bool), [SIZE], "roi has no pixel: there is nothing to inspect"),
        (np.arange(600).reshape(SIZE), [SIZE], "roi has 600 values up to 599 .*it must be a bool"),
        (np.ones((20, 30, 3)), [SIZE], r"roi has shape \(20, 30, 3\)"),
        (np.full(SIZE, np.nan), [SIZE], "roi has .*must be a bool array"),
        ("there is none.png", [SIZE], r"roi \(there is none.png\) cannot be read"),
        (7, [SIZE], "roi has shape"),
        ([(0, 0), (5, 5)], [SIZE], "3 corners or more"),
        ([], [SIZE], "3 corners or more"),
        ([[(0, 0), (1, 1), (2, 0, 4)]], [SIZE], "3 corners or more"),
        ([(0, 0), (np.nan, 5), (3, 3)], [SIZE], "3 corners or more"),
        ([(0, 0), (40, 5), (3, 3)], [SIZE], r"corners from \(0, 0\) to \(40, 5\).*outside"),
        ([(0, 0), (9, 5), (3, 3)], [SIZE, (3, 3)], "polygons .* no common size"),
    ],
)
def test_what_is_no_region_is_told_in_words(roi, sizes, problem):
    with pytest.raises(ValueError, match=problem):
        read_roi(roi, sizes, SIZE, SIZE)


def test_a_region_outside_of_the_crop_is_told():
    roi = np.zeros(SIZE, bool)
    roi[0, 0] = True
    with pytest.raises(ValueError, match="roi has no pixel within crop_size"):
        read_roi(roi, [], SIZE, (10, 10))


def test_a_region_that_is_too_small_for_the_input_is_told():
    roi = np.zeros((200, 300), dtype=bool)
    roi[0, 0] = True
    with pytest.raises(ValueError, match="no pixel that is left at image_size, 20 pixels high"):
        read_roi(roi, [(200, 300)], SIZE, SIZE)


def test_cells_are_those_with_a_pixel_of_the_region(region):
    cells = cells_of(torch.from_numpy(region)[None], (5, 6))[0].numpy()
    expected = region.reshape(5, 4, 6, 5).any(axis=(1, 3))
    np.testing.assert_array_equal(cells, expected)
