"""Metrics of images' scores."""

from __future__ import annotations

import numpy as np

from skpadim._arrays import as_array
from skpadim.calibration._training_samples import check_both_kinds, check_labels
from skpadim.metrics import _curves
from skpadim.metrics._counting import Counts


def image_f1_max(y_true, y_score) -> tuple[float, float]:
    """Highest F1 over all thresholds on the images' scores, and its threshold.

    F1 is ``2 TP / (2 TP + FP + FN)`` of the anomalous images, with images called anomalous where
    their score is at least the threshold. The threshold is chosen on the very images it is
    measured on, so this is a bound for what a threshold could reach.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        +1 for good images and -1 for anomalous ones, as in scikit-learn; or bool, or 0 and 1, 1
        (True) where anomalous, as in masks. :meth:`PadimDetector.fit` reads them alike.
    y_score : array-like of shape (n,)
        Scores, **higher is more anomalous**, as the maximum of an anomaly map is: give
        ``-detector.score_samples(X)`` for a detector that has scikit-learn's sign.

    Returns
    -------
    f1 : float
        In (0, 1].
    threshold : float
        The highest threshold that reaches it.

    Raises
    ------
    TypeError, ValueError
        If shapes differ, labels have other values or only one of the two, or a score is not
        finite.

    Examples
    --------
    >>> from skpadim.metrics import image_f1_max
    >>> image_f1_max([1, 1, 1, -1, -1], [0.1, 0.2, 0.4, 0.3, 0.9])
    (0.8, 0.3)
    """
    return _curves.f1_max(count_images(*_check_images(y_true, y_score)))


def count_images(anomalous: np.ndarray, scores: np.ndarray) -> Counts:
    """Counts of images instead of pixels; each anomalous image is a region of its own.

    Parameters
    ----------
    anomalous : ndarray of shape (n,), bool
    scores : ndarray of shape (n,)
    """
    thresholds, n_anomalous = np.unique(scores[anomalous], return_counts=True)
    normal = np.sort(scores[~anomalous])
    left, right = (np.searchsorted(normal, thresholds, side=side) for side in ("left", "right"))
    return Counts(
        thresholds=thresholds,
        anomalous=n_anomalous,
        overlap=n_anomalous.astype(np.float64),
        normal_above=len(normal) - right,
        normal_tied=right - left,
        n_normal=len(normal),
        n_regions=int(n_anomalous.sum()),
    )


def _check_images(y_true, y_score):
    """Which images are anomalous, and their scores as float64."""
    labels = check_labels(y_true, name="y_true")
    scores = as_array(y_score, "y_score")
    if scores.dtype.kind not in "buif":
        raise TypeError(f"y_score has dtype {scores.dtype}; scores must be numbers.")
    scores = scores.astype(np.float64)
    if scores.shape != labels.shape:
        raise ValueError(
            f"y_true has shape {labels.shape} and y_score has shape {scores.shape}: give one "
            "score an image."
        )
    if not len(scores):
        raise ValueError("y_true and y_score are empty: at least one image of each kind is needed.")
    if not np.isfinite(scores).all():
        index = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"y_score: the score of image {index} is {scores[index]}, not finite.")
    anomalous = labels == -1
    check_both_kinds(anomalous, "y_true")
    return anomalous, scores
