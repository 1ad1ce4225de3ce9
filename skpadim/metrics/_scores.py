"""Metrics of one call each: of pixels; of regions, however large each is; of images' scores."""

from __future__ import annotations

from numbers import Real

import numpy as np

from skpadim._arrays import as_array
from skpadim.calibration._training_samples import check_both_labels, check_labels
from skpadim.metrics import _curves
from skpadim.metrics._counts import Counts, check_both_kinds, collect_anomalous, count_collected
from skpadim.metrics._inputs import check_connectivity, check_max_fpr, check_pairs


def pixel_roc_auc_score(y_true, y_score, *, ignore=None) -> float:
    """Area under the ROC curve over all pixels.

    The share of pairs of an anomalous and a normal pixel in which the anomalous one has the higher
    score; ties count half [1]_.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    ignore : array or tensor of bool, or list of (height, width), default=None
        True where pixels do not count; see :func:`aupro_score`.

    Returns
    -------
    auc : float
        In [0, 1]; equal to :func:`sklearn.metrics.roc_auc_score` of the flattened arrays.

    Raises
    ------
    TypeError
        If maps are not floating, or one argument is a list and the other an array.
    ValueError
        If shapes differ, there is no anomalous or no normal pixel, a score is not finite, a mask
        has more than two values, or there are no images.

    References
    ----------
    .. [1] Fawcett, "An introduction to ROC analysis", Pattern Recognition Letters 27, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import pixel_roc_auc_score
    >>> masks = np.array([[[0, 0, 1], [0, 0, 1]]])
    >>> maps = np.array([[[0.1, 0.2, 0.3], [0.1, 0.6, 0.9]]])
    >>> pixel_roc_auc_score(masks, maps)
    0.875
    """
    return _curves.roc_auc(_counts(y_true, y_score, ignore=ignore))


def pixel_average_precision_score(y_true, y_score, *, ignore=None) -> float:
    """Average precision over all pixels: the area under the precision-recall curve as a step.

    The mean over the anomalous pixels of the precision at the threshold that just detects them.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    ignore : array or tensor of bool, or list of (height, width), default=None
        True where pixels do not count; see :func:`aupro_score`.

    Returns
    -------
    average_precision : float
        In (0, 1]; equal to :func:`sklearn.metrics.average_precision_score` of the flattened
        arrays, whose documentation has the formula.

    Raises
    ------
    TypeError, ValueError
        As :func:`pixel_roc_auc_score`.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import pixel_average_precision_score
    >>> masks = np.array([[[0, 0, 1], [0, 0, 1]]])
    >>> maps = np.array([[[0.1, 0.2, 0.3], [0.1, 0.6, 0.9]]])
    >>> round(pixel_average_precision_score(masks, maps), 4)
    0.8333
    """
    return _curves.average_precision(_counts(y_true, y_score, ignore=ignore))


def pixel_f1_max(y_true, y_score, *, ignore=None) -> tuple[float, float]:
    """Highest F1 over all thresholds on the pixels' scores, and its threshold.

    F1 is ``2 TP / (2 TP + FP + FN)``, with pixels called anomalous where their score is at least
    the threshold. The threshold is chosen on the very pixels it is measured on, so this is a bound
    for what a threshold could reach, not what one will.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    ignore : array or tensor of bool, or list of (height, width), default=None
        True where pixels do not count; see :func:`aupro_score`.

    Returns
    -------
    f1 : float
        In (0, 1].
    threshold : float
        The highest threshold that reaches it.

    Raises
    ------
    TypeError, ValueError
        As :func:`pixel_roc_auc_score`.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import pixel_f1_max
    >>> masks = np.array([[[0, 0, 1], [0, 0, 1]]])
    >>> maps = np.array([[[0.1, 0.2, 0.3], [0.1, 0.6, 0.9]]])
    >>> pixel_f1_max(masks, maps)
    (0.8, 0.3)
    """
    return _curves.f1_max(_counts(y_true, y_score, ignore=ignore))


