"""One result an image: what a detector says of it, the costly parts when they are asked for."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from skpadim.alignment._image_aligner import ImageAligner
from skpadim.calibration._conformal import conformal_p_values
from skpadim.images._batches import Images
from skpadim.images._masks import image_size
from skpadim.metrics._geometry import Window, with_peak
from skpadim.regions._table import regions_of_map


@dataclass(frozen=True)
class Criteria:
    """What a detector judges its maps by; scores are higher where more normal."""

    window: Window
    offset: float  # NaN if there is no threshold
    calibration_scores: np.ndarray | None
    calibration_groups: np.ndarray | None
    aligner: ImageAligner | None = None
    min_area: float = 0

    @classmethod
    def of(cls, detector, min_area: float = 0) -> Criteria:
        """Criteria of a fitted detector, as they are now."""
        return cls(
            Window.of(detector, detector.embedder_.input_size_),
            getattr(detector, "offset_", np.nan),
            getattr(detector, "calibration_scores_", None),
            getattr(detector, "calibration_groups_", None),
            detector.aligner_,
            min_area,
        )

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """Conformal p-values; NaN where there is nothing to compare with, or no score."""
        if self.calibration_scores is None or np.isnan(scores).any():
            return np.full(len(scores), np.nan)
        return conformal_p_values(scores, self.calibration_scores, self.calibration_groups)


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a detector says of one image; see :meth:`PadimDetector.inspect`.

    The map, the mask, the regions, the alignment and the p-value are computed when they are first
    asked for.

    Attributes
    ----------
    index : int
        Number of the image among those that were given, from 0.
    image : path, array, tensor or PIL image
        The image as it was given.
    score : float
        As of :meth:`PadimDetector.score_samples`: higher is more normal. NaN if no pixel of the
        image was inspected.
    is_anomalous : bool
        Whether the score is below the threshold, as :meth:`PadimDetector.predict` says it. True,
        too, if the score is NaN: what was not inspected is not passed as good.
    milliseconds : float
        From the image's arrival to its score. Of images that are worked on together, the time of
        all of them divided by their number. The first image takes longer, see the guide.
    p_value : float
        In (0, 1], as of :meth:`PadimDetector.p_values`; NaN where that is an error.
    anomaly_map : ndarray of shape (height, width), float32
        In the image's own pixels, higher is more anomalous; NaN where it was not inspected.
    mask : ndarray of shape (height, width), bool
        As of :meth:`PadimDetector.anomaly_mask`, in the image's own pixels.
    regions : DataFrame
        As of :meth:`PadimDetector.anomalous_regions`.
    alignment : Series or None
        Where the part lies, as a row of :meth:`ImageAligner.measure`; None without ``align``.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim import PadimDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.uniform(0.4, 0.6, size=(30, 64, 64))
    >>> detector = PadimDetector("filter_bank", image_size=64).fit(good)
    >>> frame = rng.uniform(0.4, 0.6, size=(64, 64))
    >>> frame[20:30, 30:40] = 0.9
    >>> (inspection,) = detector.inspect([frame])
    >>> inspection.is_anomalous, round(inspection.p_value, 3)
    (True, 0.032)
    >>> inspection.mask.shape, len(inspection.regions)
    ((64, 64), 1)
    """

    index: int
    image: object = field(repr=False)
    score: float
    is_anomalous: bool
    milliseconds: float
    _model_map: np.ndarray = field(repr=False)
    _criteria: Criteria = field(repr=False)

    @cached_property
    def p_value(self) -> float:
        """Conformal p-value of the image."""
        return float(self._criteria.p_values(np.array([self.score]))[0])

    @cached_property
    def anomaly_map(self) -> np.ndarray:
        """The map in the image's own pixels."""
        size = image_size(self.image)
        if size is None:
            raise ValueError(f"{self.image} cannot be read any more, so its size is not known.")
        return self._criteria.window.in_image(self._model_map, size)

    @cached_property
    def mask(self) -> np.ndarray:
        """Where the image is anomalous."""
        return self._with_peak > -self._criteria.offset

    @cached_property
    def regions(self) -> pd.DataFrame:
        """The table of the image's anomalous regions."""
        is_path = isinstance(self.image, (str, os.PathLike))
        criteria = self._criteria
        return regions_of_map(
            self._with_peak,
            -criteria.offset,
            os.fspath(self.image) if is_path else self.index,
            criteria.p_values,
            criteria.min_area,
        )

    @cached_property
    def alignment(self) -> pd.Series | None:
        """Where the part lies."""
        aligner = self._criteria.aligner
        return None if aligner is None else aligner.measure([self.image]).iloc[0]

    @property
    def _with_peak(self):
        return with_peak(self.anomaly_map, -self.score)


def iter_inspections(
    make_maps: Callable, parts: Iterable[Images], criteria: Criteria
) -> Iterator[Inspection]:
    """Yield what is found on each image of `parts`: one, or an iterator of parts of one image.

    `make_maps` makes batches of maps, and of the errors of images that are skipped.
    """
    is_stream, begun = isinstance(parts, Iterator), time.perf_counter()
    images = None if is_stream else parts[0]

    def arriving():
        nonlocal images, begun
        for images in parts:
            begun = time.perf_counter()
            yield images

    index = 0
    for maps, errors in make_maps(arriving() if is_stream else parts):
        milliseconds = 1000 * (time.perf_counter() - begun) / len(maps)
        for place, anomaly_map in enumerate(maps):
            if place in errors:
                warnings.warn(f"{errors[place]} It is skipped.", stacklevel=2)
            else:
                # Pixels that are not inspected are NaN, and may be all of them.
                score = -np.fmax.reduce(anomaly_map, axis=None)
                yield Inspection(
                    index,
                    images.items[0 if is_stream else index],
                    float(score),
                    not score - criteria.offset >= 0,
                    milliseconds,
                    anomaly_map.copy(),  # or a batch would stay as long as one of its images
                    criteria,
                )
            index += 1
        begun = time.perf_counter()
