"""A detector's row of a benchmark table."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from skpadim.calibration._training_samples import check_both_labels, check_labels
from skpadim.images._items import items_of
from skpadim.images._masks import (
    as_sequence,
    check_agreement,
    check_mask_size,
    image_size,
    is_missing,
    read_mask,
)
from skpadim.metrics._geometry import Window
from skpadim.metrics._pixel_metrics import PixelMetrics, image_values


def evaluate(detector, X, y, masks, *, resolution="model", exact=False) -> dict[str, float]:
    """Metrics of images, pixels and regions of a fitted detector, in one pass over the images.

    Parameters
    ----------
    detector : PadimDetector, or any object with ``iter_anomaly_maps(X)``
        The method yields maps of shape (n_batch, height, width), higher is more anomalous. If it
        has ``embedder_.preprocess``, masks are resized and cropped as that does it with images;
        else maps are taken to show whole images.
    X : images
        In any form that the detector takes.
    y : array-like of shape (n_samples,)
        +1 for good images and -1 for anomalous ones; or bool, or 0 and 1, 1 (True) where
        anomalous, as :meth:`PadimDetector.fit` reads them. At least one of each.
    masks : sequence of length n_samples
        Arrays (height, width), or objects that NumPy makes such arrays of, of bool, or of 0 and 1,
        255 or 65535; PIL images, or paths of images, of two values, normal where black, or in
        black and white with noise or soft edges; None for good images. Where `X` has paths of
        images, a mask in a file must have the size of its image, and is turned upright as that is.
    resolution : {"model", "original"}, default="model"
        Where pixels are compared. "model": masks are brought to the maps' size, by nearest
        neighbour. "original": maps are brought to each mask's size, bilinearly, and those of good
        images without a mask to the image's.
    exact : bool, default=False
        False counts in a histogram of fixed size: whatever the number of images, no map is kept.
        True keeps the scores of all pixels, see :class:`PixelMetrics`.

    Returns
    -------
    values : dict of str to float
        What :meth:`PixelMetrics.compute` returns: ``image_roc_auc``, ``image_f1_max``,
        ``pixel_roc_auc``, ``aupro_0.3`` and so on, with bounds on the errors unless `exact`. An
        image's score is the highest value of its map, its label that of `y`.
        ``uninspected`` is the share of the anomalous pixels that lie outside of the detector's
        crop. They count in no other value, nor do the normal pixels there: the detector makes no
        claim about them. Nor does it about those that are NaN in its maps, with `align`; else with
        ``crop_size=None`` it is 0.
        ``vanished`` is the number of anomalous images of which a part of the defect was inspected,
        and no pixel of it is left in the mask at the maps' size: they are warned of. They count as
        anomalous in the metrics of images, and in those of pixels and regions as normal.

    Raises
    ------
    TypeError, ValueError
        If lengths differ, a label or a mask is not of the accepted kind, labels are all the same,
        the detector makes no maps, a mask has another size than its image, a good image has
        anomalous pixels, or an anomalous one has no mask, or none with anomalous pixels.

    Examples
    --------
    >>> from skpadim import PadimDetector
    >>> from skpadim.datasets import make_defects
    >>> from skpadim.metrics import evaluate
    >>> parts = make_defects(24, 4, image_size=64, random_state=0)
    >>> detector = PadimDetector("filter_bank", image_size=64, crop_size=None, random_state=0)
    >>> detector = detector.fit(parts.data[parts.target == 1][:20])
    >>> test = slice(20, None)
    >>> row = evaluate(detector, parts.data[test], parts.target[test], parts.masks[test])
    >>> sorted(row)[:3]
    ['aupro_0.01', 'aupro_0.01_error', 'aupro_0.05']
    """
    if resolution not in ("model", "original"):
        raise ValueError(f"resolution={resolution!r} must be 'model' or 'original'.")
    anomalous = check_labels(y) == -1
    masks = as_sequence(masks)
    check_both_labels(anomalous, "y")
    metrics = PixelMetrics(exact=exact)
    scores = []
    n_anomalous = n_outside = 0
    vanished = []
    for index, anomaly_map, mask, window in iter_maps_and_masks(detector, X, masks, anomalous):
        # Minus infinity, which does not count, of an image that is not inspected at all.
        scores.append(np.fmax.reduce(anomaly_map, axis=None, initial=-np.inf))
        inside = mask[window.inspected(mask.shape)]
        n_anomalous += np.count_nonzero(mask)
        n_outside += np.count_nonzero(mask) - np.count_nonzero(inside)
        if resolution == "original" or np.isnan(anomaly_map).any():
            resized = window.resize_map(anomaly_map, mask.shape)
            n_outside += np.count_nonzero(inside & np.isnan(resized))
        if resolution == "original":
            metrics.update([inside], [resized], not_known(resized))
            continue
        metrics.update([window.crop_mask(mask)], [anomaly_map], not_known(anomaly_map))
        if window.loses(mask):
            vanished.append(index)
    warn_of_vanished(vanished)
    values = metrics.compute() | image_values(anomalous, np.array(scores))
    uninspected = float(n_outside / n_anomalous) if n_anomalous else 0.0
    values = {name: float(value) for name, value in values.items()}
    return values | {"uninspected": uninspected, "vanished": len(vanished)}


def iter_maps_and_masks(
    detector, X, masks, anomalous=None
) -> Iterator[tuple[int, np.ndarray, np.ndarray, Window]]:
    """Index, map, mask as it is, and window of each image; masks must agree with `anomalous`."""
    masks = as_sequence(masks)
    if anomalous is not None and len(masks) != len(anomalous):
        raise ValueError(
            f"masks has {len(masks)} masks and y has {len(anomalous)} labels: give one of each an "
            "image; the mask of a good image can be None."
        )
    if not hasattr(detector, "iter_anomaly_maps"):
        raise TypeError(
            f"{type(detector).__name__} has no iter_anomaly_maps(X), which maps come from: give a "
            "PadimDetector; of a search, its best_estimator_. A pipeline of PatchEmbedder and "
            "PatchGaussian scores images, and makes no maps."
        )
    images = items_of(X)
    window, index = None, 0
    for batch in detector.iter_anomaly_maps(X):
        for anomaly_map in np.asarray(batch):
            if index == len(masks):
                raise ValueError(f"X has more images than the {len(masks)} masks given.")
            window = window or Window.of(detector, anomaly_map.shape)
            given, image = masks[index], images[index] if index < len(images) else None
            if is_missing(given):
                mask = np.zeros(_blank_size(image, window), bool)
            else:
                mask = read_mask(given, index)
                check_mask_size(mask.shape, given, image, index)
            if anomalous is not None:
                check_agreement(mask, given, index, anomalous[index])
            yield index, anomaly_map, mask, window
            index += 1
    if index != len(masks):
        raise ValueError(f"X has {index} images and masks has {len(masks)}: give one an image.")


def update_at_map_size(metrics: PixelMetrics, detector, X, masks, anomalous=None) -> list[int]:
    """Add all maps, and masks brought to their size; indices of images whose defects that loses."""
    vanished = []
    for index, anomaly_map, mask, window in iter_maps_and_masks(detector, X, masks, anomalous):
        metrics.update([window.crop_mask(mask)], [anomaly_map], not_known(anomaly_map))
        if window.loses(mask):
            vanished.append(index)
    return vanished


def not_known(anomaly_map: np.ndarray) -> list[np.ndarray] | None:
    """Where a map says nothing, as `ignore` of :class:`PixelMetrics`; None if that is nowhere."""
    unknown = np.isnan(anomaly_map)
    return [unknown] if unknown.any() else None


def warn_of_vanished(indices: list[int]) -> None:
    """Warn of images whose defects are lost where their masks are resized."""
    if indices:
        shown = ", ".join(map(str, indices[:5])) + (", ..." if len(indices) > 5 else "")
        images = f"1 image (with the index {shown})"
        if len(indices) > 1:
            images = f"{len(indices)} images (with the indices {shown})"
        warnings.warn(
            f"The defects of {images} are so small that no pixel of them is left in the masks at "
            "the size of the maps: in the metrics of pixels and regions they count as normal. "
            "Compare at resolution='original' "
            "(metrics.evaluate), or give the detector a larger image_size.",
            UserWarning,
            stacklevel=3,
        )


def _blank_size(image, window):
    """Size of the zeros that stand for a missing mask."""
    # A good image's own: at the original resolution each of its pixels counts as much as one of a
    # defective image. Where it is not known, the resized image's gives each pixel of the map one.
    return (image is not None and image_size(image)) or window.resized
