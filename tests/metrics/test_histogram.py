import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim.metrics import PixelMetrics, _histogram


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1.0, 1e-3, 1e6, 1e-12, 1e30]),  # the last two leave the bins' range
    digits=st.sampled_from([1, 8, 40]),
    shift=st.floats(-1, 4),
    coarse=st.booleans(),
    wide=st.booleans(),
)
def test_bounds_of_the_histogram_hold(seed, scale, digits, shift, coarse, wide):
    rng = np.random.default_rng(seed)
    masks = rng.random((6, 24, 24)) < 0.05
    masks[:2] = False
    maps = ((rng.normal(size=masks.shape) + shift * masks) * scale).round(digits)
    maps = maps.astype(np.float32).astype(np.float64 if wide else np.float32)
    with pytest.MonkeyPatch.context() as patch:
        if coarse:  # a few bins an octave, so that the bounds matter
            zero = (_histogram._HIGHEST_BITS - _histogram._LOWEST_BITS >> 21) + 1
            patch.setattr(_histogram, "_SHIFT", 21)
            patch.setattr(_histogram, "_ZERO_BIN", zero)
            patch.setattr(_histogram, "N_BINS", 2 * zero + 1)
        values = PixelMetrics(exact=False).update(masks, maps).compute()
    exact = PixelMetrics().update(masks, maps).compute()
    for name in exact:
        if f"{name}_error" in values:
            assert abs(values[name] - exact[name]) <= values[f"{name}_error"]
        elif name != "pixel_f1_max_threshold":
            assert values[name] == exact[name]
    assert sum(name.endswith("_error") for name in values) == 6
    if not coarse and scale == 1 and digits > 1:
        assert values["pixel_roc_auc_error"] < 1e-3
        assert values["aupro_0.3_error"] < 1e-2


def test_bins_are_ordered_and_know_their_edges():
    rng = np.random.default_rng(0)
    scores = np.concatenate([[-np.inf, 0, -0.0, np.inf], rng.normal(size=1000)])
    scores = np.concatenate([scores * 10.0**power for power in (-40, -9, 0, 3, 12)])
    scores = np.sort(scores[~np.isnan(scores)].astype(np.float32))
    bins = _histogram.bins_of(scores)
    assert (np.diff(bins) >= 0).all()
    assert bins.min() >= 0
    assert bins.max() < _histogram.N_BINS
    edges = _histogram.lower_edges(bins)
    assert (edges <= scores).all()
    np.testing.assert_array_equal(_histogram.bins_of(edges), bins)
    below = np.nextafter(edges, np.float32(-np.inf))[edges > -np.inf]
    assert (_histogram.bins_of(below) < bins[edges > -np.inf]).all()
