"""From the counts at the anomalous pixels' scores to curves, areas and rates.

Free functions on arrays; thresholds ascend, and a pixel is called anomalous where its score is at
least the threshold.
"""

from __future__ import annotations

import numpy as np

from skpadim.metrics._counts import Counts


def roc_auc(counts: Counts) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties counted half."""
    share_below = counts.normal_tied / -2
    share_below -= counts.normal_above
    share_below += counts.n_normal
    share_below /= counts.n_normal
    share_below *= counts.anomalous
    return float(np.sum(share_below) / counts.anomalous.sum())


def average_precision(counts: Counts) -> float:
    """Mean over the anomalous pixels of the precision at their score as the threshold."""
    true, false = _detected(counts)
    false += true
    precision = true / false
    precision *= counts.anomalous
    return float(np.sum(precision) / true[0])


def f1_max(counts: Counts) -> tuple[float, float]:
    """Highest F1 over all thresholds, and the highest threshold that reaches it."""
    # Between two scores of anomalous pixels a lower threshold adds false positives only: none but
    # those scores can be the best.
    true, false = _detected(counts)
    n_anomalous = true[0]
    false += true
    false += n_anomalous
    f1 = true / false
    f1 *= 2
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))
    return float(f1[best]), float(counts.thresholds[best])


def aupro(counts: Counts, max_fpr: float) -> float:
    """Area under the PRO curve up to a false positive rate, over that rate."""
    # Each threshold lifts the curve by its overlap. What lies under the lift is the rest of the
    # axis up to the limit; where normal pixels are tied, the lift is a ramp along the rates they
    # span, and the limit may cut it.
    # Thresholds ascend and rates fall: behind the first that is below the limit, all are.
    first = np.searchsorted(-counts.normal_above, -max_fpr * counts.n_normal, side="right")
    start = counts.normal_above[first:] / counts.n_normal
    span = counts.normal_tied[first:] / counts.n_normal
    rest = max_fpr - start
    cut = np.minimum(rest, span)
    # The share cut/span of the lift lies before the limit, at half the cut on average.
    whole = span <= rest
    share = np.divide(cut, span, out=np.ones_like(span), where=~whole)
    area = np.sum(counts.overlap[first:] * share * (rest - cut / 2))
    return min(float(area / (max_fpr * counts.n_regions)), 1.0)


def pro_points(counts: Counts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the PRO curve: false positive rates, overlaps, thresholds."""
    thresholds = counts.thresholds[::-1]
    above = counts.normal_above[::-1]
    at_least = above + counts.normal_tied[::-1]
    pro = np.minimum(np.cumsum(counts.overlap[::-1]) / counts.n_regions, 1.0)
    pro[-1] = 1.0
    before = np.concatenate(([0.0], pro[:-1]))
    # Each threshold has two corners, just above it and at it. The former is left out where no
    # normal pixel lies between the threshold and the one before.
    keep = np.ones((len(pro), 2), bool)
    keep[:, 0] = above > np.concatenate(([0], at_least[:-1]))
    corners = [
        np.stack(pair, axis=1)[keep]
        for pair in (
            (above / counts.n_normal, at_least / counts.n_normal),
            (before, pro),
            (np.nextafter(thresholds, np.array(np.inf, thresholds.dtype)), thresholds),
        )
    ]
    fpr, pro, thresholds = (
        np.concatenate(([first], corner)).astype(corner.dtype)
        for first, corner in zip((0, 0, np.inf), corners, strict=True)
    )
    if fpr[-1] < 1:  # normal pixels below all anomalous ones
        fpr, pro = np.append(fpr, 1.0), np.append(pro, 1.0)
        thresholds = np.append(thresholds, np.array(-np.inf, thresholds.dtype))
    return fpr, pro, thresholds


def _detected(counts):
    """Anomalous and normal pixels that are called anomalous at each threshold."""
    true = np.cumsum(counts.anomalous[::-1])[::-1]
    return true, counts.normal_above + counts.normal_tied
