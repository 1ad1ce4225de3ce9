import numpy as np
import pytest


@pytest.fixture
def fitted(make_detector, good):
    return make_detector().fit(good)


@pytest.fixture(scope="session")
def mask_of():
    """Make a mask of COCO's run lengths, as pycocotools decodes them."""

    def decode(counts, size):
        inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return inside.reshape(size, order="F")

    return decode
