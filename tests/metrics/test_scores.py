"""Every metric against brute force over all thresholds, against scikit-learn and a peer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from skpadim.metrics import (
    aupro_score,
    auspro_score,
    image_f1_max,
    pixel_average_precision_score,
    pixel_f1_max,
    pixel_roc_auc_score,
    pro_curve,
    pro_score,
    spro_curve,
)

EIGHT = np.ones((3, 3))


@st.composite
def tied_pairs(draw, dtypes=(np.float32, np.float64)):
    """Masks and maps of a few pixels with many ties, both kinds of pixel among them."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(2, 6)))
    masks = draw(hnp.arrays(bool, shape))
    masks.flat[0], masks.flat[-1] = True, False
    span = draw(st.sampled_from([(0, 2), (-2, 2), (-30, 30)]))
    levels = draw(hnp.arrays(np.int64, shape, elements=st.integers(*span)))
    scale = draw(st.sampled_from([1.0, 0.1, 1e-6, 1e3]))
    return masks, (levels * scale).astype(draw(st.sampled_from(dtypes)))


def regions_of(masks, structure=EIGHT):
    """One mask a region, by scipy."""
    regions = []
    for index, mask in enumerate(masks):
        labels, n_regions = label(mask, structure)
        for number in range(1, n_regions + 1):
            region = np.zeros_like(masks)
            region[index] = labels == number
            regions.append(region)
    return regions


def brute_force_curve(masks, maps, regions, saturations=None, counted=slice(None)):
    """Rates and overlaps at every distinct score, from the definition."""
    normal = np.zeros_like(masks)
    normal[counted] = ~masks[counted]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps[counted])[::-1]:
        detected = maps >= threshold
        fpr.append((detected & normal).sum() / normal.sum())
        shares = [
            min((detected & region).sum() / (region.sum() if limit is None else limit), 1)
            for region, limit in zip(regions, saturations or [None] * len(regions), strict=True)
        ]
        pro.append(np.mean(shares))
    return np.array(fpr), np.array(pro)


def area_up_to(x, y, limit):
    """Trapezoids, the last one cut at the limit."""
    area = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        if x0 >= limit:
            break
        stop = min(x1, limit)
        y_stop = y0 + (y1 - y0) * (stop - x0) / (x1 - x0) if x1 > x0 else y1
        area += (stop - x0) * (y0 + y_stop) / 2
    return area / limit


@settings(deadline=None, max_examples=150)
@given(
    pairs=tied_pairs(),
    max_fpr=st.sampled_from([0.01, 0.05, 0.3, 1.0]),
    connectivity=st.sampled_from([4, 8]),
)
def test_aupro_is_the_area_under_the_curve_of_all_thresholds(pairs, max_fpr, connectivity):
    masks, maps = pairs
    regions = regions_of(masks, EIGHT if connectivity == 8 else None)
    expected = area_up_to(*brute_force_curve(masks, maps, regions), max_fpr)
    value = aupro_score(masks, maps, max_fpr=max_fpr, connectivity=connectivity)
    assert value == pytest.approx(expected, abs=1e-12)
    assert 0 <= value <= 1


@settings(deadline=None, max_examples=80)
@given(pairs=tied_pairs(), seed=st.integers(0, 10**6))
def test_ignored_pixels_count_nowhere_and_cut_regions(pairs, seed):
    masks, maps = pairs
    ignore = np.random.default_rng(seed).random(masks.shape) < 0.3
    ignore.flat[[0, -1]] = False
    counted = ~ignore
    curve = brute_force_curve(masks, maps, regions_of(masks & counted), counted=counted)
    labels, scores = masks[counted], maps[counted]
    maps = np.where(ignore, np.float32(np.nan), maps)  # whatever stands there
    for form in (np.asarray, list):
        given = form(masks), form(maps)
        aupro = aupro_score(*given, ignore=form(ignore))
        assert aupro == pytest.approx(area_up_to(*curve, 0.3), abs=1e-12)
        auc = pixel_roc_auc_score(*given, ignore=form(ignore))
        assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        precision = pixel_average_precision_score(*given, ignore=form(ignore))
        assert precision == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
        f1, threshold = pixel_f1_max(*given, ignore=form(ignore))
        assert f1 == pytest.approx(f1_score(labels, scores >= threshold), abs=1e-12)
        fpr, pro, thresholds = pro_curve(*given, ignore=form(ignore))
        if np.isfinite(thresholds[-2]):
            detected = pro_score(*given, thresholds[-2], ignore=form(ignore))
            assert pro[-2] == pytest.approx(detected, abs=1e-12)
        assert pro[np.searchsorted(fpr, curve[0][1], side="right") - 1] == pytest.approx(
            curve[1][curve[0] == curve[0][1]].max(), abs=1e-12
        )


