"""PadimDetector with `align`: what is learned, scores, maps, and all that goes with them."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline

from skpadim import ImageAligner, InspectionReport, PadimDetector, PatchEmbedder, PatchGaussian
from skpadim._anomaly_map import anomaly_maps, maps_in_images
from skpadim.alignment._motion import inverse, no_motion, places, sample
from skpadim.datasets import make_defects
from skpadim.images._batches import Images
from skpadim.metrics import evaluate

N_TRAIN, N_TEST, N_BAD, SIZE = 24, 8, 8, 96


@pytest.fixture(scope="module")
def parts():
    return make_defects(
        N_TRAIN + N_TEST,
        N_BAD,
        part="capsule",
        defects=("crack", "spot"),
        difficulty=0,
        image_size=2 * SIZE,
        random_state=0,
    )


@pytest.fixture(scope="module")
def moved(parts, photograph, some_motions):
    """Photographs, and masks, of the parts after motions."""
    rng = np.random.default_rng(0)
    n = len(parts.data)
    motions = some_motions(n, rng, 9, 10)
    masks = np.repeat(parts.masks[..., None].astype(np.uint8) * 255, 3, axis=3)
    masks = photograph(masks, motions, SIZE)[..., 0] > 127
    return photograph(parts.data, motions, SIZE, rng.uniform(0.8, 1.2, n)), masks


@pytest.fixture(scope="module")
def train(moved):
    return moved[0][:N_TRAIN]


@pytest.fixture(scope="module")
def test(moved):
    return moved[0][N_TRAIN:]


@pytest.fixture(scope="module")
def y():
    return np.repeat([1, -1], [N_TEST, N_BAD])


@pytest.fixture(scope="module")
def new_detector():
    def make(align="rigid", **parameters):
        parameters = {"image_size": SIZE, "random_state": 0, "batch_size": 8, **parameters}
        return PadimDetector("filter_bank", align=align, **parameters)

    return make


@pytest.fixture(scope="module")
def detector(new_detector, train):
    return new_detector().fit(train)


def test_defects_are_found_where_they_are(detector, new_detector, train, test, moved, y):
    scores, maps = detector.score_samples(test), detector.anomaly_map(test)
    before = new_detector(None).fit(train).score_samples(test)
    assert roc_auc_score(y, scores) > max(0.9, roc_auc_score(y, before) + 0.1)
    for anomaly_map, mask in zip(maps[y < 0], moved[1][N_TRAIN:][y < 0], strict=True):
        assert np.nanmean(anomaly_map[mask]) > 1.2 * np.nanmean(anomaly_map[~mask])
    row, column = np.unravel_index(np.nanargmax(maps[-1]), maps[-1].shape)
    near = moved[1][-1][max(0, row - 8) : row + 9, max(0, column - 8) : column + 9]
    assert near.any()


def test_scores_are_those_of_the_maps(detector, test):
    maps = detector.anomaly_map(test)
    assert 0 < np.isnan(maps).mean() < 0.2
    np.testing.assert_array_equal(detector.score_samples(test), -np.nanmax(maps, axis=(1, 2)))
    np.testing.assert_array_equal(
        detector.anomaly_mask(test), np.nan_to_num(maps) > -detector.offset_
    )
    flagged = detector.anomaly_mask(test).any(axis=(1, 2))
    np.testing.assert_array_equal(flagged, detector.predict(test) < 0)


def test_one_result_an_image(detector, test, train):
    scores, table = detector.score_samples(test), detector.aligner_.measure(test)
    for inspection in detector.inspect(test):
        assert inspection.score == scores[inspection.index]
        row = table.iloc[inspection.index]
        np.testing.assert_allclose(
            inspection.alignment.to_numpy(float), row.to_numpy(float), atol=1e-4
        )
        assert inspection.regions["peak"].max() == -inspection.score or not inspection.is_anomalous


def test_left_out_scores_are_of_aligned_images(new_detector, detector, train):
    trained = new_detector(calibration="training").fit(train)
    np.testing.assert_allclose(trained.training_scores_, trained.score_samples(train), rtol=1e-3)
    without = clone(detector).fit(train[1:]).score_samples(train[:1])
    # But for the reference, which the image has had a part in.
    assert detector.training_scores_[0] == pytest.approx(without[0], rel=0.25)


def test_images_that_cannot_be_aligned(new_detector, train, test):
    odd = np.concatenate([train, np.roll(train[:2], 40, axis=1)])
    groups = np.arange(len(odd))
    with pytest.warns(UserWarning, match=r"2 images cannot be aligned \(24, 25\).*left out"):
        detector = new_detector().fit(odd, groups=groups)
    assert detector.n_samples_seen_ == N_TRAIN
    assert len(detector.training_scores_) == N_TRAIN
    assert not detector.aligner_.alignment_["aligned"][24:].any()
    far = np.concatenate([test[:2], np.roll(test[:1], 40, axis=1)])
    with pytest.warns(UserWarning, match=r"1 image cannot be aligned \(2\).*as they lie"):
        scores = detector.score_samples(far)
    with pytest.warns(UserWarning, match="1 image cannot"):
        maps = detector.anomaly_map(far)
    assert not np.isnan(maps[2]).any()
    np.testing.assert_array_equal(scores, -np.nanmax(maps, axis=(1, 2)))
    assert scores[2] < detector.offset_
    with pytest.warns(UserWarning, match="1 image cannot"):
        list(detector.iter_anomaly_maps(iter(far[1:])))


def test_maps_are_as_large_as_the_images(detector, test):
    large = test.repeat(2, 1).repeat(2, 2)
    (one,) = detector.anomaly_map(large[-1:], size="original")
    (small,) = detector.anomaly_map(test[-1:])
    assert one.shape == (2 * SIZE, 2 * SIZE)
    assert np.isnan(one).mean() == pytest.approx(np.isnan(small).mean(), abs=0.02)
    assert np.nanmax(one) == pytest.approx(np.nanmax(small), rel=0.1)
    assert detector.anomaly_mask(large[-1:], size="original")[0].any()


def test_workers_and_files_change_nothing(detector, new_detector, train, test):
    scores = detector.score_samples(test)
    restored = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(restored.score_samples(test), scores)
    far = np.concatenate([test, np.roll(test[:1], 40, axis=1)])
    with joblib.parallel_config("threading"):
        shared = new_detector(n_jobs=2).fit(train)
        np.testing.assert_allclose(shared.training_scores_, detector.training_scores_, rtol=1e-3)
        with pytest.warns(UserWarning, match=r"1 image cannot be aligned \(16\)"):
            np.testing.assert_allclose(shared.score_samples(far)[:-1], scores, rtol=1e-3)
        with pytest.warns(UserWarning, match=r"1 image cannot be aligned \(16\)"):
            shared.anomaly_map(far)
    sent = Images(train)
    detector.aligner_.measure_all(sent)
    sent.align_by(detector.aligner_)
    arrived = pickle.loads(pickle.dumps(sent.part(3, 9)))
    np.testing.assert_array_equal(arrived.motions, sent.motions[3:9])
    assert arrived.aligner is None  # it comes with the model


def test_a_cache_holds_what_is_aligned(new_detector, detector, train, test, tmp_path):
    cached = new_detector(memory=tmp_path, calibration=None).fit(train)
    scores = detector.score_samples(test)
    for _ in range(2):  # the second time the network sees nothing
        np.testing.assert_allclose(cached.score_samples(test), scores, rtol=1e-3)
    still = new_detector(None, memory=tmp_path, calibration=None).fit(train)
    assert still.score_samples(test) != pytest.approx(cached.score_samples(test), rel=1e-3)


def test_more_images_later(new_detector, train, detector):
    later = new_detector(calibration=None).partial_fit(train[:16])
    with pytest.warns(UserWarning, match=r"1 image cannot be aligned \(8\).*left out"):
        later.partial_fit(np.concatenate([train[16:], np.roll(train[:1], 40, axis=1)]))
    assert later.n_samples_seen_ == N_TRAIN
    with pytest.raises(ValueError, match="None of the 1 images can be aligned"), pytest.warns():
        later.partial_fit(np.roll(train[:1], 40, axis=1))


def test_what_is_not_inspected_is_left_out_of_metrics(detector, test, moved, y):
    masks = moved[1][N_TRAIN:].copy()
    row = evaluate(detector, test, y, masks)
    assert row["uninspected"] == 0
    assert row["pixel_roc_auc"] > 0.8
    assert row["image_roc_auc"] > 0.9
    unseen = np.isnan(detector.anomaly_map(test))
    marked = masks | (unseen & (y < 0)[:, None, None])
    added = evaluate(detector, test, y, marked, exact=True)
    assert added["uninspected"] == pytest.approx(1 - (marked & ~unseen).sum() / marked.sum())
    exact = evaluate(detector, test, y, masks, exact=True)
    assert added["pixel_roc_auc"] == exact["pixel_roc_auc"]
    assert row["pixel_roc_auc"] == pytest.approx(exact["pixel_roc_auc"], abs=1e-3)
    larger = evaluate(detector, test, y, marked, resolution="original")
    assert larger["uninspected"] == pytest.approx(added["uninspected"], abs=0.01)
    report = InspectionReport(detector, test, y, masks)
    assert "image_roc_auc" in report._found.metrics


def test_an_aligner_of_ones_own_and_its_parameters(new_detector, train):
    detector = new_detector(ImageAligner("translation", max_shift=0.3))
    detector.set_params(align__max_shift=0.2).fit(train)
    assert detector.aligner_.max_shift == 0.2
    assert detector.aligner_.image_size == (SIZE, SIZE)
    assert (detector.aligner_.alignment_["angle"] == 0).all()
    with pytest.raises(ValueError, match="align="):
        detector.set_params(align="rigid").score_samples(train[:1])
    with pytest.raises(ValueError, match="align='rigid': fit needs X"):
        PatchEmbedder("filter_bank", align="rigid").fit()
    with pytest.raises(ValueError, match="'align' parameter"):
        new_detector("turned").fit(train)


def test_in_a_pipeline(train, test, y):
    embedder = PatchEmbedder("filter_bank", align="rigid", image_size=SIZE, random_state=0)
    pipeline = make_pipeline(embedder, PatchGaussian()).fit(train)
    assert roc_auc_score(y, pipeline.score_samples(test)) > 0.8
    with pytest.warns(UserWarning, match="1 image cannot be aligned"):
        embedder.transform(np.roll(test[:1], 40, axis=1))


def test_a_part_that_is_not_square(new_detector, train):
    wide = [np.ascontiguousarray(image[12:-12]) for image in train]
    detector = new_detector(keep_aspect_ratio=True, image_size=72).fit(wide)
    assert detector.anomaly_map(wide[:1]).shape == (1, 72, 96)
    with pytest.raises(ValueError, match=r"96 pixels wide and 72 high.*keep_aspect_ratio=True"):
        new_detector().fit(wide)
    new_detector("translation").fit(wide)


@pytest.mark.parametrize("crop", [(64, 64), (57, 56)])
def test_only_what_the_image_shows_counts(crop, rng, some_motions):
    size, grid = (64, 64), (8, 8)
    still = torch.rand(2, *grid)
    maps = maps_in_images(still, no_motion(2), size, crop, 4.0)
    torch.testing.assert_close(maps, anomaly_maps(still, crop, 4.0))
    # A part that lies 24 pixels lower: the reference has nothing of the upper rows, and the lower
    # ones of the aligned image, of which the distances are large, were not in the image.
    down = torch.tensor([[24.0, 0.0, 0.0, 1.0]])
    distances = torch.ones(1, *grid)
    distances[:, 5:] = 1000.0
    (moved,) = maps_in_images(distances, down, size, size, 4.0)
    assert moved[:24].isnan().all()
    assert moved[24:].max() == pytest.approx(1)
    # Maps go where the images have been.
    motions = some_motions(1, rng, 6, 20)
    bump = torch.zeros(1, *grid)
    bump[0, 3, 4] = 1
    (there,) = maps_in_images(bump, motions, size, crop, 4.0)
    whole = torch.zeros(1, 1, *size)
    top, left = (64 - crop[0]) // 2, (64 - crop[1]) // 2
    whole[0, 0, top : top + crop[0], left : left + crop[1]] = anomaly_maps(bump, crop, 4.0)[0]
    expected = sample(whole, places(inverse(motions), size))[0, 0]
    expected = expected[top : top + crop[0], left : left + crop[1]]
    found, wanted = (divmod(int(m.nan_to_num().argmax()), crop[1]) for m in (there, expected))
    assert np.abs(np.subtract(found, wanted)).max() <= 1
