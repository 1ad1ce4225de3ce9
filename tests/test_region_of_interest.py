"""A detector that inspects a region of interest, and nothing else."""

import copy
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from skpadim import PadimDetector, PatchEmbedder, PatchGaussian
from skpadim.datasets import make_defects
from skpadim.metrics import evaluate

ROI = np.zeros((64, 64), dtype=bool)
ROI[8:40, 20:60] = True
ROI[8:16, 20:28] = False  # no rectangle


@pytest.fixture(scope="module")
def detector(good):
    return PadimDetector("filter_bank", image_size=64, random_state=0, roi=ROI).fit(good)


def outside_changed(images, rng):
    """Images with noise in place of all that lies outside of the region."""
    return np.where(ROI[:, :, None], images, rng.integers(0, 256, images.shape, dtype=np.uint8))


def test_nothing_outside_has_any_influence(detector, parts, good, rng):
    expected = detector.anomaly_map(parts.data)
    np.testing.assert_array_equal(np.isnan(expected), np.broadcast_to(~ROI, expected.shape))
    changed = outside_changed(parts.data, rng)
    np.testing.assert_array_equal(detector.anomaly_map(changed), expected)
    np.testing.assert_array_equal(detector.score_samples(parts.data), -np.nanmax(expected, (1, 2)))
    again = clone(detector).fit(outside_changed(good, rng))
    assert again.offset_ == detector.offset_
    np.testing.assert_array_equal(again.p_values(changed), detector.p_values(parts.data))
    regions = detector.anomalous_regions(changed)
    assert len(regions)
    assert (regions[["top", "left"]].min() >= [8, 20]).all()
    assert (regions[["bottom", "right"]].max() <= [40, 60]).all()


def test_places_outside_have_no_gaussian(detector, good):
    embedder = detector.embedder_
    n_places = int(ROI.reshape(8, 8, 8, 8).any(axis=(1, 3)).sum())
    assert embedder.inspected_.sum() == n_places < 64
    assert detector.gaussian_.location_.shape[:2] == (1, n_places)
    assert embedder.transform(good[:2]).shape[1:3] == (1, n_places)
    np.testing.assert_array_equal(detector.roi_, ROI)


@pytest.mark.parametrize("sharing", ["position", "neighbourhood", "image"])
def test_leave_one_out_scores_are_those_of_refits(make_detector, good, sharing):
    few = good[:7]
    detector = make_detector(roi=ROI, sharing=sharing, contamination=0.3).fit(few)
    for index in range(3):
        rest = make_detector(roi=ROI, sharing=sharing, calibration=None)
        rest.fit(np.delete(few, index, axis=0))
        score = rest.score_samples(few[index : index + 1])
        np.testing.assert_allclose(detector.training_scores_[index], score[0], rtol=2e-4)


def test_a_region_of_all_pixels_changes_nothing(make_detector, parts, good):
    whole = make_detector(roi=np.ones((64, 64))).fit(good)
    without = make_detector().fit(good)
    maps = whole.anomaly_map(parts.data), without.anomaly_map(parts.data)
    np.testing.assert_array_equal(*maps)
    assert whole.gaussian_.location_.shape == without.gaussian_.location_.shape


@pytest.mark.parametrize("backbone", ["filter_bank", "auto", "resnet18"])
def test_embeddings_are_those_of_the_region_on_its_mean_colour(make_detector, good, backbone):
    parameters = {"image_size": 64, "random_state": 0, "weights": None}
    if backbone == "auto":
        parameters.pop("weights")
    roi = np.zeros((64, 64), bool)
    roi[32:, :] = True  # of the size of its window, which the network takes by itself
    found = PatchEmbedder(backbone, roi=roi, **parameters).fit(good).transform(good[:3])
    half = {**parameters, "image_size": (32, 64)}
    expected = PatchEmbedder(backbone, **half).fit(good).transform(good[:3, 32:])
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)


def test_in_pipelines_and_with_features_that_are_kept(detector, parts, good, tmp_path):
    embedder = PatchEmbedder("filter_bank", image_size=64, random_state=0, roi=ROI, memory=tmp_path)
    pipeline = make_pipeline(embedder, PatchGaussian()).fit(good)
    again = make_pipeline(clone(embedder), PatchGaussian()).fit(good)
    scores = pipeline.score_samples(parts.data)
    np.testing.assert_allclose(again.score_samples(parts.data), scores, rtol=1e-5)
    expected = detector.gaussian_.score_samples(detector.embedder_.transform(parts.data))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    other = clone(embedder).set_params(roi=~ROI)
    other = make_pipeline(other, PatchGaussian()).fit(good)  # from the same folder
    assert abs(other.score_samples(parts.data) - scores).min() > 1e-3


