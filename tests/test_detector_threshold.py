"""The threshold of PadimDetector: groups, p-values, masks, and setting it again."""

import pickle

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skpadim.datasets import make_defects
from skpadim.model_selection import NormalGroupFold

ways = pytest.mark.parametrize("way", ["embeddings fit", "second pass", "samples"])


@pytest.fixture(scope="module")
def views():
    """Ten parts, in one to four photographs each, and what they show."""
    parts = make_defects(10, 0, n_views=4, image_size=64, random_state=3)
    kept = np.random.default_rng(0).permutation(40)[:26]
    return parts.data[kept], np.array([f"part {group}" for group in parts.groups[kept]])


def detector_for(way, make_detector, monkeypatch, **parameters):
    if way == "second pass":
        monkeypatch.setattr("skpadim.streaming._learning.MAX_EMBEDDINGS_BYTES", 1)
    settings = {"weights": None, "n_features": 60 if way == "samples" else 12, "batch_size": 5}
    settings["image_size"] = 32
    return make_detector("resnet18", contamination=0.2, **{**settings, **parameters})


@ways
def test_groups_are_left_out_whole(way, views, make_detector, monkeypatch):
    images, groups = views
    detector = detector_for(way, make_detector, monkeypatch).fit(images, groups=groups)
    for group in np.unique(groups)[:3]:
        inside = groups == group
        refit = clone(detector).set_params(calibration=None).fit(images[~inside])
        expected = refit.score_samples(images[inside])
        assert_allclose(detector.training_scores_[inside], expected, rtol=1e-4)
    assert_array_equal(detector.calibration_scores_, detector.training_scores_)
    assert_array_equal(np.unique(groups)[detector.calibration_groups_], groups)


def test_a_second_pass_by_groups_gives_what_one_pass_gives(views, make_detector, monkeypatch):
    images, groups = views
    expected = detector_for("embeddings fit", make_detector, monkeypatch)
    expected.fit(images, groups=groups)
    detector = detector_for("second pass", make_detector, monkeypatch)
    detector.fit(images, groups=groups)
    assert_allclose(detector.training_scores_, expected.training_scores_, rtol=1e-5)
    assert_allclose(detector.offset_, expected.offset_, rtol=1e-5)


def test_groups_of_images_labelled_defective_do_not_count(views, make_detector):
    images, groups = views
    y = np.ones(len(images), dtype=int)
    y[groups == "part 3"] = -1
    y[0] = -1
    detector = make_detector(contamination=0.2).fit(images, y, groups=groups)
    expected = make_detector(contamination=0.2).fit(images[y == 1], groups=groups[y == 1])
    assert detector.offset_ == expected.offset_
    assert len(detector.calibration_groups_) == (y == 1).sum()


def test_groups_are_routed_through_pipelines_and_searches(views, make_detector):
    images, groups = views
    detector = make_detector(contamination=0.3)
    expected = clone(detector).fit(images, groups=groups).offset_
    assert clone(detector).fit(images).offset_ != expected
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(FunctionTransformer(), detector)
        assert pipeline.fit(images, groups=groups)[-1].offset_ == expected
        y = np.where(np.isin(groups, ["part 1", "part 2", "part 5"]), -1, 1)
        folds = NormalGroupFold(2)
        settings = {"cv": folds, "scoring": "roc_auc"}
        cross_validate(detector, images, y, params={"groups": groups}, **settings)
        search = GridSearchCV(detector, {"sigma": [2.0, 4.0]}, **settings)
        best = search.fit(images, y, groups=groups).best_estimator_
        assert best.calibration_groups_ is not None


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"] * 3, "groups has 3 labels for 24 samples"),
        (["a"] * 23 + [None], "groups has no label for 1 of 24 samples"),
        (["a"] * 24, "groups has one label for all 24 training samples, 'a'"),
        (["a"] * 23 + ["b"], "The group 'a' has 23 of the 24 training samples"),
    ],
)
def test_groups_that_a_fit_refuses(groups, message, good, make_detector):
    detector = make_detector().fit(good)
    before = pickle.dumps(detector)
    with pytest.raises(ValueError, match=message):
        detector.fit(good, groups=groups)
    assert pickle.dumps(detector) == before


def test_another_contamination_needs_no_refit(good, make_detector):
    others = make_defects(9, 0, difficulty=0, image_size=64, random_state=7).data
    detector = make_detector(contamination=0.1).fit(good)
    for contamination in (0.3, 0.1):
        detector.set_params(contamination=contamination).calibrate()
        assert detector.offset_ == make_detector(contamination=contamination).fit(good).offset_
    detector.set_params(contamination=0.25)
    held_out = detector.calibrate(others).offset_
    detector.set_params(contamination=0.5).calibrate()
    assert detector.offset_ > held_out
    assert_array_equal(detector.calibration_scores_, detector.score_samples(others))
    assert len(detector.training_scores_) == len(good)


def test_another_share_of_the_training_images_needs_no_refit(good, make_detector):
    detector = make_detector(calibration="training", contamination=0.05).fit(good)
    detector.set_params(contamination=0.25).calibrate()
    assert (detector.predict(good) == -1).sum() == 6


