"""How scores of good and of defective images lie about the threshold."""

from __future__ import annotations

import numpy as np

from skpadim._arrays import as_array
from skpadim.calibration._training_samples import check_labels
from skpadim.plotting._axes import import_pyplot, one_axes

# Okabe and Ito's colours; each kind has a pattern of its own too, for print in grey.
_STYLES = {
    "good": {"facecolor": "#56b4e9", "edgecolor": "#0a5a8a"},
    "defective": {"facecolor": "#d55e00", "edgecolor": "black", "hatch": "///", "alpha": 0.75},
    "new": {"facecolor": "#56b4e9", "edgecolor": "#0a5a8a"},
    "left out": {"fill": False, "edgecolor": "black", "linestyle": "--"},
}

_ROOM = 1.4  # height of the axes, in that of the highest bar


class ScoreHistogramDisplay:
    """Histogram of images' scores, by kind, with the threshold.

    Bars are shares of the images of a kind, so that few can be compared with many; the legend has
    the numbers. Use :meth:`from_estimator` or :meth:`from_predictions` to make one.

    Parameters
    ----------
    scores : array-like of shape (n_images,)
        Higher is more normal.
    y : array-like of shape (n_images,), default=None
        +1 good, -1 defective; or 0 good, 1 defective. None if it is not known.
    calibration_scores : array-like of shape (n_calibration,), default=None
        Scores of good images that the threshold was set from.
    threshold : float, default=None
        Images below it are anomalous.

    Attributes
    ----------
    bars_ : dict of str to list of matplotlib Patch
        The outline of each histogram, of "good", "defective", "new" (where `y` is not known) and
        "left out" (of `calibration_scores`).
    threshold_line_ : matplotlib Line2D or None
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from skpadim.plotting import ScoreHistogramDisplay
    >>> display = ScoreHistogramDisplay.from_predictions(
    ...     [1, 1, 1, -1, -1], [-3, -5, -4, -9, -5], threshold=-6
    ... )
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['3 good (0 flagged)', '2 defective (1 flagged)', 'threshold −6']
    """

    def __init__(self, scores, *, y=None, calibration_scores=None, threshold=None):
        self.scores = scores
        self.y = y
        self.calibration_scores = calibration_scores
        self.threshold = threshold

    @classmethod
    def from_estimator(cls, detector, X, y=None, *, ax=None, **kwargs):
        """Score images and draw their histogram, beside that of the left-out ones.

        These are the training images, each scored as by a model that has not seen it, or those
        that the detector was calibrated with.

        Parameters
        ----------
        detector : PadimDetector, PatchGaussian, or a pipeline that ends in one
            Fitted; or any outlier detector with `score_samples`. Its `offset_` is the threshold,
            and its `calibration_scores_` are shown, where it has them.
        X : images
            In any form that the detector takes.
        y : array-like of shape (n_samples,), default=None
            +1 good, -1 defective; or 0 good, 1 defective.
        ax : Axes, default=None
            As for :meth:`plot`.
        **kwargs : dict
            Of :meth:`plot`.

        Returns
        -------
        display : ScoreHistogramDisplay
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        scores = as_array(detector.score_samples(X), "scores")
        last = detector.steps[-1][1] if hasattr(detector, "steps") else detector
        return cls(
            scores,
            y=y,
            calibration_scores=getattr(last, "calibration_scores_", None),
            threshold=getattr(last, "offset_", None),
        ).plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, y_true, y_score, *, calibration_scores=None, threshold=None, ax=None, **kwargs
    ):
        """Draw the histogram of any detector's scores.

        Parameters
        ----------
        y_true : array-like of shape (n_images,) or None
            +1 good, -1 defective; or 0 good, 1 defective.
        y_score : array-like of shape (n_images,)
            Higher is more normal.
        calibration_scores, threshold
            As of the class.
        ax : Axes, default=None
            As for :meth:`plot`.
        **kwargs : dict
            Of :meth:`plot`.

        Returns
        -------
        display : ScoreHistogramDisplay
        """
        display = cls(y_score, y=y_true, calibration_scores=calibration_scores, threshold=threshold)
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, bins=30):
        """Draw the histogram.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure.
        bins : int, sequence or str, default=30
            As for :func:`numpy.histogram_bin_edges`; the same for all kinds.

        Returns
        -------
        self : ScoreHistogramDisplay
        """
        self.ax_ = one_axes(ax, f"{type(self).__name__}.plot")
        self.figure_ = self.ax_.figure
        kinds = self._by_kind()
        edges = np.histogram_bin_edges(np.concatenate([*kinds.values()]), bins)
        self.bars_ = {}
        for kind, scores in kinds.items():
            _, _, self.bars_[kind] = self.ax_.hist(
                scores,
                edges,
                weights=np.full(len(scores), 1 / len(scores)),
                histtype="stepfilled",
                label=self._label(kind, scores),
                **_STYLES[kind],
            )
        self.threshold_line_ = None
        if self.threshold is not None:
            label = f"threshold {self.threshold:.3g}".replace("-", "\N{MINUS SIGN}")
            self.threshold_line_ = self.ax_.axvline(
                self.threshold, ymax=1 / _ROOM, color="black", linewidth=2, label=label
            )
        self.ax_.set(xlabel="Score (higher is more normal)", ylabel="Share of the images of a kind")
        # Above bars and threshold, of which it hides nothing.
        self.ax_.set_ylim(0, max(self.ax_.get_ylim()[1], _ROOM * self.ax_.dataLim.y1))
        self.ax_.legend(loc="upper left", ncols=2, frameon=False)
        return self

    def _by_kind(self):
        """Scores of each kind of image."""
        scores = np.asarray(self.scores, dtype=float)
        if self.y is None:
            kinds = {"new": scores}
        else:
            labels = check_labels(self.y, len(scores))
            kinds = {"good": scores[labels == 1], "defective": scores[labels == -1]}
        if self.calibration_scores is not None:
            kinds["left out"] = np.asarray(self.calibration_scores, dtype=float)
        return {kind: values for kind, values in kinds.items() if len(values)}

    def _label(self, kind, scores):
        if self.threshold is None:
            return f"{len(scores)} {kind}"
        return f"{len(scores)} {kind} ({np.count_nonzero(scores < self.threshold)} flagged)"
