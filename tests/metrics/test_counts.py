import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from skpadim.metrics import (
    PixelMetrics,
    _counts,
    _inputs,
    aupro_score,
    pixel_average_precision_score,
    pixel_f1_max,
    pixel_metrics,
    pixel_roc_auc_score,
    pro_curve,
    pro_score,
)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n_levels=st.sampled_from([2, 30, 10**6]),
    n_thresholds=st.integers(1, 3000),
    shift=st.sampled_from([-3, 0, 3]),  # few or most scores below all thresholds
)
def test_chunks_and_blocks_count_what_a_comparison_counts(seed, n_levels, n_thresholds, shift):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=20000), int(np.log10(n_levels))).astype(np.float32)
    thresholds = np.round(rng.normal(size=n_thresholds) + shift, int(np.log10(n_levels)))
    thresholds = np.unique(thresholds.astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_counts, "_CHUNK_PIXELS", (1000, 3000))
        patch.setattr(_counts, "_BLOCK_THRESHOLDS", 100)
        above, tied = _counts.count_above_and_tied(thresholds, np.split(scores, [7, 9000]))
    expected = (scores > thresholds[:, None]).sum(axis=1)
    np.testing.assert_array_equal(above, expected)
    np.testing.assert_array_equal(tied, (scores == thresholds[:, None]).sum(axis=1))


def test_many_pixels_equal_scikit_learn():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 300, 301)) < 0.02
    maps = (rng.normal(size=masks.shape) + masks).astype(np.float32)
    for values in (maps, maps.astype(np.float64), maps.round(1)):
        expected = roc_auc_score(masks.ravel(), values.ravel())
        assert pixel_roc_auc_score(masks, values) == pytest.approx(expected, abs=1e-12)
        expected = average_precision_score(masks.ravel(), values.ravel())
        assert pixel_average_precision_score(masks, values) == pytest.approx(expected, abs=1e-12)


def test_layout_kind_and_order_of_the_images_change_nothing(pairs):
    masks, maps = pairs
    expected = aupro_score(masks, maps), pixel_f1_max(masks, maps)
    variants = [
        (list(masks), list(maps)),
        (masks[::-1], maps[::-1]),
        (np.asfortranarray(masks), np.asfortranarray(maps)),
        (masks.astype(np.uint8) * 255, maps.astype(">f4")),
        (masks.astype(np.int64), torch.from_numpy(maps)),
        (torch.from_numpy(masks), torch.from_numpy(maps)),
        (list(masks), [torch.from_numpy(one) for one in maps]),
        (masks.astype(np.float32), maps.astype(np.float64)),
    ]
    for some_masks, some_maps in variants:
        found = aupro_score(some_masks, some_maps), pixel_f1_max(some_masks, some_maps)
        assert found == expected


def test_maps_of_different_sizes_count_as_their_pixels():
    rng = np.random.default_rng(0)
    shapes = [(5, 9), (20, 4), (7, 7)]
    masks = [rng.random(shape) < 0.3 for shape in shapes]
    maps = [rng.normal(size=shape) for shape in shapes]
    flat_masks, flat_maps = (
        np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, maps)
    )
    expected = roc_auc_score(flat_masks, flat_maps)
    assert pixel_roc_auc_score(masks, maps) == pytest.approx(expected, abs=1e-12)


@pytest.fixture
def on_device(monkeypatch):
    """Treat tensors of the CPU as those of a device; a real GPU if there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    monkeypatch.setattr(_inputs, "_stays_on_device", lambda tensor: True)
    return torch.device("cpu")


def flat(result):
    parts = result if isinstance(result, tuple) else (result,)
    return np.concatenate([np.ravel(part) for part in parts])


def test_tensors_are_evaluated_where_they_are(pairs, on_device):
    masks, maps = pairs
    for values in (maps, maps.round(1), maps.astype(np.float64)):
        tensors = torch.from_numpy(masks).to(on_device), torch.from_numpy(values).to(on_device)
        for function in (aupro_score, pixel_roc_auc_score, pixel_f1_max, pro_curve):
            np.testing.assert_allclose(flat(function(*tensors)), flat(function(masks, values)))
        assert pro_score(*tensors, 0.5) == pro_score(masks, values, 0.5)
        ignore = np.random.default_rng(0).random(masks.shape) < 0.2
        ignore[3] = True
        for place in ("cpu", on_device):
            given = torch.from_numpy(ignore).to(place)
            assert pixel_metrics(*tensors, ignore=given) == pytest.approx(
                pixel_metrics(masks, values, ignore=ignore), rel=1e-12
            )
        for exact in (True, False):
            found = PixelMetrics(exact=exact).update(*tensors, ignore).compute()
            expected = PixelMetrics(exact=exact).update(masks, values, ignore).compute()
            assert found == pytest.approx(expected, rel=1e-12)
        assert PixelMetrics().update(*tensors).compute() == pytest.approx(
            PixelMetrics().update(masks, values).compute(), rel=1e-12
        )
        binned = PixelMetrics(exact=False)
        assert binned.update(*tensors).compute() == pytest.approx(
            PixelMetrics(exact=False).update(masks, values).compute(), rel=1e-12
        )
    half = torch.from_numpy(maps).to(on_device, torch.bfloat16)
    expected = aupro_score(masks, half.float().cpu().numpy())
    assert aupro_score(masks, half) == pytest.approx(expected, abs=1e-12)


def test_bad_tensors_are_refused_on_their_device(pairs, on_device):
    masks, maps = pairs
    bad = torch.from_numpy(maps).to(on_device).clone()
    bad[5, 3, 3] = torch.nan
    with pytest.raises(ValueError, match="map of image 5 has NaN"):
        aupro_score(masks, bad)
    with pytest.raises(TypeError, match=r"torch\.int64"):
        aupro_score(masks, bad.nan_to_num().long())
