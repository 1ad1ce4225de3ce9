"""All pixel, region and image metrics at once: of arrays, and of images that come one at a time."""

from __future__ import annotations

from functools import partial

import numpy as np

from skpadim._arrays import is_tensor
from skpadim.metrics import _curves, _histogram
from skpadim.metrics._counts import (
    AnomalousPixels,
    Counts,
    check_both_kinds,
    collect_anomalous,
    count_above_and_tied,
    count_collected,
    in_threads,
    tabulate_anomalous,
    tabulate_scores,
)
from skpadim.metrics._inputs import check_connectivity, check_max_fpr, check_pairs
from skpadim.metrics._regions import find_regions
from skpadim.metrics._saturation import saturated_weights
from skpadim.metrics._scores import count_images

# Room for what the histogram's integers round, and for the rounding of float64 sums.
_ROUNDING = 1e-9


def pixel_metrics(
    y_true, y_score, *, max_fpr=(0.3, 0.05, 0.01), connectivity=8, ignore=None
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
    ignore : array or tensor of bool, or list of (height, width), default=None
        True where pixels do not count, because nobody knows what is there or they lie outside of a
        region of interest: in the form of `y_score`, or (height, width) for all images. Scores
        there may be NaN. A defect's region is cut to the pixels that count.
        What is wholly ignored is gone: an anomalous image whose defects are counts as good, and an
        image without a pixel that counts is in no metric of images.

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
    limits = _check_limits(max_fpr)
    pairs = check_pairs(y_true, y_score, ignore)
    pixels = collect_anomalous(pairs, check_connectivity(connectivity))
    values = _pixel_values(count_collected(pairs, pixels), limits)
    scores = np.concatenate(in_threads(lambda batch: batch.image_scores(), pairs.batches()))
    anomalous = np.zeros(len(scores), bool)
    anomalous[pixels.images] = True
    return values | image_values(anomalous, scores)


class PixelMetrics:
    """Accumulate masks and maps; then compute all metrics of them.

    Parameters
    ----------
    exact : bool, default=True
        Keep the scores, as many bytes as the maps have, and compute exact values. False keeps a
        histogram of 50 MB instead, however many maps come, and gives each value with a bound on
        its error.
    max_fpr : float or sequence of float, default=(0.3, 0.05, 0.01)
        Integration limits of the AUPRO, each in (0, 1].
    saturation : float or callable, default=None
        Saturation areas of the regions, as for :func:`auspro_score`; adds the area under the sPRO
        curve at each limit. Only with ``exact=True``.
    connectivity : {8, 4}, default=8
        Whether pixels that touch at a corner only are one region.

    Attributes
    ----------
    n_images : int
        Number of images so far.

    See Also
    --------
    pixel_metrics : The same of arrays that are in memory, without copies.
    evaluate : All metrics of a detector.

    Notes
    -----
    The exact values are the same to the last bit however the images are divided into batches, in
    whatever order they come, and whether merged or not. Memory of the exact accumulator: the
    scores in the maps' own dtype, and a few bytes a region and an image.

    Bins of the histogram are 2**-14 of an octave wide, for magnitudes from 2**-32 to 2**32;
    scores beyond share the outermost bins, and the bounds tell what that costs.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.metrics import PixelMetrics
    >>> metrics = PixelMetrics(max_fpr=0.3)
    >>> rng = np.random.default_rng(0)
    >>> for index in range(4):
    ...     mask = np.zeros((1, 32, 32), dtype=bool)
    ...     mask[:, 4:9, 5:20] = index > 1
    ...     _ = metrics.update(mask, rng.normal(size=(1, 32, 32)) + 2 * mask)
    >>> metrics
    PixelMetrics(4 images, exact)
    >>> values = metrics.compute()
    >>> round(values["pixel_roc_auc"], 2), round(values["aupro_0.3"], 2)
    (0.92, 0.77)
    """

    def __init__(self, *, exact=True, max_fpr=(0.3, 0.05, 0.01), saturation=None, connectivity=8):
        self.max_fpr = _check_limits(max_fpr)
        self.connectivity = check_connectivity(connectivity)
        if saturation is not None and not (isinstance(saturation, float) or callable(saturation)):
            raise ValueError(
                f"saturation={saturation!r} must be a float in (0, 1], a share of each region's "
                "area, or a callable that makes saturation areas from areas."
            )
        if saturation is not None and not exact:
            raise ValueError(
                "saturation needs exact=True: the histogram does not keep the pixels of a region "
                "apart."
            )
        self.exact = bool(exact)
        self.saturation = saturation
        self._normal: list[np.ndarray] = []
        self._pixels: list[AnomalousPixels] = []
        self._histogram = None if exact else _histogram.Histogram()
        self._image_scores: list[np.ndarray] = []
        self._image_anomalous: list[np.ndarray] = []

    @property
    def n_images(self) -> int:
        """Number of images so far."""
        return sum(len(scores) for scores in self._image_scores)

    def __repr__(self):
        kind = "exact" if self.exact else "histogram"
        return f"PixelMetrics({self.n_images} images, {kind})"

    def update(self, masks, maps, ignore=None) -> PixelMetrics:
        """Add images.

        Parameters
        ----------
        masks : array or tensor of shape (n, height, width), or list of (height, width)
            bool, 0 and 1, or 0 and 255; anomalous where not 0.
        maps : array or tensor of shape (n, height, width), or list of (height, width)
            Anomaly maps, floating and finite: higher is more anomalous. Kept as copies.
        ignore : array or tensor of bool, or list of (height, width), default=None
            True where pixels do not count, as for :func:`pixel_metrics`.

        Returns
        -------
        self : PixelMetrics
            If an error is raised, the accumulator is left as it was.

        Raises
        ------
        TypeError, ValueError
            As :func:`aupro_score`, except that one kind of pixel may be missing.
        """
        batches = check_pairs(masks, maps, ignore).batches()
        checked = []
        for batch in batches:
            batch.check_maps()
            checked.append(batch.checked_masks())
        for batch, anomalous in zip(batches, checked, strict=True):
            self._add(batch, anomalous)
        return self

    def merge(self, other: PixelMetrics) -> PixelMetrics:
        """Add the images of another accumulator, which is left as it is.

        Parameters
        ----------
        other : PixelMetrics
            With the same parameters.

        Returns
        -------
        self : PixelMetrics
        """
        if not isinstance(other, PixelMetrics):
            raise TypeError(f"other must be a PixelMetrics, not {type(other).__name__}.")
        for name in ("exact", "max_fpr", "saturation", "connectivity"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(
                    f"other has {name}={theirs!r}, this one {name}={mine!r}: only accumulators "
                    "with the same parameters can be merged."
                )
        if self.exact:
            self._normal += other._normal
            self._pixels += other._pixels
        else:
            self._histogram.merge(other._histogram)
        self._image_scores += other._image_scores
        self._image_anomalous += other._image_anomalous
        return self

    def compute(self) -> dict[str, float]:
        """Compute all metrics of the images so far.

        Returns
        -------
        values : dict of str to float
            ``pixel_roc_auc``, ``pixel_average_precision``, ``pixel_f1_max`` and
            ``pixel_f1_max_threshold``; ``aupro_0.3`` and so on, one a limit; ``auspro_0.3`` and
            so on with `saturation`; ``image_roc_auc``, ``image_average_precision``,
            ``image_f1_max`` and ``image_f1_max_threshold`` of the maps' maxima, an image being
            anomalous if its mask is anywhere (NaN if there is one kind of image only).
            With ``exact=False``, also a bound on the error of each metric of pixels, under its
            name and ``_error``: the exact value is no farther away. Metrics of images are exact.

        Raises
        ------
        ValueError
            If there is no anomalous or no normal pixel so far.
        """
        counts, saturated = self._counts()
        values = _pixel_values(counts, self.max_fpr)
        if saturated is not None:
            for limit in self.max_fpr:
                values[f"auspro_{limit:g}"] = _curves.aupro(saturated, limit)
        if not self.exact:
            values |= self._errors(counts)
        return values | image_values(
            np.concatenate(self._image_anomalous), np.concatenate(self._image_scores)
        )

    def pro_curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Corners of the PRO curve of the images so far; with ``exact=False``, of the binned one.

        Returns
        -------
        fpr, pro, thresholds : ndarray of shape (n_points,)
            As :func:`pro_curve` returns them.
        """
        return _curves.pro_points(self.counts())

    def _add(self, batch, anomalous):
        """Add a checked batch."""
        regions = find_regions(anomalous, self.connectivity)
        scores = batch.scores_at(regions.positions)
        pixels = AnomalousPixels(scores, regions.areas, regions.images)
        if not self.exact:
            scores = batch.counted_scores()
            self._histogram.add(scores.cpu().numpy() if is_tensor(scores) else scores, pixels)
        else:
            normal = ~anomalous if batch.ignored is None else ~(anomalous | batch.ignored)
            self._normal.append(batch.scores_at(normal.reshape(-1)))
            self._pixels.append(pixels)
        self._image_scores.append(batch.image_scores())
        self._image_anomalous.append(anomalous.any(axis=(1, 2)))

    def counts(self) -> Counts:
        """Counts that all values but the sPRO come from."""
        return self._counts()[0]

    def _counts(self) -> tuple[Counts, Counts | None]:
        """Counts for PRO, and for sPRO if it is asked for."""
        if self.n_images == 0:
            raise ValueError("There are no images yet: call update first.")
        if not self.exact:
            histogram = self._histogram
            check_both_kinds(histogram.anomalous.sum(), histogram.normal.sum())
            return histogram.counts(), None
        pixels = AnomalousPixels.concatenate(self._pixels)
        n_normal = sum(len(normal) for normal in self._normal)
        check_both_kinds(len(pixels.scores), n_normal)
        thresholds, anomalous, overlap = tabulate_anomalous(pixels)
        above, tied = count_above_and_tied(thresholds, self._normal)
        rest = (above, tied, n_normal, len(pixels.areas))
        saturated = None
        if self.saturation is not None:
            weights = saturated_weights(pixels, self.saturation)
            _, lifts = tabulate_scores(pixels.scores, weights)
            saturated = Counts(thresholds, anomalous, lifts, *rest)
        return Counts(thresholds, anomalous, overlap, *rest), saturated

    def _errors(self, counts):
        """Bounds on the errors of what was computed from a histogram."""
        errors = {
            "pixel_roc_auc_error": _histogram.roc_auc_error(counts),
            "pixel_average_precision_error": _histogram.average_precision_error(counts),
            "pixel_f1_max_error": _histogram.f1_max_error(counts),
        }
        for limit in self.max_fpr:
            errors[f"aupro_{limit:g}_error"] = _histogram.aupro_error(counts, limit)
        return {name: error + _ROUNDING for name, error in errors.items()}


def _check_limits(max_fpr) -> tuple[float, ...]:
    """Check one or several integration limits."""
    limits = [max_fpr] if np.ndim(max_fpr) == 0 else max_fpr
    return tuple(check_max_fpr(limit) for limit in limits)


def _pixel_values(counts: Counts, limits: tuple[float, ...]) -> dict[str, float]:
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
    counted = scores != -np.inf  # which images have without a pixel that counts
    anomalous, scores = anomalous[counted], scores[counted]
    if anomalous.all() or not anomalous.any():
        return {f"image_{name}": float("nan") for name in names}
    counts = count_images(anomalous, scores.astype(np.float64))
    values = (_curves.roc_auc(counts), _curves.average_precision(counts), *_curves.f1_max(counts))
    return {f"image_{name}": value for name, value in zip(names, values, strict=True)}
