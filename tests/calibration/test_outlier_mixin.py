"""Thresholds and p-values of fitted Gaussians: what sets them, and what they promise."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skpadim import PatchGaussian
from skpadim.calibration._conformal import conformal_offset, training_offset


def leave_one_out(**parameters):
    return PatchGaussian(**{"calibration": "leave_one_out", "contamination": 0.1, **parameters})


def make_samples(n, n_features=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_features))


def make_grids(n, seed=0):
    """Embeddings of parts, four photographs of each, that differ less than the parts do."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(-(-n // 4), 2, 3, 5)).repeat(4, axis=0)[:n]
    return parts + 0.3 * rng.normal(size=parts.shape)


@pytest.mark.parametrize("solver", ["full", "low_rank"])
def test_scores_without_the_group_are_those_of_real_refits(solver):
    X, groups = make_grids(22), np.array([f"part {i // 4}" for i in range(22)])
    gaussian = leave_one_out(contamination=0.2, solver=solver).fit(X, groups=groups)
    for group in np.unique(groups):
        inside = groups == group
        refit = PatchGaussian(calibration=None).fit(X[~inside])
        expected = refit.score_samples(X[inside])
        np.testing.assert_allclose(gaussian.training_scores_[inside], expected, rtol=1e-8)
    np.testing.assert_array_equal(gaussian.calibration_groups_, np.arange(22) // 4)
    offset = conformal_offset(gaussian.training_scores_, 0.2, groups)
    assert gaussian.offset_ == offset


def test_photographs_of_a_part_vouch_for_each_other_unless_they_are_grouped():
    X, groups = make_grids(80), np.arange(80) // 4
    new = make_grids(400, seed=1)
    with_groups = leave_one_out().fit(X, groups=groups)
    without = leave_one_out().fit(X)
    assert (with_groups.predict(new) == -1).mean() < 0.15
    assert (without.predict(new) == -1).mean() > 0.3


def test_tensors_and_blocks_take_groups_too():
    X, groups = make_grids(24), np.arange(24) // 4
    expected = leave_one_out(contamination=0.2).fit(X, groups=groups)
    from_tensor = leave_one_out(contamination=0.2).fit(torch.from_numpy(X), groups=groups.tolist())
    np.testing.assert_array_equal(from_tensor.training_scores_, expected.training_scores_)
    assert from_tensor.offset_ == expected.offset_


def test_groups_of_one_change_nothing():
    X = make_samples(30)
    expected, grouped = leave_one_out().fit(X), leave_one_out().fit(X, groups=np.arange(30)[::-1])
    np.testing.assert_array_equal(grouped.training_scores_, expected.training_scores_)
    assert grouped.offset_ == expected.offset_
    new = make_samples(20, seed=1) * 2
    np.testing.assert_array_equal(grouped.p_values(new), expected.p_values(new))


@pytest.mark.parametrize("calibration", ["training", None])
def test_other_calibrations_have_no_use_for_groups(calibration):
    X = make_samples(30)
    gaussian = PatchGaussian(calibration=calibration).fit(X, groups=["one part"] * 30)
    expected = PatchGaussian(calibration=calibration).fit(X)
    np.testing.assert_array_equal(gaussian.location_, expected.location_)
    assert getattr(gaussian, "offset_", None) == getattr(expected, "offset_", None)
    assert not hasattr(gaussian, "calibration_groups_")


def test_groups_of_samples_labelled_anomalous_are_left_out_with_them():
    X, groups = make_grids(44), np.array([f"part {i // 4}" for i in range(44)])
    y = np.where((np.arange(44) % 5 == 0) | (groups == "part 3"), -1, 1)
    gaussian = leave_one_out().fit(X, y, groups)
    expected = leave_one_out().fit(X[y == 1], groups=groups[y == 1])
    np.testing.assert_array_equal(gaussian.training_scores_, expected.training_scores_)
    assert gaussian.offset_ == expected.offset_
    new = make_grids(8, seed=1)
    np.testing.assert_array_equal(gaussian.p_values(new), expected.p_values(new))


def test_groups_that_cannot_be_left_out_are_refused():
    X, y = make_samples(8), np.array([1, 1, 1, 1, 1, 1, 1, -1])
    refused = [
        (None, ["a"] * 7, "groups has 7 labels for 8 samples"),
        (None, ["a", None] * 4, "groups has no label for 4 of 8 samples"),
        (None, ["a"] * 8, "one label for all 8 training samples, 'a'"),
        (y, [1, 1, 1, 2, 2, 2, 2, 9], None),
        (y, [1, 2, 2, 2, 2, 2, 2, 9], "group '2' has 6 of the 7 training samples.*at least 2"),
    ]
    for labels, groups, message in refused:
        gaussian = leave_one_out(contamination=0.5)
        if message is None:
            gaussian.fit(X, labels, groups)
            continue
        with pytest.raises(ValueError, match=message):
            gaussian.fit(X, labels, groups)
        assert not hasattr(gaussian, "location_")


def test_groups_reach_the_gaussian_through_a_pipeline():
    X, groups = make_samples(40), np.arange(40) // 2
    with sklearn.config_context(enable_metadata_routing=True):
        gaussian = leave_one_out().set_fit_request(groups=True)
        pipeline = make_pipeline(StandardScaler(), gaussian).fit(X, groups=groups)
    expected = leave_one_out().fit(StandardScaler().fit_transform(X), groups=groups)
    assert pipeline[-1].offset_ == expected.offset_
    np.testing.assert_array_equal(pipeline[-1].calibration_groups_, groups)
    labels = leave_one_out().fit_predict(X, groups=groups)
    np.testing.assert_array_equal(labels, leave_one_out().fit(X, groups=groups).predict(X))


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(4, 40), percent=st.integers(1, 50), grouped=st.booleans(), held=st.booleans()
)  # fmt: skip
def test_predict_flags_the_samples_whose_p_values_say_so(n, percent, grouped, held):
    rng = np.random.default_rng(n)
    groups = rng.integers(n // 2, size=n) if grouped else None
    n_groups = n if groups is None else len(np.unique(groups))
    contamination = max(percent / 100, 1 / (n_groups + 1))
    gaussian = leave_one_out(contamination=contamination)
    X = np.round(make_samples(n, n_features=2), 1)
    if held:
        gaussian.set_params(calibration=None).fit(make_samples(20, 2, seed=5))
        gaussian.calibrate(X, groups=groups)
    elif groups is not None and np.bincount(groups).max() > n - 2:
        return
    else:
        gaussian.fit(X, groups=groups)
    # The calibration samples are among them, for the ties.
    new = np.concatenate([X, make_samples(200, 2, seed=1) * 2])
    p_values = gaussian.p_values(new)
    assert p_values.shape == (len(new),)
    assert p_values.min() >= 1 / (n_groups + 1)
    np.testing.assert_array_equal(gaussian.predict(new) == -1, p_values <= contamination)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_changed_contamination_needs_no_other_fit(grouped):
    X, groups = make_samples(60), np.arange(60) // 2 if grouped else None
    gaussian = leave_one_out().fit(X, groups=groups)
    location = gaussian.location_
    gaussian.set_params(contamination=0.3).calibrate()
    expected = leave_one_out(contamination=0.3).fit(X, groups=groups)
    assert gaussian.offset_ == expected.offset_
    assert gaussian.location_ is location
    held_out = make_samples(50, seed=1)
    gaussian.calibrate(held_out).set_params(contamination=0.2).calibrate()
    assert gaussian.offset_ == conformal_offset(gaussian.score_samples(held_out), 0.2)
    np.testing.assert_array_equal(gaussian.training_scores_, expected.training_scores_)


def test_a_changed_contamination_of_training_scores_stays_the_training_share():
    X = make_samples(60)
    gaussian = PatchGaussian().fit(X).set_params(contamination=0.2).calibrate()
    assert gaussian.offset_ == training_offset(gaussian.training_scores_, 0.2)
    assert (gaussian.predict(X) == -1).sum() == 12


def test_held_out_samples_are_what_the_threshold_comes_from_after_calibrate():
    gaussian = PatchGaussian(contamination=0.1).fit(make_samples(60))
    held_out, groups = make_samples(50, seed=1), np.repeat(np.arange(20), [1, 4] * 10)
    gaussian.calibrate(held_out, groups=groups)
    np.testing.assert_array_equal(gaussian.calibration_scores_, gaussian.score_samples(held_out))
    np.testing.assert_array_equal(gaussian.calibration_groups_, groups)
    assert gaussian.offset_ == conformal_offset(gaussian.calibration_scores_, 0.1, groups)
    gaussian.calibrate(held_out)
    assert gaussian.calibration_groups_ is None


def test_without_scores_calibrate_asks_for_samples():
    gaussian = PatchGaussian(calibration=None).fit(make_samples(20))
    with pytest.raises(AttributeError, match="no scores to set a threshold from.*Give calibrate"):
        gaussian.calibrate()
    for changed in (
        leave_one_out().fit(make_samples(20)).partial_fit(make_samples(3, seed=1)),
        leave_one_out().fit(make_samples(20)).merge(gaussian),
    ):
        with pytest.raises(AttributeError, match="partial_fit, merge and calibration=None"):
            changed.calibrate()
        with pytest.raises(AttributeError, match="no p-values: partial_fit, merge.*Call calibrate"):
            changed.p_values(make_samples(3))
        for name in ("training_scores_", "calibration_scores_", "calibration_groups_", "offset_"):
            assert not hasattr(changed, name)
    with pytest.raises(ValueError, match="groups without samples"):
        leave_one_out().fit(make_samples(20)).calibrate(groups=[1, 2])


def test_scores_of_the_training_samples_themselves_give_no_p_values():
    gaussian = PatchGaussian().fit(make_samples(20))
    with pytest.raises(AttributeError, match=r"calibration='training'\).*'leave_one_out', or call"):
        gaussian.p_values(make_samples(3))
    held_out = make_samples(30, seed=1)
    assert gaussian.calibrate(held_out).p_values(held_out).max() == 1


@pytest.mark.parametrize("call", ["calibrate", "p_values"])
def test_before_fit_there_is_nothing_to_calibrate(call):
    with pytest.raises(NotFittedError):
        getattr(PatchGaussian(), call)(make_samples(3))
    with pytest.raises(NotFittedError):
        PatchGaussian().calibrate()


def test_a_contamination_above_a_half_is_refused_at_calibrate():
    gaussian = leave_one_out().fit(make_samples(20)).set_params(contamination=0.6)
    message = r"'contamination' parameter of PatchGaussian must be a float in the range \(0.*0.5\]"
    with pytest.raises(ValueError, match=message):
        gaussian.calibrate()


def test_samples_that_the_model_has_learned_from_are_warned_about():
    X, more, other = (make_samples(20, seed=seed) for seed in range(3))
    fitted = leave_one_out().fit(X)
    for gaussian, known in [
        (fitted, X),
        (pickle.loads(pickle.dumps(fitted)), X.astype(np.float32)),
        (copy.deepcopy(fitted).partial_fit(more), X[:5]),
        (copy.deepcopy(fitted).partial_fit(more), more),
        (copy.deepcopy(fitted).merge(PatchGaussian().fit(more)), more),
        (PatchGaussian().partial_fit(X), torch.from_numpy(X)),
    ]:
        with pytest.warns(UserWarning, match=f"learned from {len(known)} of the {len(known)} "):
            gaussian.set_params(contamination=0.4).calibrate(known)
        assert hasattr(gaussian, "offset_")
        gaussian.calibrate(other)
    with pytest.warns(UserWarning, match=r"learned from 1 of the 21 .*first at index 20\)"):
        fitted.calibrate(np.concatenate([other, X[7:8]]))
    fitted.fit(other).calibrate(X)  # what an earlier fit has learned is forgotten


def test_p_values_and_threshold_survive_pickling():
    X, groups = make_samples(40), np.arange(40) // 2
    gaussian = leave_one_out().fit(X, groups=groups)
    again = pickle.loads(pickle.dumps(gaussian))
    new = make_samples(10, seed=1)
    np.testing.assert_array_equal(again.p_values(new), gaussian.p_values(new))
    assert again.set_params(contamination=0.3).calibrate().offset_ >= gaussian.offset_


def test_p_values_of_normal_samples_are_uniform():
    rng = np.random.default_rng(0)
    p_values = np.concatenate(
        [
            leave_one_out().fit(rng.normal(size=(60, 20))).p_values(rng.normal(size=(100, 20)))
            for _ in range(60)
        ]
    )
    for level in (0.05, 0.1, 0.3, 0.5):
        assert 0.7 * level < (p_values <= level).mean() < 1.15 * level


def test_the_share_of_good_samples_among_the_flagged_is_controlled():
    # The recipe of the notes: 30 of 100 inspected samples are bad.
    rng = np.random.default_rng(0)
    shares, found = [], []
    for _ in range(60):
        gaussian = leave_one_out().fit(rng.normal(size=(100, 10)))
        bad = np.arange(100) < 30
        X = rng.normal(size=(100, 10)) + np.where(bad, 2.2, 0)[:, None]
        flagged = false_discovery_control(gaussian.p_values(X), method="bh") <= 0.1
        shares.append((flagged & ~bad).sum() / max(flagged.sum(), 1))
        found.append((flagged & bad).sum() / bad.sum())
    assert np.mean(shares) < 0.1
    assert np.mean(found) > 0.8


def test_what_there_is_no_threshold_for_is_not_there():
    fitted = leave_one_out().fit(make_samples(20))
    assert hasattr(PatchGaussian(), "predict")  # before a fit nothing is known
    for method in ("decision_function", "predict", "p_values"):
        assert hasattr(fitted, method)
        assert not hasattr(PatchGaussian(calibration=None).fit(make_samples(20)), method)
    assert not hasattr(PatchGaussian().fit(make_samples(20)), "p_values")
    pipeline = make_pipeline(StandardScaler(), PatchGaussian(calibration=None))
    assert not hasattr(pipeline.fit(make_samples(20)), "predict")
    assert fitted.predict.__doc__ == PatchGaussian.predict.__doc__


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("make", [make_samples, make_grids])
def test_samples_labelled_anomalous_set_no_threshold(make, kind):
    gaussian, held_out = leave_one_out(contamination=0.3).fit(make(30)), make(24, seed=1)
    y, groups = np.where(np.arange(24) % 3, 1, -1), np.arange(24) // 4
    expected = copy.deepcopy(gaussian).calibrate(held_out[y == 1], groups=groups[y == 1])
    gaussian.calibrate(kind(held_out), y, groups=groups)
    np.testing.assert_array_equal(gaussian.calibration_scores_, expected.calibration_scores_)
    assert gaussian.offset_ == expected.offset_
    with pytest.warns(UserWarning, match="8 of 24 are left out"):
        gaussian.calibrate(kind(held_out), y == -1)
    assert len(gaussian.calibration_scores_) == 16
    with pytest.raises(ValueError, match="y has the labels 0, 1, 2, 3, 4, .*use \\+1"):
        gaussian.calibrate(kind(held_out), groups)
    with pytest.raises(ValueError, match="y without samples"):
        gaussian.calibrate(y=y)
