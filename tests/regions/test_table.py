import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import center_of_mass, find_objects, label

from skpadim.regions._table import by_image, join_tables, regions_of_map


@settings(deadline=None, max_examples=100)
@given(
    anomaly_map=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
        elements=st.sampled_from([0, 1, 2, 3, 4, np.nan]),
    ),
    min_area=st.sampled_from([0, 3]),
)
def test_regions_are_those_of_scipy(mask_of, anomaly_map, min_area):
    table = regions_of_map(anomaly_map, 2, min_area=min_area)
    labels, n_regions = label(anomaly_map > 2, np.ones((3, 3)))
    masks = [labels == number for number in range(1, n_regions + 1)]
    masks = [mask for mask in masks if mask.sum() >= min_area]
    assert table["label"].tolist() == list(range(1, len(masks) + 1))
    for row, mask in zip(table.itertuples(), masks, strict=True):
        ((rows, columns),) = find_objects(mask.astype(int))
        box = (rows.start, columns.start, rows.stop, columns.stop)
        assert (row.top, row.left, row.bottom, row.right) == box
        centre = (row.centroid_y, row.centroid_x)
        np.testing.assert_allclose(centre, center_of_mass(mask), atol=1e-12)
        assert (row.area, row.peak) == (mask.sum(), anomaly_map[mask].max())
        assert row.mean == pytest.approx(anomaly_map[mask].mean())
        size = (row.image_height, row.image_width)
        assert size == anomaly_map.shape
        np.testing.assert_array_equal(mask_of([int(n) for n in row.rle.split()], size), mask)


@pytest.mark.parametrize(
    ("mask", "counts"),
    [
        ([[1, 1], [1, 1]], "0 4"),
        ([[0, 0, 0], [0, 1, 0]], "3 1 2"),
        ([[0, 1], [1, 1]], "1 3"),  # a column goes on at the top of the next
        ([[1, 1, 1], [1, 0, 1], [1, 1, 1]], "0 4 1 4"),  # with a hole
    ],
)
def test_run_lengths_go_down_the_columns_and_begin_outside(mask, counts):
    assert regions_of_map(np.array(mask, float), 0.5)["rle"].tolist() == [counts]


def test_p_values_are_those_of_the_peaks():
    anomaly_map = np.array([[5, 0, 3, 4]])
    table = regions_of_map(anomaly_map, 1, p_values=lambda scores: 1 / (1 - scores))
    assert table["p_value"].tolist() == [1 / 6, 1 / 5]
    assert regions_of_map(anomaly_map, 1)["p_value"].isna().all()


def test_tables_are_joined_and_without_regions_have_the_same_columns():
    empty = regions_of_map(np.full((3, 4), np.nan), 1)
    some = regions_of_map(np.eye(3), 0.5, image="a.png")
    assert not len(empty)
    assert list(join_tables([])) == list(empty) == list(some)
    joined = join_tables([empty, some, empty, some])
    assert joined["image"].tolist() == ["a.png", "a.png"]
    assert joined.index.tolist() == [0, 1]
    pd.testing.assert_frame_equal(joined[:1], some)


def test_names_that_are_not_utf_8_stay():
    table = regions_of_map(np.eye(3), 0.5, image="caf\udce9.png")
    assert join_tables([table, table])["image"].tolist() == ["caf\udce9.png"] * 2


@pytest.fixture
def regions():
    tables = [regions_of_map(np.eye(4)[:3], 0.5, image=f"in/{name}.png") for name in "ab"]
    return join_tables(tables)


def test_images_come_in_the_order_given_and_those_without_regions_too(regions, folder):
    other = sorted(folder.iterdir())[0]
    found = list(by_image(regions, ["in/b.png", other, "in/a.png"], None))
    assert [name for name, *_ in found] == ["in/b.png", other.as_posix(), "in/a.png"]
    assert [size for _, size, _ in found] == [(3, 4), (64, 64), (3, 4)]
    assert [table["image"].tolist() for *_, table in found] == [["in/b.png"], [], ["in/a.png"]]
    assert [name for name, *_ in by_image(regions, None, "in")] == ["a.png", "b.png"]
    read = pd.read_csv(io.StringIO(regions.to_csv(index=False)))
    assert [name for name, *_ in by_image(read, None, "in")] == ["a.png", "b.png"]


def test_images_by_index_need_names(regions):
    by_index = regions.assign(image=[1, 0])
    found = list(by_image(by_index, ["a.png", "b.png"], None))
    assert [(name, *table["image"]) for name, _, table in found] == [("a.png", 0), ("b.png", 1)]
    with pytest.raises(ValueError, match=r"indices of images.*images=\[\.\.\.\]"):
        list(by_image(by_index, None, None))


def test_images_come_as_a_detector_takes_them(folder):
    none, paths = join_tables([]), sorted(folder.iterdir())
    expected = list(map(str, paths))
    for images in (folder, str(folder), pd.Series(paths), pd.DataFrame({"path": expected})):
        assert [name for name, *_ in by_image(none, images, None)] == expected
    with pytest.raises(ValueError, match="images has pixels: give the names of their files"):
        list(by_image(none, np.zeros((2, 9, 9)), None))


def test_what_does_not_fit_is_refused(regions):
    with pytest.raises(ValueError, match="no column 'rle'.*anomalous_regions"):
        list(by_image(regions.drop(columns="rle"), None, None))
    with pytest.raises(ValueError, match=r"has the image 'in/b\.png', which images does not"):
        list(by_image(regions, ["in/a.png"], None))
