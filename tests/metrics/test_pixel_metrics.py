import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from skpadim.metrics import (
    PixelMetrics,
    aupro_score,
    auspro_score,
    image_f1_max,
    pixel_average_precision_score,
    pixel_f1_max,
    pixel_metrics,
    pixel_roc_auc_score,
    pro_curve,
)


def make_pairs(seed, n=6, side=24, digits=8):
    rng = np.random.default_rng(seed)
    masks = rng.random((n, side, side)) < 0.05
    masks[: n // 3] = False
    maps = rng.normal(size=masks.shape) + masks
    return masks, maps.round(digits).astype(np.float32)


def test_values_are_those_of_the_functions(pairs):
    masks, maps = pairs
    values = PixelMetrics(max_fpr=(0.3, 0.01), saturation=0.5).update(masks, maps).compute()
    f1, threshold = pixel_f1_max(masks, maps)
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    image_f1, image_threshold = image_f1_max(np.where(labels, -1, 1), scores)
    assert values == {
        "pixel_roc_auc": pixel_roc_auc_score(masks, maps),
        "pixel_average_precision": pixel_average_precision_score(masks, maps),
        "pixel_f1_max": f1,
        "pixel_f1_max_threshold": threshold,
        "aupro_0.3": aupro_score(masks, maps),
        "aupro_0.01": aupro_score(masks, maps, max_fpr=0.01),
        "auspro_0.3": auspro_score(masks, maps, 0.5, max_fpr=0.3),
        "auspro_0.01": auspro_score(masks, maps, 0.5, max_fpr=0.01),
        "image_roc_auc": pytest.approx(roc_auc_score(labels, scores), abs=1e-12),
        "image_average_precision": pytest.approx(
            average_precision_score(labels, scores), abs=1e-12
        ),
        "image_f1_max": image_f1,
        "image_f1_max_threshold": image_threshold,
    }


def test_values_of_arrays_are_the_accumulators(pairs):
    masks, maps = pairs
    assert pixel_metrics(masks, maps) == PixelMetrics().update(masks, maps).compute()
    values = pixel_metrics(masks[4:], maps[4:], max_fpr=0.2, connectivity=4)
    expected = PixelMetrics(max_fpr=0.2, connectivity=4).update(masks[4:], maps[4:]).compute()
    assert values == pytest.approx(expected, abs=0, rel=0, nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(1, 11), max_size=6),
    exact=st.booleans(),
    merge=st.booleans(),
    digits=st.sampled_from([1, 8]),
)
def test_batches_order_and_merging_change_no_bit(seed, cuts, exact, merge, digits):
    masks, maps = make_pairs(seed, n=12, side=12, digits=digits)
    expected = PixelMetrics(exact=exact).update(masks, maps)
    order = np.random.default_rng(seed).permutation(12)
    metrics = PixelMetrics(exact=exact)
    for part in np.split(order, sorted(set(cuts))):
        if len(part) and merge:
            metrics.merge(PixelMetrics(exact=exact).update(masks[part], maps[part]))
        elif len(part):
            metrics.update(list(masks[part]), list(maps[part]))
    assert metrics.n_images == 12
    assert metrics.compute() == expected.compute()
    for found, curve in zip(metrics.pro_curve(), expected.pro_curve(), strict=True):
        np.testing.assert_array_equal(found, curve)


def test_the_histogram_is_below_100_mb_whatever_comes():
    metrics = PixelMetrics(exact=False)
    masks, maps = make_pairs(0)
    metrics.update(masks, maps)
    histogram = metrics._histogram
    n_bytes = sum(a.nbytes for a in (histogram.normal, histogram.anomalous, histogram.overlap))
    metrics.update(masks, maps * 1e9)
    assert n_bytes < 60e6
    arrays = (histogram.normal, histogram.anomalous, histogram.overlap)
    assert sum(a.nbytes for a in arrays) == n_bytes


def test_the_exact_accumulator_keeps_no_more_than_the_maps(pairs):
    masks, maps = pairs
    metrics = PixelMetrics().update(masks, maps)
    kept = sum(a.nbytes for a in metrics._normal) + sum(p.scores.nbytes for p in metrics._pixels)
    assert kept == maps.nbytes
    assert all(normal.base is None for normal in metrics._normal)  # no views of larger arrays


def test_the_callers_arrays_may_be_used_again(pairs):
    masks, maps = pairs
    expected = PixelMetrics().update(masks, maps).compute()
    buffer_masks, buffer_maps = masks[:1].copy(), maps[:1].copy()
    metrics = PixelMetrics()
    for mask, one in zip(masks, maps, strict=True):
        buffer_masks[0], buffer_maps[0] = mask, one
        metrics.update(buffer_masks, buffer_maps)
    assert metrics.compute() == expected


