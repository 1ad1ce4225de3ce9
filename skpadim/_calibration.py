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

    Split conformal prediction's quantile [1]_: of n anomaly scores that are exchangeable with a
    new sample's, the ⌈(n + 1) (1 - contamination)⌉-th smallest.

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
    n = len(scores)
    # Rounding must not turn an exact product such as 20 * 0.95 into the next integer.
    rank = math.ceil((n + 1) * (1 - contamination) - 1e-9)
    if rank > n:
        warnings.warn(
            f"{n} normal images are too few to set a threshold that flags a share of "
            f"{contamination:g} of new normal images: about 1 in {n + 1} will be flagged. Fit on "
            f"at least {math.ceil(1 / contamination - 1e-9) - 1} images, or set contamination to "
            f"{math.ceil(1000 / (n + 1)) / 1000:g} or more.",
            stacklevel=3,
        )
        rank = n
    return float(np.sort(scores)[n - rank])
