"""From the scores of normal images to p-values, and to the threshold that they imply.

Scores here have scikit-learn's sign: higher is more normal, and anomalous is what lies below the
threshold, the offset. Calibration scores are those of normal samples under a model that has not
seen them, held out or left out one at a time; `groups` has the group of each, or is None.
"""

from __future__ import annotations

import math
import warnings
from itertools import accumulate

import numpy as np


def training_offset(scores: np.ndarray, contamination: float) -> float:
    """Threshold that calls the share `contamination` of the training set itself anomalous.

    This is scikit-learn's meaning of contamination. Training samples lie closer to a model that
    has seen them than new ones do: of new normal samples, more (often many more) are flagged.
    """
    return float(np.percentile(scores, 100 * contamination))


def conformal_offset(
    scores: np.ndarray, contamination: float, groups: np.ndarray | None = None
) -> float:
    """Threshold that flags a new normal sample with probability `contamination` at most.

    The lowest score whose p-value (:func:`conformal_p_values`) exceeds the contamination: below it
    are the samples with p-values of the contamination or less, exactly, ties included. Without
    groups this is split conformal prediction's quantile (Lei et al., "Distribution-free predictive
    inference for regression", JASA 113, 2018), of n anomaly scores the
    ⌈(n + 1) (1 - contamination)⌉-th smallest. For held-out scores, which are exchangeable with a
    new sample's, the probability is bounded exactly; for leave-one-out scores nearly so, since
    the models that gave them had one sample, or one group, less.

    With too few scores, or groups, for a p-value as small, the lowest score is used, with a
    warning: up to one new normal sample in n + 1 is flagged.
    """
    ordered, p_values = _p_value_steps(scores, groups)
    if p_values[0] > contamination:
        n = round(1 / p_values[0]) - 1
        counted, more = (
            ("good images are", "")
            if groups is None
            else (f"group{'s' * (n > 1)} of good images {'are' if n > 1 else 'is'}", " groups")
        )
        warnings.warn(
            f"{n} {counted} too few to set a threshold that flags a share of "
            f"{contamination:g} of new good ones: about 1 in {n + 1} will be flagged. Use "
            f"at least {samples_needed(contamination)}{more}, or set contamination to "
            f"{math.ceil(1000 / (n + 1)) / 1000:g} or more.",
            stacklevel=3,
        )
    own = p_values[np.searchsorted(ordered, ordered, side="right")]
    return float(ordered[np.argmax(own > contamination)])


def samples_needed(contamination: float) -> int:
    """How many normal samples, or groups, it takes for a threshold that flags so few new ones."""
    return math.ceil(1 / contamination - 1e-9) - 1


def conformal_p_values(
    scores: np.ndarray, calibration_scores: np.ndarray, groups: np.ndarray | None = None
) -> np.ndarray:
    """Probability, in (0, 1], of scores as low as these, or lower, were the samples normal.

    With n calibration scores, one more than the number of those that are no higher, over n + 1
    (Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", Springer 2005): of normal
    samples at most a share α has p-values of α or less. Samples of a group are not independent of
    each other, so where there are groups each counts as one, and a sample in a group of k as 1 / k
    (Lee, Barber & Willett, "Distribution-free inference with hierarchical data", arXiv 2306.06342):
    with G groups, ``p = (1 + Σ_g #{j in g: score_j ≤ score} / k_g) / (G + 1)``. The new sample is
    taken to come from a group of its own.
    """
    _check_finite(scores, "scores of new samples", "no p-values can be given")
    ordered, p_values = _p_value_steps(calibration_scores, groups)
    return p_values[np.searchsorted(ordered, scores, side="right")]


def expected_share(
    offset: float, calibration_scores: np.ndarray, groups: np.ndarray | None = None
) -> float:
    """Share of new normal samples that a threshold flags, at most: the largest p-value below it."""
    below = np.array([np.nextafter(offset, -np.inf)])
    return float(conformal_p_values(below, calibration_scores, groups)[0])


def _p_value_steps(scores, groups):
    """Sorted scores, and the p-value of a sample with i of them at or below its own, i = 0 to n."""
    _check_finite(scores, "scores", "no threshold can be set")
    order = np.argsort(scores)
    if groups is None:
        n_groups, common, weights = len(scores), 1, [1] * len(scores)
    else:
        _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        n_groups, common = len(sizes), math.lcm(*sizes.tolist())
        weights = (common // size for size in sizes[codes[order]].tolist())
    # Integers over a common denominator: rounded sums of 1 / k would tell a p-value from an equal
    # contamination.
    denominator = common * (n_groups + 1)
    steps = accumulate(weights, initial=common)
    return np.asarray(scores)[order], np.array([step / denominator for step in steps])


def _check_finite(scores, name, consequence):
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} {name} are NaN or "
            f"infinite, so {consequence}: use a larger regularization."
        )
