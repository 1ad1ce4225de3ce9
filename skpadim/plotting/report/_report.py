"""InspectionReport: what a detector says of some images, on one page."""

from __future__ import annotations

import html
import shlex
import tempfile
import webbrowser
from functools import cached_property
from pathlib import Path

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skpadim._padim import PadimDetector
from skpadim.calibration._conformal import conformal_p_values
from skpadim.calibration._training_samples import check_labels
from skpadim.files._files import check_output_file, written_whole
from skpadim.images._items import list_items
from skpadim.images._masks import as_sequence
from skpadim.plotting._colours import map_colours
from skpadim.plotting.report._findings import Findings, inspect
from skpadim.plotting.report._page import render
from skpadim.plotting.report._words import (
    about,
    calibration_shares,
    drift,
    metric_rows,
    notes,
    odds,
)

_IN_NOTEBOOK = 60  # images that a notebook's page shows; it is kept in the notebook's file


class InspectionReport:
    """Images, what the detector finds in them, and its threshold to try out, on one HTML page.

    The page is one file that needs no network. It has the threshold on a slider with the counts
    that follow from it, the images with their anomaly maps, the most anomalous first, and where
    labels are given what is missed and what is falsely flagged.

    Parameters
    ----------
    detector : PadimDetector
        Fitted. Without a threshold of its own the slider begins at the highest score of the good
        images, or of all where there are no labels.
    X : images
        In any form that the detector takes, but for iterators. At least one.
    y : array-like of shape (n_samples,), default=None
        +1 good, -1 defective; or bool, or 0 and 1, 1 (True) for defective. None means that it is
        not known: nothing is said of missed images then.
    masks : sequence of length n_samples, default=None
        As for :func:`skpadim.metrics.evaluate`; defective images may lack theirs, and are named.
        Needs `y`.
    kinds : sequence of str of length n_samples, default=None
        What each image is, such as "good" and "scratch": the table counts each kind of defect.
        Needs `y`.
    on_error : {"raise", "skip"}, default="raise"
        At images that cannot be read: raise an :class:`~skpadim.UnreadableImageError`, or name
        them in the report.
    model : str or path, default=None
        The detector's file, for the command that sets the chosen threshold in it; None for none.

    Attributes
    ----------
    unreadable : list of (str, str)
        Names of the images that could not be read, with what is wrong with each.

    Raises
    ------
    TypeError, ValueError
        If `detector` is no fitted PadimDetector, `X` is empty or no images, or lengths differ.

    See Also
    --------
    skpadim.metrics.evaluate : The metrics alone.

    Notes
    -----
    The images are scored once, batch by batch, when the report is first written or shown. Scores
    and thresholds have the sign of maps: higher is more anomalous, and the threshold is
    ``-detector.offset_``. An image is flagged if its score is above.

    A notebook shows the 60 most anomalous images and keeps them in its file. Counts and metrics
    are those of all images there, too.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skpadim import InspectionReport, PadimDetector
    >>> from skpadim.datasets import make_defects
    >>> parts = make_defects(24, 4, image_size=64, random_state=0)
    >>> detector = PadimDetector("filter_bank", image_size=64, random_state=0)
    >>> detector = detector.fit(parts.data[:20])
    >>> report = InspectionReport(detector, parts.data[20:], parts.target[20:], parts.masks[20:])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report.write_html(Path(folder, "report.html"))
    ...     Path(folder, "report.html").stat().st_size < 1e6
    True
    """

    def __init__(
        self, detector, X, y=None, masks=None, *, kinds=None, on_error="raise", model=None
    ):
        if not isinstance(detector, PadimDetector):
            raise TypeError(
                f"detector is a {type(detector).__name__}; it must be a fitted PadimDetector (of a "
                "search, its best_estimator_)."
            )
        check_is_fitted(detector)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error={on_error!r} must be 'raise' or 'skip'.")
        self.detector = detector
        self.on_error = on_error
        self.model = model
        self._items = list_items(X)
        if not len(self._items):
            raise ValueError("X has no images; at least one is needed.")
        self._labels = None if y is None else check_labels(y, len(self._items))
        self._masks = None if masks is None else as_sequence(masks)
        self._kinds = kinds
        for name, given in (("masks", self._masks), ("kinds", kinds)):
            if given is None:
                continue
            if y is None:
                raise ValueError(f"{name} are given and y is not: give y, +1 good, -1 defective.")
            if len(given) != len(self._items):
                raise ValueError(
                    f"{name} has {len(given)} entries for {len(self._items)} images; give one an "
                    "image."
                )
        if kinds is None and y is not None:
            self._kinds = np.where(self._labels == 1, "good", "defective")

    def write_html(self, path):
        """Write the page.

        Parameters
        ----------
        path : str or path
            File to write; one that is there is replaced. Looked at before images are scored.

        Raises
        ------
        OSError
            If the file cannot be written.
        UnreadableImageError
            If an image cannot be read, unless ``on_error="skip"``.
        ValueError
            If a mask cannot be read, or does not agree with its image or label.
        """
        path = Path(path)
        check_output_file(path)
        page = self._render()
        with written_whole(path) as part:
            part.write_bytes(page.encode())

    def open(self):
        """Write the page to a temporary file, which stays, and show it in the browser."""
        path = Path(tempfile.mkdtemp(prefix="skpadim-report-"), "report.html")
        self.write_html(path)
        webbrowser.open(path.as_uri())

    def __repr__(self):
        return f"<InspectionReport of {len(self._items)} images: write_html(path), or open()>"

    def _repr_html_(self):
        page = html.escape(self._render(_IN_NOTEBOOK))
        return (
            '<iframe title="Inspection report" style="width: 100%; height: 720px; border: 0" '
            f'srcdoc="{page}"></iframe>'
        )

    @property
    def unreadable(self):
        """Images that could not be read."""
        return self._found.unreadable

    @cached_property
    def _found(self) -> Findings:
        """The one pass over the images."""
        return inspect(
            self.detector, self._items, self._labels, self._kinds, self._masks, self.on_error
        )

    def _render(self, n_shown=None):
        found, detector = self._found, self.detector
        threshold = -detector.offset_ if hasattr(detector, "offset_") else None
        good = found.good if found.labelled else np.ones(len(found.rows), bool)
        start = found.scores[good if good.any() else ~good].max(initial=0)
        start = float(start) if threshold is None else threshold
        n_flagged = np.count_nonzero(found.scores > start)
        calibration = calibration_shares(detector)
        rows = sorted(found.rows, key=lambda row: -row["score"])
        if calibration:
            scores = -np.array([row["score"] for row in rows])
            p_values = conformal_p_values(
                scores, detector.calibration_scores_, detector.calibration_groups_
            )
            for row, p_value in zip(rows, p_values, strict=True):
                row["odds"] = odds(p_value, calibration["shares"][0])
        hidden = dict.fromkeys(("image", "map", "mask"))
        rows = [
            row if n_shown is None or i < n_shown else row | hidden for i, row in enumerate(rows)
        ]
        if not calibration:  # JSON has no NaN
            without = {"p_value": None}
            rows = [row | {"regions": [each | without for each in row["regions"]]} for row in rows]
        return render(
            {
                "title": "Inspection report",
                "headline": f"{n_flagged} of {len(rows)} images flagged",
                "labelled": found.labelled,
                "threshold": threshold,
                "start": start,
                "calibration": calibration,
                # From the threshold on, to twice the threshold.
                "colours": map_colours(np.linspace(1.0001, 2, 64)[None], 1.0)[0].tolist(),
                "rows": rows,
                "notes": notes(detector, found, self._masks is not None),
                "unreadable": found.unreadable,
                "unmasked": found.unmasked,
                "metrics": metric_rows(found.metrics),
                "drift": drift(detector, found),
                "about": about(detector),
                "command": self.model
                and f"skpadim calibrate {shlex.quote(str(self.model))} --threshold ",
            }
        )
