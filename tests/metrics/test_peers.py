"""MVTec's evaluation code and anomalib, where they are installed."""

import numpy as np
import pytest

from skpadim.metrics import aupro_score


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
