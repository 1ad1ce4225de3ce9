"""From the scores of the training images to the threshold between normal and anomalous.

Scores here have scikit-learn's sign: higher is more normal.
"""

from __future__ import annotations

import math
import warnings

import numpy as np


def training_offset(scores: np.ndarray, contamination: float) -> float:
    """Threshold that calls the share `contamination` of the training set itself anomalous.

    This is scikit-learn's meaning of contamination. Training samples lie closer to a model that
    has seen them than new ones do: of new normal samples, more (often many more) are flagged.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Scores of the training samples, higher is more normal.
    contamination : float
        Share in (0, 0.5].

    Returns
    -------
    offset : float
        Scores below it are anomalous.
    """
    return float(np.percentile(scores, 100 * contamination))


def conformal_offset(scores: np.ndarray, contamination: float) -> float:
    """Threshold that flags a new normal sample with probability `contamination` at most.

    Split conformal prediction's quantile [1]_: of n anomaly scores, the
    ⌈(n + 1) (1 - contamination)⌉-th smallest. For held-out scores, which are exchangeable with a
    new sample's, the probability is bounded exactly; for leave-one-out scores nearly so, since
    the models that gave them had one sample less.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Scores of normal samples under a model that has not seen them (left out one at a time, or
        held out), higher is more normal.
    contamination : float
        Share of new normal samples that may be flagged, in (0, 0.5].

    Returns
    -------
    offset : float
        Scores below it are anomalous.

    Warns
    -----
    UserWarning
        If there are too few scores for the share asked for: the lowest score is used then, and
        up to one new normal sample in n + 1 is flagged.

    References
    ----------
    .. [1] Lei et al., "Distribution-free predictive inference for regression", JASA 113, 2018.
    """
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{np.count_nonzero(~np.isfinite(scores))} of {len(scores)} scores are NaN or "
            "infinite, so no threshold can be set: use a larger regularization."
        )
    n = len(scores)
    # Rounding must not turn an exact product such as 20 * 0.95 into the next integer.
    rank = math.ceil((n + 1) * (1 - contamination) - 1e-9)
    if rank > n:
        warnings.warn(
            f"{n} normal samples are too few to set a threshold that flags a share of "
            f"{contamination:g} of new normal ones: about 1 in {n + 1} will be flagged. Use "
            f"at least {math.ceil(1 / contamination - 1e-9) - 1}, or set contamination to "
            f"{math.ceil(1000 / (n + 1)) / 1000:g} or more.",
            stacklevel=3,
        )
        rank = n
    return float(np.sort(scores)[n - rank])
