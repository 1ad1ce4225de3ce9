"""Thresholds from scores."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim.calibration._conformal import conformal_offset, conformal_p_values, training_offset


@given(n=st.integers(1, 300), percent=st.integers(1, 50))
def test_conformal_threshold_is_the_exact_rank(n, percent):
    anomaly_scores = np.arange(1.0, n + 1)
    rank = math.ceil((n + 1) * (1 - Fraction(percent, 100)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if rank > n else "error")
        offset = conformal_offset(-anomaly_scores, percent / 100)
    assert -offset == min(rank, n)


def test_too_few_scores_are_warned_about_with_what_would_do():
    with pytest.warns(UserWarning, match="10 good images are too few.*at least 19.*0.091"):
        offset = conformal_offset(np.arange(-10.0, 0), 0.05)
    assert offset == -10


def test_training_threshold_flags_the_share_of_the_training_scores():
    scores = np.random.default_rng(0).normal(size=1000)
    assert (scores < training_offset(scores, 0.05)).sum() == 50


def quiet_offset(*arguments):
    """The threshold, where there may be too few samples for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return conformal_offset(*arguments)


@st.composite
def scores_in_groups(draw):
    """Scores with many ties, and groups of any sizes or none."""
    n = draw(st.integers(1, 40))
    scores = draw(st.lists(st.integers(0, draw(st.integers(0, 30))), min_size=n, max_size=n))
    groups = draw(st.none() | st.lists(st.integers(0, n), min_size=n, max_size=n))
    return np.array(scores, dtype=draw(st.sampled_from([np.float32, float]))), groups


@settings(deadline=None)
@given(case=scores_in_groups())
def test_p_values_are_the_formula_of_hierarchical_conformal_prediction(case):
    scores, groups = case
    new = np.arange(-0.5, 32, 0.5)
    labels = list(range(len(scores))) if groups is None else groups
    for score, p_value in zip(new, conformal_p_values(new, scores, groups), strict=True):
        total = Fraction(1)
        for group in set(labels):
            inside = [s for s, label in zip(scores, labels, strict=True) if label == group]
            total += Fraction(sum(s <= score for s in inside), len(inside))
        assert p_value == float(total / (len(set(labels)) + 1))


@settings(deadline=None)
@given(
    case=scores_in_groups(),
    contamination=st.integers(1, 50).map(lambda percent: percent / 100)
    | st.integers(2, 50).map(lambda n: 1 / n)
    | st.floats(0.001, 0.5),
)
def test_a_score_is_below_the_threshold_just_where_its_p_value_says(case, contamination):
    scores, groups = case
    new = np.arange(-0.5, 32, 0.5)
    n_groups = len(scores) if groups is None else len(set(groups))
    if 1 / (n_groups + 1) > contamination:
        assert quiet_offset(scores, contamination, groups) == scores.min()
        return
    offset = conformal_offset(scores, contamination, groups)  # a warning would be an error
    p_values = conformal_p_values(new, scores, groups)
    np.testing.assert_array_equal(new < offset, p_values <= contamination)


@settings(deadline=None)
@given(case=scores_in_groups(), contamination=st.floats(0.001, 0.5))
def test_groups_of_one_are_no_groups(case, contamination):
    scores, _ = case
    groups = np.arange(len(scores))[::-1]
    offsets = (quiet_offset(scores, contamination, each) for each in (None, groups))
    assert len(set(offsets)) == 1
    new = np.arange(-0.5, 32, 0.5)
    np.testing.assert_array_equal(
        conformal_p_values(new, scores), conformal_p_values(new, scores, groups)
    )


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(30), 2)])
def test_of_equal_scores_none_is_flagged(groups):
    scores = np.full(60, -3.0)
    assert conformal_offset(scores, 0.05, groups) == -3
    np.testing.assert_array_equal(conformal_p_values(scores, scores, groups), 1)
    assert conformal_p_values(np.array([-3.1]), scores, groups)[0] <= 0.05


def test_a_part_with_many_photographs_counts_as_one():
    # 40 photographs of one bad part do not make its scores common: of 20 parts it is one.
    scores = np.concatenate([np.full(40, -9.0), np.arange(-5.0, -5 + 19)])
    groups = np.concatenate([np.zeros(40, dtype=int), np.arange(1, 20)])
    assert conformal_offset(scores, 0.1, groups) == -5
    assert conformal_offset(scores, 0.1) == -9


def test_too_few_groups_are_warned_about_with_what_would_do():
    groups = np.repeat(["a", "b", "c"], 20)
    message = "3 groups of good images are too few.*about 1 in 4.*at least 9 groups.*0.25"
    with pytest.warns(UserWarning, match=message):
        offset = conformal_offset(np.arange(60.0), 0.1, groups)
    assert offset == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    bad, good = np.array([1.0, value, 2.0]), np.arange(3.0)
    with pytest.raises(ValueError, match="1 of 3 scores are NaN or infinite.*no threshold"):
        conformal_offset(bad, 0.5, np.arange(3))
    with pytest.raises(ValueError, match="1 of 3 scores are NaN or infinite"):
        conformal_p_values(good, bad)
    with pytest.raises(ValueError, match="scores of new samples are NaN or infinite.*no p-values"):
        conformal_p_values(bad, good)


def test_new_samples_are_flagged_as_often_as_asked_where_groups_agree_among_themselves():
    # A group's samples share most of their score. Counted one by one, the four samples of the
    # worst group would look like four bad ones.
    rng = np.random.default_rng(0)
    sizes = np.array([1, 2, 4, 9] * 6)
    groups = np.repeat(np.arange(24), sizes)
    flagged = np.zeros(1000)
    for repetition in range(len(flagged)):
        scores = rng.normal(size=24)[groups] + 0.2 * rng.normal(size=len(groups))
        new = rng.normal(size=100) + 0.2 * rng.normal(size=100)
        flagged[repetition] = (new < conformal_offset(scores, 0.2, groups)).mean()
    error = flagged.std() / np.sqrt(len(flagged))
    assert 0.2 - 1 / 25 - 3 * error < flagged.mean() < 0.2 + 3 * error