def aupro_score(y_true, y_score, *, max_fpr=0.3, connectivity=8, ignore=None) -> float:
    """Area under the per-region overlap curve, up to a false positive rate.

    The PRO curve [1]_ has the share of a region's pixels that are detected, averaged over all
    regions, over the share of normal pixels that are. Its area up to `max_fpr` is divided by
    `max_fpr`. Between two thresholds the curve is a straight line; so tied pixels make a ramp, and
    the curve at `max_fpr` is interpolated.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    max_fpr : float, default=0.3
        Integration limit in (0, 1]. 0.3 is that of MVTec AD; 0.05 and 0.01 are reported too.
    connectivity : {8, 4}, default=8
        Whether pixels that touch at a corner only are one region, as in MVTec's evaluation.
    ignore : array or tensor of bool, or list of (height, width), default=None
        True where pixels do not count, because nobody knows what is there or they lie outside of a
        region of interest: in the form of `y_score`, or (height, width) for all images. Scores
        there may be NaN. A defect's region is cut to the pixels that count.

    Returns
    -------
    aupro : float
        In [0, 1]; 1 if every anomalous pixel scores above every normal one.

    Raises
    ------
    TypeError
        If maps are not floating, or one argument is a list and the other an array.
    ValueError
        If shapes differ, there is no anomalous or no normal pixel, a score is not finite, a mask
        has more than two values, there are no images, or a parameter is out of range.

    See Also
    --------
    PixelMetrics : This and the other metrics at once, image by image.
    auspro_score : Regions that need not be detected whole.

    References
    ----------
    .. [1] Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 129, 2021, section 5.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import aupro_score
    >>> masks = np.array([[[0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]])
    >>> maps = np.array([[[0.1, 0.2, 0.3, 0.9], [0.1, 0.4, 0.2, 0.1], [0.8, 0.3, 0.1, 0.1]]])
    >>> round(aupro_score(masks, maps, max_fpr=0.3), 4)
    0.8611
    """
    max_fpr = check_max_fpr(max_fpr)
    return _curves.aupro(_counts(y_true, y_score, connectivity, ignore), max_fpr)


def pro_curve(
    y_true, y_score, *, connectivity=8, ignore=None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the per-region overlap curve, from which :func:`aupro_score` has its area.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    connectivity : {8, 4}, default=8
        Whether pixels that touch at a corner only are one region.
    ignore : array or tensor of bool, or list of (height, width), default=None
        True where pixels do not count; see :func:`aupro_score`.

    Returns
    -------
    fpr : ndarray of shape (n_points,), float64
        Share of the normal pixels with a score of at least the threshold; from 0 to 1, ascending.
    pro : ndarray of shape (n_points,), float64
        Mean over the regions of the share of their pixels with at least that score; from 0 to 1.
        Straight lines between the points are the whole curve.
    thresholds : ndarray of shape (n_points,)
        Descending, of the maps' dtype; from infinity, which detects nothing, to the lowest score
        of an anomalous pixel, and then minus infinity if normal pixels are left.

    Raises
    ------
    TypeError, ValueError
        As :func:`aupro_score`.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import pro_curve
    >>> masks = np.array([[[0, 0, 1], [0, 0, 0], [1, 0, 0]]])
    >>> maps = np.array([[[0.25, 0.5, 0.75], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0]]])
    >>> fpr, pro, thresholds = pro_curve(masks, maps)
    >>> fpr.round(3), pro, thresholds
    (array([0.   , 0.   , 0.143, 1.   ]), array([0. , 0.5, 1. , 1. ]),
     array([ inf, 0.75, 0.5 , -inf]))
    """
    return _curves.pro_points(_counts(y_true, y_score, connectivity, ignore))


def pro_score(y_true, y_score, threshold, *, connectivity=8, ignore=None) -> float:
    """Per-region overlap at one threshold.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    threshold : float
        Pixels with at least this score are called anomalous.
    connectivity : {8, 4}, default=8
        Whether pixels that touch at a corner only are one region.
    ignore : array or tensor of bool, or list of (height, width), default=None
        True where pixels do not count; see :func:`aupro_score`.

    Returns
    -------
    pro : float
        Mean over the regions of the share of their pixels that are detected, in [0, 1].

    Raises
    ------
    TypeError, ValueError
        As :func:`aupro_score`, and if the threshold is not a number.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import pro_score
    >>> masks = np.array([[[0, 0, 1], [0, 0, 0], [1, 1, 0]]])
    >>> maps = np.array([[[0.2, 0.5, 0.8], [0.0, 0.0, 0.0], [0.6, 0.1, 0.0]]])
    >>> pro_score(masks, maps, threshold=0.5)  # all of one region, half of the other
    0.75
    """
    if not isinstance(threshold, Real) or np.isnan(threshold):
        raise ValueError(
            f"threshold={threshold!r} must be a number: pixels with at least this score are "
            "called anomalous."
        )
    pairs = check_pairs(y_true, y_score, ignore)
    pixels = collect_anomalous(pairs, check_connectivity(connectivity))
    check_both_kinds(len(pixels.scores), pairs.n_pixels - len(pixels.scores))
    starts = np.cumsum(pixels.areas) - pixels.areas
    # As float64 the comparison is exact, whatever the maps' dtype.
    detected = pixels.scores.astype(np.float64) >= threshold
    return float(np.mean(np.add.reduceat(detected.astype(np.int64), starts) / pixels.areas))


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
    """Counts of images instead of pixels; each anomalous image is a region of its own."""
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
    check_both_labels(anomalous, "y_true")
    return anomalous, scores


def _counts(y_true, y_score, connectivity=8, ignore=None):
    pairs = check_pairs(y_true, y_score, ignore)
    return count_collected(pairs, collect_anomalous(pairs, check_connectivity(connectivity)))