def test_features_are_kept_by_the_window_that_the_network_has_seen(make_detector, good, tmp_path):
    roi = np.zeros((64, 64), bool)
    roi[37, 5] = True
    make_detector("resnet18", weights=None, roi=roi, layers="layer1", memory=tmp_path).fit(good)
    kept, expected = (
        make_detector(
            "resnet18", weights=None, roi=roi, layers=("layer1", "layer2"), memory=memory
        ).fit(good)
        for memory in (tmp_path, None)
    )
    np.testing.assert_allclose(kept.training_scores_, expected.training_scores_, rtol=1e-5)


@pytest.mark.parametrize("kind", [np.array, torch.tensor, pd.DataFrame])
def test_regions_of_all_kinds_are_known_again(make_detector, good, kind):
    corners = [(4, 4), (40, 4), (40, 40)]
    for roi in (kind(ROI), [kind(corners)]):
        detector = copy.deepcopy(make_detector(roi=roi).fit(good))
        detector.set_params(roi=copy.deepcopy(roi)).predict(good[:1])
        with pytest.raises(ValueError, match="was fitted with roi="):
            detector.set_params(roi=[kind(corners[::-1])]).predict(good[:1])


@pytest.mark.parametrize("sharing", ["neighbourhood", "image"])
def test_one_patch_shares_with_none(make_detector, good, sharing):
    roi = np.zeros((64, 64), bool)
    roi[37, 5] = True
    with pytest.raises(ValueError, match="needs at least 3 training samples, found 2"):
        make_detector(roi=roi, sharing=sharing).fit(good[:2])


def test_regions_of_skipped_images_are_not_looked_at(make_detector, good, folder, tmp_path):
    detector = make_detector().fit(good)
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [folder / "part_000.png", tmp_path / "broken.png"]
    for roi in ([(4, 4), (40, 4), (40, 40)], ROI[:32]):
        with pytest.warns(UserWarning, match="broken.png"):
            found = list(detector.inspect(images, on_error="skip", roi=[ROI, roi]))
        assert [inspection.index for inspection in found] == [0]


def test_models_are_kept_updated_and_checked(detector, make_detector, parts, good, tmp_path):
    joblib.dump(detector, tmp_path / "model.joblib")
    again = joblib.load(tmp_path / "model.joblib")
    scores = detector.score_samples(parts.data)
    np.testing.assert_array_equal(again.score_samples(parts.data), scores)
    updated = make_detector(roi=ROI).partial_fit(good[:9]).partial_fit(good[9:])
    np.testing.assert_allclose(updated.score_samples(parts.data), scores, rtol=1e-4)
    again.roi = ~ROI
    with pytest.raises(ValueError, match="was fitted with roi="):
        again.predict(parts.data)
    assert again.set_params(roi=ROI.copy()).predict(parts.data).shape == (len(parts.data),)


def test_a_fit_that_fails_leaves_the_detector_as_it_was(detector, good):
    again = clone(detector).fit(good)
    before = again.offset_
    again.set_params(roi=ROI[:9])
    with pytest.raises(ValueError, match="roi is 9 pixels high"):
        again.fit(good)
    assert again.set_params(roi=ROI).offset_ == before
    again.predict(good[:1])


def test_metrics_count_the_region_alone(detector, parts, rng):
    expected = evaluate(detector, parts.data, parts.target, parts.masks, exact=True)
    assert expected["uninspected"] > 0
    changed = outside_changed(parts.data, rng)
    assert evaluate(detector, changed, parts.target, parts.masks, exact=True) == expected


def test_each_image_may_have_a_region_of_its_own(make_detector, parts, good):
    detector = make_detector().fit(good)
    images, rois = parts.data[-3:], [None, ROI, [(2, 30), (60, 30), (60, 60), (2, 60)]]
    maps, whole = detector.anomaly_map(images, roi=rois), detector.anomaly_map(images)
    np.testing.assert_allclose(maps[0], whole[0], rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(maps[1]), ~ROI)
    inside = np.zeros((64, 64), bool)
    inside[30:61, 2:61] = True
    np.testing.assert_array_equal(np.isnan(maps[2]), ~inside)
    scores = detector.score_samples(images, roi=rois)
    np.testing.assert_array_equal(scores, -np.nanmax(maps, axis=(1, 2)))
    predicted = detector.predict(images, roi=rois)
    np.testing.assert_array_equal(predicted, np.where(scores >= detector.offset_, 1, -1))
    np.testing.assert_array_equal(
        [inspection.score for inspection in detector.inspect(images, roi=rois)], scores
    )
    np.testing.assert_array_equal(detector.anomaly_mask(images, roi=rois), maps > -detector.offset_)
    assert (detector.p_values(images, roi=rois) >= detector.p_values(images)).all()
    found = detector.set_params(n_jobs=None, batch_size=2).score_samples(images, roi=rois)
    np.testing.assert_allclose(found, scores, rtol=1e-5)


