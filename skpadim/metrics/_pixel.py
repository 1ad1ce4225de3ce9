"""Metrics that treat all pixels alike: ROC AUC, average precision, F1."""

from __future__ import annotations

from skpadim.metrics import _curves
from skpadim.metrics._counting import count_pairs
from skpadim.metrics._inputs import check_pairs


def pixel_roc_auc_score(y_true, y_score) -> float:
    """Area under the ROC curve over all pixels.

    The share of pairs of an anomalous and a normal pixel in which the anomalous one has the higher
    score; ties count half [1]_.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.

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
    return _curves.roc_auc(_counts(y_true, y_score))


def pixel_average_precision_score(y_true, y_score) -> float:
    """Average precision over all pixels: the area under the precision-recall curve as a step.

    The mean over the anomalous pixels of the precision at the threshold that just detects them.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.

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
    return _curves.average_precision(_counts(y_true, y_score))


def pixel_f1_max(y_true, y_score) -> tuple[float, float]:
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
    return _curves.f1_max(_counts(y_true, y_score))


def _counts(y_true, y_score):
    # Which pixels are connected plays no part here.
    return count_pairs(check_pairs(y_true, y_score), connectivity=8)
