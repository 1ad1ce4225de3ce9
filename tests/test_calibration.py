"""Thresholds from scores."""

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skpadim._calibration import conformal_offset, training_offset


@given(n=st.integers(1, 300), percent=st.integers(1, 50))
def test_conformal_threshold_is_the_exact_rank(n, percent):
    anomaly_scores = np.arange(1.0, n + 1)
    rank = math.ceil((n + 1) * (1 - Fraction(percent, 100)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if rank > n else "error")
        offset = conformal_offset(-anomaly_scores, percent / 100)
    assert -offset == min(rank, n)


def test_too_few_scores_are_warned_about_with_what_would_do():
    with pytest.warns(UserWarning, match="10 normal samples are too few.*at least 19.*0.091"):
        offset = conformal_offset(np.arange(-10.0, 0), 0.05)
    assert offset == -10


def test_training_threshold_flags_the_share_of_the_training_scores():
    scores = np.random.default_rng(0).normal(size=1000)
    assert (scores < training_offset(scores, 0.05)).sum() == 50
