"""One pass over the images: scores, small pictures and metrics, of which no map is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np

from skpadim._inspection import Criteria
from skpadim._padim import PadimDetector, iter_maps_and_errors
from skpadim.alignment._image_aligner import COLUMNS
from skpadim.images._batches import Images
from skpadim.images._masks import check_agreement, check_mask_size, is_missing, read_mask
from skpadim.metrics._evaluate import not_known, warn_of_vanished
from skpadim.metrics._geometry import with_peak
from skpadim.metrics._pixel_metrics import PixelMetrics, image_values
from skpadim.plotting.report._pictures import small_pictures
from skpadim.regions._table import regions_of_map

_MAX_REGIONS = 9  # of an image, that are listed


@dataclass
class Findings:
    """What is known of the images after the pass; one row for each that could be read."""

    labelled: bool
    # name, kind, good, score, regions and alignment; and the pictures
    rows: list[dict] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # name, problem
    unmasked: list[str] = field(default_factory=list)  # names of defective images without a mask
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def scores(self) -> np.ndarray:
        """Highest value of each image's map: higher is more anomalous."""
        return np.array([row["score"] for row in self.rows])

    @property
    def good(self) -> np.ndarray:
        """True where an image is labelled good."""
        return np.array([row["good"] for row in self.rows], dtype=bool)


def inspect(
    detector: PadimDetector, items, labels: np.ndarray | None, kinds, masks, on_error: str
) -> Findings:
    """Score images; labels are +1 and -1, kinds and masks one an image, all or None."""
    images, names = Images(items), _names(items)
    result, metrics, vanished = Findings(labels is not None), PixelMetrics(exact=False), []
    given = Images(items, skipped={} if on_error == "skip" else None)
    criteria, index = Criteria.of(detector), -1
    window = criteria.window
    for maps, errors in iter_maps_and_errors(detector, given, on_error):
        for place, anomaly_map in enumerate(maps):
            index += 1
            if place in errors:
                result.unreadable.append((names[index], errors[place].problem))
                continue
            if np.isnan(anomaly_map).all():
                result.unreadable.append((names[index], "has no pixel that is inspected."))
                continue
            bad = None if labels is None else bool(labels[index] < 0)
            mask = None
            if masks is not None and not is_missing(masks[index]):
                mask = read_mask(masks[index], index)
                check_mask_size(mask.shape, masks[index], images.items[index], index)
                check_agreement(mask, masks[index], index, bad)
                if window.loses(mask):
                    vanished.append(index)
            if masks is not None and mask is None and bad:
                result.unmasked.append(names[index])
            elif masks is not None:
                small = np.zeros(window.size, bool) if mask is None else window.crop_mask(mask)
                metrics.update([small], [anomaly_map], not_known(anomaly_map))
            row = {
                "name": names[index],
                "kind": None if labels is None else str(kinds[index]),
                "good": None if bad is None else not bad,
                "score": float(np.nanmax(anomaly_map)),
            }
            shown = mask if mask is not None and mask.any() else None
            row["regions"] = _regions(anomaly_map, row["score"], images.size_of(index), criteria)
            if detector.aligner_ is not None:
                given.align_by(detector.aligner_)
                given.locate(index, detector.embedder_.image_size_)  # what a worker has measured
                row["alignment"] = dict(zip(COLUMNS, given.motions[index].tolist(), strict=True))
            row |= small_pictures(images, index, anomaly_map, shown, window)
            result.rows.append(row)
    warn_of_vanished(vanished)
    if result.labelled:
        result.metrics = image_values(~result.good, result.scores)
        if any(row["mask"] for row in result.rows) and result.good.any():
            result.metrics = metrics.compute() | result.metrics
    return result


def _regions(anomaly_map, score, size, criteria):
    """Regions of :meth:`PadimDetector.anomalous_regions`, the highest peaks first."""
    if not score > -criteria.offset:
        return []
    in_image = with_peak(criteria.window.in_image(anomaly_map, size), score)
    table = regions_of_map(in_image, -criteria.offset, p_values=criteria.p_values)
    columns = ["top", "left", "bottom", "right", "area", "p_value"]
    return table.nlargest(_MAX_REGIONS, "peak")[columns].to_dict("records")


def _names(items):
    """What images are called: paths from the folder that all lie in, or numbers."""
    if not all(isinstance(item, (str, os.PathLike)) for item in items):
        return [f"image {index}" for index in range(len(items))]
    paths = [os.path.abspath(item) for item in items]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [os.path.relpath(path, root) for path in paths]
