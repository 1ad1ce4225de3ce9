"""inspect and anomalous_regions of PadimDetector: the parts agree, and come when they are due."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from skpadim import _inspection
from skpadim.regions._table import regions_of_map


@pytest.fixture(scope="module")
def shared(good):
    from skpadim import PadimDetector

    return PadimDetector(
        "filter_bank", image_size=64, crop_size=(56, 60), random_state=0, batch_size=8
    ).fit(good)


@pytest.fixture(scope="module")
def sizes(parts):
    """Some parts at sizes of their own, good and defective."""
    images = []
    for index in (0, 3, *np.flatnonzero(parts.target == -1)[:4]):
        size = (64 + 31 * len(images), 80)
        images.append(np.asarray(Image.fromarray(parts.data[index]).resize(size)))
    return images


def test_an_inspection_says_what_the_methods_say(shared, sizes):
    inspections = list(shared.inspect(sizes))
    assert [each.index for each in inspections] == list(range(len(sizes)))
    assert_array_equal([each.score for each in inspections], shared.score_samples(sizes))
    assert_array_equal([each.p_value for each in inspections], shared.p_values(sizes))
    verdicts = np.array([each.is_anomalous for each in inspections])
    assert_array_equal(np.where(verdicts, -1, 1), shared.predict(sizes))
    assert verdicts.any()
    assert not verdicts.all()
    maps = shared.anomaly_map(sizes, size="original")
    masks = shared.anomaly_mask(sizes, size="original")
    for each, image, anomaly_map, mask in zip(inspections, sizes, maps, masks, strict=True):
        assert each.image is image
        assert each.milliseconds > 0
        assert_array_equal(each.anomaly_map, anomaly_map)
        assert_array_equal(each.mask, mask)
        assert each.mask.shape == image.shape[:2]
        assert each.mask.any() == each.is_anomalous


def test_regions_are_those_of_the_masks(shared, sizes):
    table = shared.anomalous_regions(sizes)
    masks = shared.anomaly_mask(sizes, size="original")
    for index, (image, mask, p_value) in enumerate(
        zip(sizes, masks, shared.p_values(sizes), strict=True)
    ):
        of_image = table[table["image"] == index]
        expected = regions_of_map(mask.astype(float), 0.5)
        for column in ("label", "top", "left", "bottom", "right", "area", "rle"):
            assert of_image[column].tolist() == expected[column].tolist()
        assert (of_image["image_height"] == image.shape[0]).all()
        assert (of_image["image_width"] == image.shape[1]).all()
        if mask.any():
            assert of_image["p_value"].min() == p_value
            assert of_image["peak"].max() == -shared.score_samples([image])[0]
    assert (table["mean"] <= table["peak"]).all()
    assert (table["mean"] > -shared.offset_).all()


def test_small_regions_are_left_out_and_the_verdict_stays(shared, sizes):
    table = shared.anomalous_regions(sizes)
    area = int(table["area"].max())
    kept = shared.anomalous_regions(sizes, min_area=area)
    assert kept["area"].tolist() == [area]
    assert shared.anomalous_regions(sizes, min_area=area + 1).empty
    flagged = [each.is_anomalous for each in shared.inspect(sizes, min_area=area + 1)]
    assert sum(flagged) == table["image"].nunique()
    with pytest.raises(ValueError, match="min_area=-1 must be a number of pixels, 0 or more"):
        shared.anomalous_regions(sizes, min_area=-1)
    with pytest.raises(ValueError, match="min_area='8' must be"):
        shared.inspect(sizes, min_area="8")


def test_good_images_are_flagged_at_most_as_often_as_asked_for(good, make_detector):
    detector = make_detector(contamination=0.2).fit(good[:12])
    detector.calibrate(good[12:])
    new = detector.anomalous_regions(good[12:])
    # Of exchangeable images those of calibration themselves keep within the share.
    assert new["image"].nunique() <= 0.2 * 13
    assert new["image"].nunique() > 0


def test_images_with_paths_are_called_by_them(shared, folder):
    paths = sorted(folder.iterdir())
    table = shared.anomalous_regions(folder)
    assert set(table["image"]) <= {str(path) for path in paths}
    assert table["label"].tolist() == shared.anomalous_regions(paths)["label"].tolist()
    assert table.equals(shared.anomalous_regions(iter(paths)))


class Camera:
    """Frames one by one, and a count of those that were asked for."""

    def __init__(self, frames):
        self.frames, self.n_asked = frames, 0

    def __iter__(self):
        for frame in self.frames:
            self.n_asked += 1
            yield frame


def test_frames_are_asked_for_one_by_one_when_they_are_due(shared, parts):
    camera = Camera(parts.data[-5:])
    for n_seen, inspection in enumerate(shared.inspect(camera), start=1):
        assert camera.n_asked == n_seen
        assert inspection.index == n_seen - 1
        assert_array_equal(inspection.image, parts.data[-5:][n_seen - 1])
    assert n_seen == 5


def test_the_time_is_without_the_wait_for_the_camera(shared, good, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(_inspection.time, "perf_counter", lambda: clock[0])

    def frames():
        for _ in range(3):
            clock[0] += 1000
            yield good[0]

    def in_two_seconds(maker_of):
        def make_maps(*arguments, **parameters):
            for batch in maker_of(*arguments, **parameters):
                clock[0] += 2
                yield batch

        return make_maps

    from skpadim import _padim

    monkeypatch.setattr(_padim, "iter_map_batches", in_two_seconds(_padim.iter_map_batches))
    assert [each.milliseconds for each in shared.inspect(frames())] == [2000] * 3
    # Of eight at a time, and then two.
    times = [each.milliseconds for each in shared.inspect(good[:10])]
    assert times == [250] * 8 + [1000] * 2


def test_maps_in_the_images_pixels_are_made_when_they_are_asked_for(shared, sizes, monkeypatch):
    made = []
    in_image = _inspection.Window.in_image
    monkeypatch.setattr(_inspection.Window, "in_image", lambda *a: made.append(1) or in_image(*a))
    inspections = list(shared.inspect(sizes))
    assert not made
    assert inspections[-1].regions is inspections[-1].regions
    assert inspections[-1].mask.any()
    assert len(made) == 1


def test_images_that_cannot_be_read_are_left_out_if_wanted(shared, folder, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [*sorted(folder.iterdir())[:2], tmp_path / "broken.png", *sorted(folder.iterdir())[-1:]]
    with pytest.raises(ValueError, match=r"broken\.png"):
        list(shared.inspect(paths))
    for given in (paths, iter(paths)):
        with pytest.warns(UserWarning, match=r"broken\.png.*It is skipped\."):
            inspections = list(shared.inspect(given, on_error="skip"))
        assert [each.index for each in inspections] == [0, 1, 3]
        assert [each.image for each in inspections] == [paths[0], paths[1], paths[3]]


def test_pixels_that_were_not_inspected_are_in_no_region(shared, good, monkeypatch):
    from skpadim import _padim

    maps = np.full((2, 56, 60), np.nan, np.float32)
    maps[0, 10:20, 10:30] = 1
    maps[0, 12:14, 12:14] = -shared.offset_ + 1
    monkeypatch.setattr(_padim, "iter_map_batches", lambda *a, **b: iter([(maps, {})]))
    partly, never = shared.inspect(good[:2])
    assert partly.is_anomalous
    assert partly.score == pytest.approx(shared.offset_ - 1)
    assert np.isnan(partly.anomaly_map).any()
    assert 0 < partly.regions["area"].sum() == partly.mask.sum()
    # What nobody has looked at is not passed as good.
    assert never.is_anomalous
    assert np.isnan(never.score)
    assert np.isnan(never.p_value)
    assert never.regions.empty
    assert not never.mask.any()


def test_without_calibration_scores_there_are_regions_and_no_p_values(make_detector, good, parts):
    detector = make_detector(calibration="training").fit(good)
    table = detector.anomalous_regions(parts.data[-2:])
    assert len(table)
    assert table["p_value"].isna().all()
    (inspection,) = detector.inspect(parts.data[-1:])
    assert np.isnan(inspection.p_value)


def test_a_threshold_is_needed(make_detector, good):
    detector = make_detector(calibration=None).fit(good)
    assert not hasattr(detector, "inspect")
    with pytest.raises(AttributeError, match="has no threshold"):
        detector.anomalous_regions(good)
    assert len(detector.anomaly_map(good[:2], size="original")) == 2


def test_an_image_that_is_gone_is_named(shared, folder, tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(sorted(folder.iterdir())[0].read_bytes())
    (inspection,) = shared.inspect([path])
    path.unlink()
    with pytest.raises(ValueError, match=r"part\.png cannot be read any more"):
        _ = inspection.mask
