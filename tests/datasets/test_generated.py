"""Generated parts."""

import numpy as np
import pytest

from skpadim.datasets import make_defects


def test_same_seed_same_images():
    first = make_defects(2, 3, image_size=48, random_state=3)
    again = make_defects(2, 3, image_size=48, random_state=3)
    other = make_defects(2, 3, image_size=48, random_state=4)
    np.testing.assert_array_equal(first.data, again.data)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert not np.array_equal(first.data, other.data)


@pytest.mark.parametrize("image_size", [32, 256])
def test_masks_lie_where_something_is_wrong(image_size):
    parts = make_defects(3, 9, image_size=image_size, random_state=0)
    defective = parts.target == -1
    assert not parts.masks[~defective].any()
    shares = parts.masks[defective].mean(axis=(1, 2))
    assert ((shares > 0) & (shares < 0.1)).all()
    assert set(parts.kinds) == {"good", "scratch", "spot", "missing"}
    assert parts.data.dtype == np.uint8
    assert parts.data.shape == (12, image_size, image_size, 3)


def test_good_parts_differ_from_one_another():
    parts = make_defects(4, 0, image_size=64, random_state=0)
    differences = np.abs(parts.data[1:].astype(float) - parts.data[:1]).mean(axis=(1, 2, 3))
    assert (differences > 3).all()
