import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label

from skpadim.metrics._regions import find_regions


@settings(deadline=None, max_examples=150)
@given(
    masks=hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, max_side=9)),
    connectivity=st.sampled_from([4, 8]),
)
def test_regions_are_scipys(masks, connectivity):
    structure = np.ones((3, 3)) if connectivity == 8 else None
    expected = [
        (index, np.flatnonzero(labels == number) + index * mask.size)
        for index, mask in enumerate(masks)
        for labels, n_regions in [label(mask, structure)]
        for number in range(1, n_regions + 1)
    ]
    regions = find_regions(masks, connectivity)
    assert regions.areas.tolist() == [len(positions) for _, positions in expected]
    assert regions.images.tolist() == [index for index, _ in expected]
    starts = np.cumsum(regions.areas)[:-1]
    for found, (_, positions) in zip(np.split(regions.positions, starts), expected, strict=False):
        np.testing.assert_array_equal(np.sort(found), positions)