def test_no_scores_no_new_threshold(good, make_detector):
    detector = make_detector().partial_fit(good)
    with pytest.raises(AttributeError, match="no scores to set a threshold from"):
        detector.calibrate()
    with pytest.raises(AttributeError, match="PadimDetector has no p-values: partial_fit"):
        detector.p_values(good)
    with pytest.raises(AttributeError, match="PadimDetector has no threshold"):
        detector.anomaly_mask(good)
    with pytest.raises(ValueError, match="groups without samples"):
        detector.calibrate(groups=[1, 2])


def test_training_scores_give_no_p_values(good, make_detector):
    detector = make_detector(calibration="training").fit(good)
    with pytest.raises(AttributeError, match="calibration='training'.*Fit with calibration"):
        detector.p_values(good)


def test_a_fit_forgets_the_held_out_scores_of_the_model_before(good, make_detector):
    detector = make_detector(contamination=0.3).fit(good[:12])
    detector.calibrate(good[12:]).set_params(calibration="training").fit(good)
    assert not hasattr(detector, "calibration_scores_")


def test_predict_flags_p_values_up_to_the_contamination(good, parts, make_detector):
    detector = make_detector(contamination=0.2).fit(good)
    p_values = detector.p_values(parts.data)
    assert ((p_values > 0) & (p_values <= 1)).all()
    assert_array_equal(detector.predict(parts.data) == -1, p_values <= 0.2)
    scores = detector.score_samples(parts.data)
    expected = [(1 + (detector.training_scores_ <= score).sum()) / 25 for score in scores]
    assert_allclose(p_values, expected)


def test_masks_have_pixels_where_predict_flags(good, parts, make_detector):
    detector = make_detector(contamination=0.2).fit(good)
    masks = detector.anomaly_mask(parts.data)
    assert masks.dtype == bool
    assert_array_equal(masks, detector.anomaly_map(parts.data) > -detector.offset_)
    assert_array_equal(masks.any(axis=(1, 2)), detector.predict(parts.data) == -1)
    defects = np.asarray(parts.masks)[parts.target == -1]
    assert masks[parts.target == -1][defects].mean() > 5 * masks[parts.target == -1].mean()


def test_training_images_given_to_calibrate_are_recognised(good, folder, make_detector):
    detector = make_detector(contamination=0.3).fit(good[:12])
    again = pickle.loads(pickle.dumps(detector))
    for images in (good[10:], list(good[10:])):
        with pytest.warns(UserWarning, match="has learned from 2 of the 14 images.*at index 0"):
            again.calibrate(images)
    detector.calibrate(good[12:])  # no warning
    paths = sorted(folder.iterdir())
    detector = make_detector(contamination=0.3).fit(paths[:12]).partial_fit(paths[12:16])
    with pytest.warns(UserWarning, match="has learned from 3 of the 10"):
        detector.calibrate(paths[13:23])


def test_all_scores_equal_flag_nothing(make_detector, good):
    same = np.repeat(good[:1], 24, axis=0)
    detector = make_detector(contamination=0.1).fit(same)
    assert (detector.predict(same) == 1).all()
    assert (detector.p_values(same) == 1).all()
    assert not detector.anomaly_mask(same).any()


def test_too_few_images_for_the_contamination_are_warned_of(good, make_detector):
    with pytest.warns(UserWarning, match="24 good images are too few .*Use at least 99"):
        make_detector(contamination=0.01).fit(good)
    with pytest.warns(UserWarning, match="12 groups of good images .*Use at least 19 groups"):
        make_detector(contamination=0.05).fit(good, groups=np.arange(24) // 2)


@pytest.mark.parametrize("contamination", [0, -0.1, 0.6, np.nan, "auto"])
def test_contamination_is_checked(contamination, good, make_detector):
    detector = make_detector().fit(good)
    detector.set_params(contamination=contamination)
    with pytest.raises(ValueError, match="'contamination' parameter of PadimDetector must be"):
        detector.calibrate()


def test_images_labelled_defective_set_no_threshold(good, parts, make_detector):
    detector = make_detector(contamination=0.3).fit(good[:12])
    defective = parts.data[parts.target == -1]
    X, y = np.concatenate([defective, good[12:]]), np.repeat([-1, 1], [len(defective), 12])
    detector.calibrate(X, y, groups=np.arange(len(X)) // 2)
    assert_array_equal(detector.calibration_scores_, detector.score_samples(X)[y == 1])
    assert_array_equal(detector.calibration_groups_, np.arange(len(X))[y == 1] // 2)
    with pytest.raises(ValueError, match="y has the labels 'part 0'.*use .1 for good"):
        detector.calibrate(X, [f"part {i}" for i in range(len(X))])


def test_the_gaussian_within_has_no_threshold_until_it_is_calibrated(good, make_detector):
    detector = make_detector().fit(good)
    gaussian = detector.gaussian_
    for method in ("decision_function", "predict", "p_values"):
        assert not hasattr(gaussian, method)
    with pytest.raises(AttributeError, match="PatchGaussian has no threshold.*Call calibrate"):
        gaussian.predict(detector.embedder_.transform(good))
    assert (gaussian.calibration, gaussian.regularization) == (None, detector.regularization)
    gaussian.calibrate(1.01 * detector.embedder_.transform(good))
    assert (gaussian.predict(detector.embedder_.transform(good)) == 1).all()