def test_a_bad_update_leaves_the_accumulator_as_it_was(pairs):
    masks, maps = pairs
    bad = maps.copy()
    bad[-1, 0, 0] = np.nan
    for exact in (True, False):
        metrics = PixelMetrics(exact=exact).update(masks, maps)
        expected = metrics.compute()
        with pytest.raises(ValueError, match="map of image 11 has NaN"):
            metrics.update(list(masks), list(bad))
        assert metrics.n_images == 12
        assert metrics.compute() == expected


def test_dtypes_can_be_mixed(pairs):
    masks, maps = pairs
    wide = maps.astype(np.float64) + 1e-9  # no float32 any more
    expected = PixelMetrics().update(masks, np.concatenate([maps[:6], wide[6:]])).compute()
    for order in (slice(None), slice(None, None, -1)):
        metrics = PixelMetrics()
        for part in [(masks[:6], maps[:6]), (masks[6:], wide[6:])][order]:
            metrics.update(*part)
        assert metrics.compute() == expected


def test_images_of_one_kind_have_no_image_metrics(pairs):
    masks, maps = pairs
    values = PixelMetrics().update(masks[4:], maps[4:]).compute()
    assert np.isnan(values["image_roc_auc"])
    assert 0 < values["aupro_0.3"] < 1


def test_misuse_is_refused(pairs):
    with pytest.raises(ValueError, match="no images yet"):
        PixelMetrics().compute()
    with pytest.raises(TypeError, match="must be a PixelMetrics, not dict"):
        PixelMetrics().merge({})
    with pytest.raises(ValueError, match="other has exact=False, this one exact=True"):
        PixelMetrics().merge(PixelMetrics(exact=False))
    with pytest.raises(ValueError, match="saturation needs exact=True"):
        PixelMetrics(exact=False, saturation=0.5)
    with pytest.raises(ValueError, match="saturation='half' must be"):
        PixelMetrics(saturation="half")


def test_curve_is_that_of_the_function(pairs):
    for found, expected in zip(
        PixelMetrics().update(*pairs).pro_curve(), pro_curve(*pairs), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [np.asarray, list, torch.from_numpy])
def test_ignored_borders_count_as_little_as_pixels_cut_away(pairs, kind):
    masks, maps = pairs
    ignore = np.ones(masks.shape[1:], bool)
    ignore[3:33, 2:40] = False
    cut = np.ascontiguousarray(masks[:, 3:33, 2:40]), np.ascontiguousarray(maps[:, 3:33, 2:40])
    maps = np.where(ignore, np.float32(np.nan), maps)
    of_each = np.repeat(ignore[None], len(maps), axis=0)
    expected = pixel_metrics(*cut)
    for given_ignore in (ignore, kind(of_each)):
        assert pixel_metrics(kind(masks), kind(maps), ignore=given_ignore) == expected
    for exact in (True, False):
        whole = PixelMetrics(exact=exact, saturation=0.5 if exact else None)
        part = PixelMetrics(exact=exact, saturation=0.5 if exact else None).update(*cut)
        whole.update(kind(masks[:5]), kind(maps[:5]), ignore=kind(of_each[:5]))
        whole.update(kind(masks[5:]), kind(maps[5:]), ignore)
        assert whole.compute() == part.compute()


@pytest.mark.parametrize("exact", [True, False])
def test_an_image_that_is_wholly_ignored_is_in_no_metric(pairs, exact):
    masks, maps = pairs
    ignore = np.zeros(masks.shape, bool)
    ignore[[0, 7]] = True
    kept = ~ignore.any(axis=(1, 2))
    found = PixelMetrics(exact=exact).update(masks, maps, ignore).compute()
    assert found == PixelMetrics(exact=exact).update(masks[kept], maps[kept]).compute()


def test_a_defect_that_is_wholly_ignored_leaves_a_good_image(pairs):
    masks, maps = pairs
    ignore = np.zeros(masks.shape, bool)
    ignore[5] = masks[5]
    found = pixel_metrics(masks, maps, ignore=ignore)
    labels = masks.any(axis=(1, 2))
    labels[5] = False
    scores = np.where(ignore, -np.inf, maps).max(axis=(1, 2))
    assert found["image_roc_auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_masks_may_have_a_third_value_where_they_are_ignored(pairs):
    masks, maps = pairs
    drawn = masks.astype(np.uint8)
    drawn[:, :2] = 128
    assert pixel_metrics(drawn, maps, ignore=drawn == 128) == pixel_metrics(
        np.ascontiguousarray(masks[:, 2:]), np.ascontiguousarray(maps[:, 2:])
    )