def test_regions_of_images_are_checked(detector, good):
    with pytest.raises(ValueError, match="roi has 1 regions and X has 2 images"):
        detector.predict(good[:2], roi=[ROI])
    with pytest.raises(ValueError, match=r"roi\[1\] is 3 pixels high"):
        detector.predict(good[:2], roi=[ROI, ROI[:3]])
    with pytest.raises(ValueError, match="roi of image 1 has no pixel that the model inspects"):
        detector.predict(good[:2], roi=[None, ~ROI])
    with pytest.raises(ValueError, match="X is an iterator"):
        list(detector.inspect(iter(good[:2]), roi=[None, ROI]))
    with pytest.raises(TypeError, match="roi must be a sequence"):
        detector.predict(good[:2], roi="roi.png")


def test_with_alignment_the_region_is_the_references():
    parts = make_defects(24, 6, part="capsule", difficulty=0, image_size=64, random_state=0)
    good = parts.data[parts.target == 1]
    roi = np.zeros((64, 64), bool)
    roi[20:44, 20:44] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = PadimDetector(
            "filter_bank", image_size=64, random_state=0, align="translation", roi=roi
        ).fit(good)
        moved = np.roll(good[:4], (5, -3), axis=(1, 2))
        maps, moved_maps = detector.anomaly_map(good[:4]), detector.anomaly_map(moved)
    shares = np.isfinite(maps).mean(axis=(1, 2))
    np.testing.assert_allclose(shares, roi.mean(), atol=0.02)
    for before, after in zip(maps, moved_maps, strict=True):
        shown = np.isfinite(before), np.isfinite(after)
        centres = [np.argwhere(each).mean(axis=0) for each in shown]
        np.testing.assert_allclose(centres[1] - centres[0], (5, -3), atol=1)


@pytest.mark.parametrize("calibration", ["leave_one_out", "training"])
def test_an_image_whose_part_has_left_the_frame_with_the_region_is_told(calibration):
    parts = make_defects(20, 0, part="capsule", image_size=64, random_state=0).data
    roi = np.zeros((64, 64), bool)
    roi[:6, :6] = True
    detector = PadimDetector(
        "filter_bank", image_size=64, random_state=0, align="translation", roi=roi
    ).fit(parts)
    moved = np.roll(parts, -9, axis=(1, 2))
    problem = "Nothing is inspected of image 1: .*none of the region of interest is in the image"
    with pytest.raises(ValueError, match=problem):
        detector.predict([parts[0], moved[1]])
    unseen = next(detector.inspect(moved[1:2]))
    assert np.isnan(unseen.score)
    assert unseen.is_anomalous
    with pytest.raises(ValueError, match=problem):
        detector.set_params(calibration=calibration).fit([parts[0], moved[1], *parts[2:]])


@pytest.mark.parametrize("align", [None, "translation"])
def test_a_thin_region_is_not_lost_in_larger_images(align):
    parts = make_defects(20, 4, part="capsule", difficulty=0, image_size=128, random_state=0)
    roi = np.zeros((64, 64), bool)
    roi[32, 14:50] = True
    detector = PadimDetector(
        "filter_bank", image_size=64, random_state=0, align=align, roi=roi
    ).fit(parts.data[:20])
    found = list(detector.inspect(parts.data))
    assert any(each.is_anomalous for each in found)
    for each in found:
        assert each.mask.any() == each.is_anomalous == (len(each.regions) > 0)
        assert np.isfinite(each.anomaly_map).mean() == pytest.approx(roi.mean(), rel=0.1)


def test_a_region_that_does_not_fit_is_told_before_parts_are_looked_for(
    make_detector, good, monkeypatch
):
    monkeypatch.setattr("skpadim.ImageAligner.fit", lambda *_: pytest.fail("images were read"))
    with pytest.raises(ValueError, match="roi is 3 pixels high"):
        make_detector(align="translation", roi=np.ones((3, 64), bool)).fit(good)
