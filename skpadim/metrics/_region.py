"""Metrics that treat all regions alike, however large: PRO and the area under its curve."""

from __future__ import annotations

from numbers import Real

import numpy as np

from skpadim.metrics import _curves
from skpadim.metrics._counting import check_both_kinds, collect_anomalous, count_pairs
from skpadim.metrics._inputs import check_connectivity, check_max_fpr, check_pairs


def aupro_score(y_true, y_score, *, max_fpr=0.3, connectivity=8) -> float:
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
    return _curves.aupro(_counts(y_true, y_score, connectivity), max_fpr)


def pro_curve(y_true, y_score, *, connectivity=8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the per-region overlap curve, from which :func:`aupro_score` has its area.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    connectivity : {8, 4}, default=8
        Whether pixels that touch at a corner only are one region.

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
    return _curves.pro_points(_counts(y_true, y_score, connectivity))


def pro_score(y_true, y_score, threshold, *, connectivity=8) -> float:
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
    pairs = check_pairs(y_true, y_score)
    pixels = collect_anomalous(pairs, check_connectivity(connectivity))
    check_both_kinds(len(pixels.scores), pairs.n_pixels - len(pixels.scores))
    starts = np.cumsum(pixels.areas) - pixels.areas
    # As float64 the comparison is exact, whatever the maps' dtype.
    detected = pixels.scores.astype(np.float64) >= threshold
    return float(np.mean(np.add.reduceat(detected.astype(np.int64), starts) / pixels.areas))


def _counts(y_true, y_score, connectivity):
    return count_pairs(check_pairs(y_true, y_score), check_connectivity(connectivity))
