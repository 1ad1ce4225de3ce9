"""All metrics at once, as a dictionary."""

from __future__ import annotations

from functools import partial

import numpy as np

from skpadim.metrics import _curves
from skpadim.metrics._counting import (
    Counts,
    collect_anomalous,
    count_collected,
    in_threads,
)
from skpadim.metrics._image import count_images
from skpadim.metrics._inputs import check_connectivity, check_max_fpr, check_pairs


def pixel_metrics(
    y_true, y_score, *, max_fpr=(0.3, 0.05, 0.01), connectivity=8
) -> dict[str, float]:
    """Compute all exact metrics of masks and maps that are in memory.

    The counting, nearly all of the work, is done once for all of them. Beside the input it takes
    less than half of the maps' bytes.

    Parameters
    ----------
    y_true : array or tensor of shape (n, height, width), or list of (height, width)
        Masks: bool, 0 and 1, or 0 and 255; anomalous where not 0.
    y_score : array or tensor of shape (n, height, width), or list of (height, width)
        Anomaly maps, floating and finite: higher is more anomalous.
    max_fpr : float or sequence of float, default=(0.3, 0.05, 0.01)
        Integration limits of the AUPRO, each in (0, 1].
    connectivity : {8, 4}, default=8
        Whether pixels that touch at a corner only are one region.

    Returns
    -------
    values : dict of str to float
        ``pixel_roc_auc``, ``pixel_average_precision``, ``pixel_f1_max`` and
        ``pixel_f1_max_threshold``; ``aupro_0.3`` and so on, one a limit; ``image_roc_auc``,
        ``image_average_precision``, ``image_f1_max`` and ``image_f1_max_threshold`` of the maps'
        maxima, an image being anomalous if its mask is anywhere (NaN if there is one kind of
        image only).

    Raises
    ------
    TypeError, ValueError
        As :func:`aupro_score`.

    See Also
    --------
    PixelMetrics : The same from images that come one at a time.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import pixel_metrics
    >>> masks = np.zeros((4, 32, 32), dtype=bool)
    >>> masks[2:, 4:9, 5:20] = True
    >>> maps = np.random.default_rng(0).normal(size=masks.shape) + 2 * masks
    >>> values = pixel_metrics(masks, maps)
    >>> round(values["pixel_roc_auc"], 2), round(values["aupro_0.3"], 2)
    (0.92, 0.77)
    """
    limits = check_limits(max_fpr)
    pairs = check_pairs(y_true, y_score)
    pixels = collect_anomalous(pairs, check_connectivity(connectivity))
    values = pixel_values(count_collected(pairs, pixels), limits)
    scores = np.concatenate(in_threads(lambda batch: batch.image_scores(), pairs.batches()))
    anomalous = np.zeros(len(scores), bool)
    anomalous[pixels.images] = True
    return values | image_values(anomalous, scores)


def check_limits(max_fpr) -> tuple[float, ...]:
    """Check one or several integration limits."""
    limits = [max_fpr] if np.ndim(max_fpr) == 0 else max_fpr
    return tuple(check_max_fpr(limit) for limit in limits)


def pixel_values(counts: Counts, limits: tuple[float, ...]) -> dict[str, float]:
    """Metrics of pixels and regions from their counts."""
    functions = [_curves.f1_max, _curves.average_precision, _curves.roc_auc]
    functions += [partial(_curves.aupro, max_fpr=limit) for limit in limits]
    # Side by side they need twice the memory, which small inputs are not worth.
    together = in_threads if len(counts.thresholds) > 2**19 else map
    (f1, threshold), precision, auc, *areas = together(lambda f: f(counts), functions)
    return {
        "pixel_roc_auc": auc,
        "pixel_average_precision": precision,
        "pixel_f1_max": f1,
        "pixel_f1_max_threshold": threshold,
        **{f"aupro_{limit:g}": area for limit, area in zip(limits, areas, strict=True)},
    }


def image_values(anomalous: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Metrics of images' scores; NaN if there is only one kind of image."""
    names = ("roc_auc", "average_precision", "f1_max", "f1_max_threshold")
    if anomalous.all() or not anomalous.any():
        return {f"image_{name}": float("nan") for name in names}
    counts = count_images(anomalous, scores.astype(np.float64))
    values = (
        _curves.roc_auc(counts),
        _curves.average_precision(counts),
        *_curves.f1_max(counts),
    )
    return {f"image_{name}": value for name, value in zip(names, values, strict=True)}
