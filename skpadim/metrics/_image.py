"""Metrics of images' scores."""

from __future__ import annotations

import numpy as np

from skpadim.metrics import _curves
from skpadim.metrics._counting import Counts
from skpadim.metrics._inputs import is_tensor


def image_f1_max(y_true, y_score) -> tuple[float, float]:
    """Highest F1 over all thresholds on the images' scores, and its threshold.

    F1 is ``2 TP / (2 TP + FP + FN)`` of the anomalous images, with images called anomalous where
    their score is at least the threshold. The threshold is chosen on the very images it is
    measured on, so this is a bound for what a threshold could reach.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        Labels: bool or 0 and 1, True where anomalous; or scikit-learn's -1 (anomalous) and +1.
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
    ValueError
        If shapes differ, labels have other values or only one of the two, or a score is not
        finite.

    Examples
    --------
    >>> from skpadim.metrics import image_f1_max
    >>> image_f1_max([0, 0, 0, 1, 1], [0.1, 0.2, 0.4, 0.3, 0.9])
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


def check_labels(y, name) -> np.ndarray:
    """Labels of images as bool, True where anomalous."""
    if is_tensor(y):
        y = y.detach().cpu().numpy()
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"{name} has shape {labels.shape}; it must be (n,), one label an image.")
    if labels.dtype == bool:
        return labels
    values = np.unique(labels).tolist()
    if labels.dtype.kind in "iuf" and -1 in values and set(values) <= {-1, 1}:
        return labels == -1
    if labels.dtype.kind in "iuf" and set(values) <= {0, 1}:
        # Only ones are all anomalous as 0 and 1, all good as -1 and +1; either way there is only
        # one kind, which the caller refuses.
        return labels == 1
    found = ", ".join(map(str, values[:6]))
    raise ValueError(
        f"{name} has the values {found}; it must be bool or 0 and 1 (True where anomalous), or -1 "
        "(anomalous) and +1 (good)."
    )


def _check_images(y_true, y_score):
    anomalous = check_labels(y_true, "y_true")
    if is_tensor(y_score):
        y_score = y_score.detach().cpu().numpy()
    scores = np.asarray(y_score, dtype=np.float64)
    if scores.shape != anomalous.shape:
        raise ValueError(
            f"y_true has shape {anomalous.shape} and y_score has shape {scores.shape}: give one "
            "score an image."
        )
    if not len(scores):
        raise ValueError("y_true and y_score are empty: at least one image of each kind is needed.")
    if not np.isfinite(scores).all():
        index = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"y_score: the score of image {index} is {scores[index]}, not finite.")
    if anomalous.all() or not anomalous.any():
        raise ValueError(
            "y_true has only one kind of image: at least one anomalous and one good image are "
            "needed."
        )
    return anomalous, scores
