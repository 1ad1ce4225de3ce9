"""A detector's row of a benchmark table."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from skpadim._labels import check_both_kinds, check_labels
from skpadim.metrics._accumulator import PixelMetrics
from skpadim.metrics._geometry import Window, check_mask_size, image_size, is_missing, read_mask
from skpadim.metrics._summary import image_values


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
        +1 for good images and -1 for anomalous ones, at least one of each. 0 and 1, and bool, are
        refused, since either could stand for good.
    masks : sequence of length n_samples
        Arrays (height, width), or objects that NumPy makes such arrays of, bool, 0 and 1, or 0 and
        255; paths of images, anomalous where brighter than 127; None for good images. Where `X`
        has paths of images, a mask in a file must have the size of its image.
    resolution : {"model", "original"}, default="model"
        Where pixels are compared. "model": masks are brought to the maps' size, by nearest
        neighbour. "original": maps are brought to each mask's size, bilinearly, and those of good
        images without a mask to the image's, if `X` has paths; else these keep the maps' size.
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
        claim about them. With ``crop_size=None`` it is 0.

    Raises
    ------
    TypeError, ValueError
        If lengths differ, a label or a mask is not of the accepted kind, labels are all the same,
        the detector makes no maps, a mask has another size than its image, a good image has
        anomalous pixels, or an anomalous one has no mask.

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
    metrics = PixelMetrics(exact=exact)
    scores = []
    n_anomalous = n_outside = 0
    for _, anomaly_map, mask, window in iter_maps_and_masks(detector, X, masks, anomalous):
        scores.append(anomaly_map.max())
        inside = mask[window.inspected(mask.shape)]
        n_anomalous += np.count_nonzero(mask)
        n_outside += np.count_nonzero(mask) - np.count_nonzero(inside)
        if resolution == "original":
            metrics.update([inside], [window.resize_map(anomaly_map, mask.shape)])
        else:
            metrics.update([window.crop_mask(mask)], [anomaly_map])
    values = metrics.compute() | image_values(anomalous, np.array(scores))
    return values | {"uninspected": n_outside / n_anomalous if n_anomalous else 0.0}


def iter_maps_and_masks(
    detector, X, masks, anomalous=None
) -> Iterator[tuple[int, np.ndarray, np.ndarray, Window]]:
    """Index, map, mask at its original size and window of each image, one at a time.

    Parameters
    ----------
    detector, X, masks
        As for :func:`evaluate`.
    anomalous : ndarray of shape (n_samples,), bool, default=None
        Labels that the masks must agree with.
    """
    masks = _as_sequence(masks)
    if anomalous is not None and len(masks) != len(anomalous):
        raise ValueError(
            f"masks has {len(masks)} masks and y has {len(anomalous)} labels: give one of each an "
            "image; the mask of a good image can be None."
        )
    if anomalous is not None:
        check_both_kinds(anomalous, "y")
    check_has_maps(detector)
    images = _paths(X)
    window, index = None, 0
    for batch in detector.iter_anomaly_maps(X):
        for anomaly_map in np.asarray(batch):
            if index == len(masks):
                raise ValueError(f"X has more images than the {len(masks)} masks given.")
            window = window or Window.of(detector, anomaly_map.shape)
            mask = read_mask(masks[index], index, _blank_size(images, masks, index, window))
            if index < len(images):
                check_mask_size(mask, masks[index], images[index], index)
            if anomalous is not None:
                _check_agreement(index, masks[index], mask, anomalous[index])
            yield index, anomaly_map, mask, window
            index += 1
    if index != len(masks):
        raise ValueError(f"X has {index} images and masks has {len(masks)}: give one an image.")


def check_has_maps(detector) -> None:
    """Raise if an object makes no anomaly maps, as a pipeline or a search does not."""
    if not hasattr(detector, "iter_anomaly_maps"):
        raise TypeError(
            f"{type(detector).__name__} has no iter_anomaly_maps(X), which maps come from: give a "
            "PadimDetector; of a search, its best_estimator_. A pipeline of PatchEmbedder and "
            "PatchGaussian scores images, and makes no maps."
        )


def _blank_size(images, masks, index, window):
    """Size of the zeros that stand for a missing mask.

    A good image's own: at the original resolution each of its pixels counts as much as one of a
    defective image. Where it is not known, the resized image's gives each pixel of the map one.
    """
    path = images[index] if index < len(images) and is_missing(masks[index]) else None
    return (path is not None and image_size(path)) or window.resized


def _as_sequence(masks):
    if hasattr(masks, "iloc"):  # pandas
        return list(masks)
    if isinstance(masks, (str, bytes)) or not hasattr(masks, "__len__"):
        raise TypeError(
            f"masks must be a sequence of arrays, paths or None, not {type(masks).__name__}."
        )
    return masks


def _paths(X):
    """X as a list if its items are paths, which tell the images' sizes; else an empty list."""
    if hasattr(X, "iloc") and X.ndim == 2:  # DataFrame of one column
        X = X.iloc[:, 0]
    is_list = isinstance(X, (list, tuple)) or hasattr(X, "iloc")
    if is_list or (isinstance(X, np.ndarray) and X.ndim == 1):
        return [item if isinstance(item, (str, os.PathLike)) else None for item in X]
    return []


def _check_agreement(index, given, mask, is_anomalous):
    if is_anomalous and is_missing(given):
        raise ValueError(
            f"y says that image {index} is anomalous, and masks[{index}] is None: give its mask, "
            "or leave the image out."
        )
    if not is_anomalous and mask.any():
        raise ValueError(
            f"y says that image {index} is good, and masks[{index}] has anomalous pixels: correct "
            "one of them. In y, -1 is anomalous and +1 good."
        )
