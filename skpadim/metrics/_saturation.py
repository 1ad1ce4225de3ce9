"""sPRO, the overlap of regions that need not be detected whole (MVTec LOCO AD).

A logical anomaly, a missing object say, can be anywhere in a large area; detecting part of it is
enough. Each region has a saturation area, and its overlap is that of the detected pixels with it,
one at most. The highest scores of a region then count, the others do not: the counting core is
the same, only the weights of the anomalous pixels differ.
"""

from __future__ import annotations

import numpy as np

from skpadim._arrays import is_tensor
from skpadim.metrics import _curves
from skpadim.metrics._counts import (
    AnomalousPixels,
    Counts,
    check_both_kinds,
    collect_anomalous,
    count_normal,
    tabulate_scores,
)
from skpadim.metrics._inputs import check_connectivity, check_max_fpr, check_pairs


def auspro_score(y_true, y_score, saturation, *, max_fpr=0.05, connectivity=8) -> float:
    """Area under the saturated per-region overlap curve, up to a false positive rate.

    The sPRO [1]_ of a region is ``min(detected pixels / saturation area, 1)``. The area under its
    mean over the regions, up to `max_fpr`, is divided by `max_fpr`.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of masks
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0. In a list, a mask can be
        (height, width), whose connected regions count, or (n_regions, height, width): each a
        region, connected or not, that may overlap others, as MVTec LOCO AD's masks are. A normal
        image has none: (0, height, width), or zeros.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    saturation : float, callable or array-like of shape (n_regions,)
        Saturation areas. A float in (0, 1] is a share of each region's area; an array has the
        pixels of each region, in the order of the images and, in an image, of the given regions
        or of their first pixels row by row; a callable makes that array from the areas. More than
        the area means the area.
    max_fpr : float, default=0.05
        Integration limit in (0, 1].
    connectivity : {8, 4}, default=8
        Whether pixels that touch at a corner only are one region.

    Returns
    -------
    auspro : float
        In [0, 1].

    Raises
    ------
    TypeError, ValueError
        As :func:`aupro_score`, and if `saturation` does not fit.

    References
    ----------
    .. [1] Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised
       Anomaly Detection and Localization", IJCV 130, 2022, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import auspro_score
    >>> masks = np.array([[[1, 1, 0], [1, 1, 0], [0, 0, 0]]])
    >>> maps = np.array([[[0.9, 0.8, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]]])
    >>> auspro_score(masks, maps, saturation=0.5)  # half of the region is enough
    1.0
    """
    max_fpr = check_max_fpr(max_fpr)
    return _curves.aupro(_counts(y_true, y_score, saturation, connectivity), max_fpr)


def spro_curve(
    y_true, y_score, saturation, *, connectivity=8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of the saturated per-region overlap curve.

    Parameters
    ----------
    y_true, y_score, saturation, connectivity
        As for :func:`auspro_score`.

    Returns
    -------
    fpr, spro : ndarray of shape (n_points,), float64
        From 0 to 1, ascending, as :func:`pro_curve` has them.
    thresholds : ndarray of shape (n_points,)
        Descending, of the maps' dtype.

    Raises
    ------
    TypeError, ValueError
        As :func:`auspro_score`.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import spro_curve
    >>> masks = np.array([[[1, 1, 0], [1, 1, 0]]])
    >>> maps = np.array([[[0.75, 0.5, 0.0], [0.0, 0.0, 0.0]]])
    >>> fpr, spro, thresholds = spro_curve(masks, maps, saturation=0.5)
    >>> spro, thresholds
    (array([0. , 0.5, 1. , 1. ]), array([ inf, 0.75, 0.5 , 0.  ]))
    """
    return _curves.pro_points(_counts(y_true, y_score, saturation, connectivity))


def _saturation_areas(saturation, areas):
    """Saturation area of each region in pixels, float64, from what users give."""
    if isinstance(saturation, float):
        if not 0 < saturation <= 1:
            raise ValueError(
                f"saturation={saturation!r} must lie in (0, 1], a share of each region's area; "
                "give an array for numbers of pixels."
            )
        return saturation * areas
    found = saturation(areas) if callable(saturation) else saturation
    found = np.asarray(found, dtype=np.float64)
    if found.shape != areas.shape:
        raise ValueError(
            f"saturation has shape {found.shape}, and there are {len(areas)} regions: give a "
            "number of pixels for each, a float for a share of their areas, or a callable."
        )
    if not (found > 0).all():
        raise ValueError("saturation has areas that are not positive; each must be above 0 pixels.")
    return np.minimum(found, areas)


def saturated_weights(pixels: AnomalousPixels, saturation) -> np.ndarray:
    """What each anomalous pixel adds to its region's sPRO when it is detected."""
    # The highest scores of a region fill its saturation area one by one; the last may fill a
    # fraction, those below it add nothing.
    areas = pixels.areas
    limits = _saturation_areas(saturation, areas)
    region = np.repeat(np.arange(len(areas)), areas)
    order = np.lexsort((-pixels.scores, region))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(areas) - areas, areas)
    weights = np.empty(len(order))
    limits = np.repeat(limits, areas)
    weights[order] = np.clip(limits - rank, 0, 1) / limits
    return weights


def _counts(y_true, y_score, saturation, connectivity):
    connectivity = check_connectivity(connectivity)
    masks, channels = _split_channels(y_true)
    pairs = check_pairs(masks, y_score)
    union = pixels = collect_anomalous(pairs, connectivity)
    n_normal = pairs.n_pixels - len(union.scores)
    check_both_kinds(len(union.scores), n_normal)
    if channels is not None:
        pixels = _pixels_of_channels(channels, pairs.batches(), connectivity)
    weights = saturated_weights(pixels, saturation)
    thresholds, overlap = tabulate_scores(pixels.scores, weights)
    anomalous = np.bincount(
        np.searchsorted(thresholds, union.scores), minlength=len(thresholds)
    ).astype(np.int64)
    above, tied = count_normal(pairs, thresholds, anomalous)
    return Counts(thresholds, anomalous, overlap, above, tied, n_normal, len(pixels.areas))


def _split_channels(y_true):
    """Masks with the regions of each image put together, and the regions, if there are any."""
    if not isinstance(y_true, (list, tuple)):
        return y_true, None
    channels = [np.asarray(one.detach().cpu() if is_tensor(one) else one) for one in y_true]
    if all(one.ndim != 3 for one in channels):
        return y_true, None
    masks = [(one != 0).any(axis=0) if one.ndim == 3 else one for one in channels]
    return masks, channels


def _pixels_of_channels(channels, batches, connectivity):
    """Anomalous pixels where each channel of a mask is one region."""
    parts = []
    for channel, batch in zip(channels, batches, strict=True):
        if channel.ndim == 2:
            parts.append(collect_anomalous(check_pairs([channel], [batch.maps[0]]), connectivity))
            continue
        flat = channel.reshape(len(channel), batch.masks[0].size) != 0
        areas = np.count_nonzero(flat, axis=1)
        if not areas.all():
            raise ValueError(
                f"y_true[{batch.first}] has a region with no pixel (number "
                f"{int(np.argmin(areas))}); leave it out."
            )
        scores = batch.scores_at(np.nonzero(flat)[1])
        parts.append(AnomalousPixels(scores, areas, np.full(len(areas), batch.first)))
    return AnomalousPixels.concatenate(parts)