@settings(deadline=None, max_examples=100)
@given(pairs=tied_pairs(dtypes=(np.float16, np.float32, np.float64)))
def test_auc_and_average_precision_are_scikit_learns(pairs):
    masks, maps = pairs
    expected = roc_auc_score(masks.ravel(), maps.ravel())
    assert pixel_roc_auc_score(masks, maps) == pytest.approx(expected, abs=1e-12)
    expected = average_precision_score(masks.ravel(), maps.ravel())
    assert pixel_average_precision_score(masks, maps) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(pairs=tied_pairs())
def test_f1_max_is_the_best_of_all_thresholds(pairs):
    masks, maps = pairs
    labels, scores = masks.ravel(), maps.ravel()
    expected = max(f1_score(labels, scores >= threshold) for threshold in np.unique(scores))
    y = np.where(labels, -1, 1)
    for value, threshold in (pixel_f1_max(masks, maps), image_f1_max(y, scores)):
        assert value == pytest.approx(expected, abs=1e-12)
        assert f1_score(labels, scores >= threshold) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(pairs=tied_pairs())
def test_pro_curve_has_the_corners_of_the_curve_of_all_thresholds(pairs):
    masks, maps = pairs
    regions = regions_of(masks)
    fpr, pro, thresholds = pro_curve(masks, maps)
    assert (fpr[0], pro[0], thresholds[0]) == (0, 0, np.inf)
    assert fpr[-1] == pro[-1] == 1
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(pro) >= 0).all()
    assert (np.diff(thresholds) < 0).all()
    assert thresholds.dtype == maps.dtype
    for rate, overlap, threshold in zip(fpr, pro, thresholds, strict=True):
        assert rate == (maps >= threshold)[~masks].mean()
        assert overlap == pytest.approx(pro_score(masks, maps, threshold), abs=1e-12)
        shares = [(maps >= threshold)[region].mean() for region in regions]
        assert overlap == pytest.approx(np.mean(shares), abs=1e-12)
    # and straight lines between them are all of it
    for limit in (0.3, 1.0):
        area = area_up_to(fpr, pro, limit)
        assert area == pytest.approx(aupro_score(masks, maps, max_fpr=limit), abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(pairs=tied_pairs(), seed=st.integers(0, 10**6), max_fpr=st.sampled_from([0.05, 0.3, 1.0]))
def test_auspro_is_the_area_under_the_saturated_curve(pairs, seed, max_fpr):
    masks, maps = pairs
    regions = regions_of(masks)
    rng = np.random.default_rng(seed)
    areas = np.array([region.sum() for region in regions])
    limits = np.minimum(areas, rng.uniform(0.3, 1, len(areas)) * areas)
    curve = brute_force_curve(masks, maps, regions, list(limits))
    value = auspro_score(masks, maps, limits, max_fpr=max_fpr)
    assert value == pytest.approx(area_up_to(*curve, max_fpr), abs=1e-12)
    fpr, spro, _ = spro_curve(masks, maps, limits)
    assert area_up_to(fpr, spro, max_fpr) == pytest.approx(value, abs=1e-12)


def test_saturation_of_whole_regions_is_aupro(pairs):
    expected = aupro_score(*pairs, max_fpr=0.05)
    assert auspro_score(*pairs, 1.0) == pytest.approx(expected, abs=1e-12)
    assert auspro_score(*pairs, lambda areas: areas) == pytest.approx(expected, abs=1e-12)
    assert auspro_score(*pairs, 0.5) > expected


def test_channels_are_regions_that_may_overlap_and_need_not_be_connected():
    maps = np.random.default_rng(0).normal(size=(2, 8, 9)).astype(np.float32)
    channels = np.zeros((2, 8, 9), bool)
    channels[0, :4, :4] = channels[0, 6:, 7:] = True
    channels[1, 2:6, 2:6] = True
    union = np.stack([channels.any(axis=0), np.zeros((8, 9), bool)])
    regions = [np.stack([channel, np.zeros((8, 9), bool)]) for channel in channels]
    curve = brute_force_curve(union, maps, regions, [5, 16])
    for good in (np.zeros((8, 9), bool), np.zeros((0, 8, 9), bool)):
        value = auspro_score([channels, good], list(maps), [5, 40], max_fpr=0.3)
        assert value == pytest.approx(area_up_to(*curve, 0.3), abs=1e-12)


def test_float64_is_not_rounded_to_float32():
    masks = np.array([[[1, 0, 0, 0]]])
    maps = np.array([[[1 + 1e-12, 1, 1 + 2e-12, 0]]])
    assert pixel_roc_auc_score(masks, maps) == pytest.approx(2 / 3)
    assert pixel_roc_auc_score(masks, maps.astype(np.float32)) == pytest.approx(2 / 3)
    assert aupro_score(masks, maps, max_fpr=1) == pytest.approx(2 / 3)
    assert pixel_f1_max(masks, maps) == (2 / 3, 1 + 1e-12)


def test_negative_zero_equals_zero():
    masks = np.array([[[1, 0, 1, 0]]])
    maps = np.array([[[-0.0, 0.0, 0.0, -0.0]]], dtype=np.float32)
    assert pixel_roc_auc_score(masks, maps) == 0.5
    assert pixel_average_precision_score(masks, maps) == 0.5


@settings(deadline=None, max_examples=50)
@given(pairs=tied_pairs(dtypes=(np.float64,)))
def test_monotone_transformations_change_nothing(pairs):
    masks, maps = pairs
    ranks = np.unique(maps, return_inverse=True)[1].reshape(maps.shape)
    for transformed in (np.exp(ranks / 10), ranks.astype(np.float32) - 50, ranks**3 * 1e-3):
        assert aupro_score(masks, transformed) == aupro_score(masks, maps)
        assert pixel_roc_auc_score(masks, transformed) == pixel_roc_auc_score(masks, maps)
        expected = pixel_average_precision_score(masks, maps)
        assert pixel_average_precision_score(masks, transformed) == expected
        assert pixel_f1_max(masks, transformed)[0] == pixel_f1_max(masks, maps)[0]


def test_a_perfect_map_gives_one(pairs):
    masks, _ = pairs
    for values in (masks.astype(np.float32), masks - 0.5):
        assert aupro_score(masks, values) == 1
        assert aupro_score(masks, values, max_fpr=1e-9) == 1
        assert pixel_roc_auc_score(masks, values) == 1
        assert pixel_average_precision_score(masks, values) == 1
        assert pixel_f1_max(masks, values)[0] == 1


def test_splitting_a_region_changes_aupro_and_not_auroc():
    # Two columns of a bar, well and badly found; a normal row splits it where that costs nothing:
    # the normal pixels are as many in both masks.
    maps = np.random.default_rng(0).normal(size=(1, 30, 30))
    whole, split = np.zeros((2, 1, 30, 30), bool)
    whole[0, 3:13, 5], whole[0, 20, 20] = True, True
    split[0, 3:13, 5], split[0, 20, 20] = True, True
    maps[whole] += np.arange(whole.sum())
    # Moving one pixel of the bar, score and all, away from it makes two regions of it.
    split[0, 12, 5], split[0, 25, 3] = False, True
    maps_split = maps.copy()
    maps_split[0, 12, 5], maps_split[0, 25, 3] = maps[0, 25, 3], maps[0, 12, 5]
    expected = pixel_roc_auc_score(whole, maps)
    assert pixel_roc_auc_score(split, maps_split) == pytest.approx(expected, abs=1e-15)
    assert abs(aupro_score(split, maps_split) - aupro_score(whole, maps)) > 0.01


def test_corners_connect_only_eight_neighbours():
    masks = np.eye(6, dtype=bool)[None]
    maps = np.linspace(0, 1, 36).reshape(1, 6, 6)
    maps[0, 0, 0] = 2
    one_region, six_regions = (aupro_score(masks, maps, connectivity=c) for c in (8, 4))
    assert one_region == pytest.approx(six_regions)  # which all have the same area
    masks[0, 5, 4] = True
    one_region, five_regions = (aupro_score(masks, maps, connectivity=c) for c in (8, 4))
    assert abs(one_region - five_regions) > 0.01


def test_mvtecs_evaluation_converges_to_our_aupro(monkeypatch):
    monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    mvtec = pytest.importorskip("adeval.au_pro")
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 200, 200), bool)
    for mask in masks[2:]:
        for row, column in rng.integers(0, 180, (3, 2)):
            mask[row : row + 15, column : column + 12] = True
    maps = (rng.normal(size=masks.shape) + 1.5 * masks).astype(np.float32)
    for max_fpr in (0.3, 0.05):
        for n_thresholds, tolerance in ((100, 3e-2), (maps.size, 1e-4)):
            theirs, _ = mvtec.calculate_au_pro(
                list(masks.astype(int)), list(maps), max_fpr, n_thresholds
            )
            assert theirs == pytest.approx(aupro_score(masks, maps, max_fpr=max_fpr), abs=tolerance)
