"""The per-region overlap curve."""

from __future__ import annotations

import numpy as np

from skpadim.metrics._evaluate import update_at_map_size, warn_of_vanished
from skpadim.metrics._inputs import check_max_fpr
from skpadim.metrics._pixel_metrics import PixelMetrics
from skpadim.plotting._axes import import_pyplot, one_axes

# Told apart in grey: the curves of one axes take turns.
_LINE_STYLES = ("-", "--", "-.", ":")
_STEPS = 1000  # along each axis, finer than a line is thick


class ProCurveDisplay:
    """Per-region overlap (PRO) curve, with the area under it in the legend.

    Use :meth:`from_estimator` or :meth:`from_predictions` to make one.

    Parameters
    ----------
    fpr, pro : ndarray of shape (n_points,)
        False positive rates and overlaps, of :func:`skpadim.metrics.pro_curve`.
    aupro : float, default=None
        Area under the curve up to `max_fpr`, over `max_fpr`.
    max_fpr : float, default=0.3
        In (0, 1]: as far as the curve is integrated, and shown.
    name : str, default=None
        What the legend calls the curve.

    Attributes
    ----------
    line_ : matplotlib Line2D
        Corners of the curve that no eye tells apart are left out.
    chance_level_ : matplotlib Line2D or None
        The curve of a map that knows nothing.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skpadim.metrics.pro_curve : Its points.
    skpadim.metrics.aupro_score : The area.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.plotting import ProCurveDisplay
    >>> masks = np.zeros((4, 32, 32), dtype=bool)
    >>> masks[2:, 4:9, 5:20] = True
    >>> maps = np.random.default_rng(0).normal(size=masks.shape) + 2 * masks
    >>> display = ProCurveDisplay.from_predictions(masks, maps, name="noisy")
    >>> display.line_.get_label()
    'noisy (AUPRO = 0.77)'
    """

    def __init__(self, fpr, pro, *, aupro=None, max_fpr=0.3, name=None):
        self.fpr = fpr
        self.pro = pro
        self.aupro = aupro
        self.max_fpr = max_fpr
        self.name = name

    @classmethod
    def from_estimator(
        cls, detector, X, masks, *, max_fpr=0.3, exact=False, name=None, ax=None, **kwargs
    ):
        """Make maps of images and draw their curve, in one pass over the images.

        Parameters
        ----------
        detector : PadimDetector, or any object with ``iter_anomaly_maps(X)``
            Fitted.
        X : images
            In any form that the detector takes.
        masks : sequence of length n_samples
            As for :func:`skpadim.metrics.evaluate`; compared at the maps' resolution.
        max_fpr : float, default=0.3
            In (0, 1].
        exact : bool, default=False
            As for :func:`skpadim.metrics.evaluate`: False keeps a histogram, and no map.
        name : str, default=None
            None for the class of the detector.
        ax : Axes, default=None
            As for :meth:`plot`.
        **kwargs : dict
            Of :meth:`plot`.

        Returns
        -------
        display : ProCurveDisplay
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        metrics = PixelMetrics(exact=exact, max_fpr=check_max_fpr(max_fpr))
        warn_of_vanished(update_at_map_size(metrics, detector, X, masks))
        name = type(detector).__name__ if name is None else name
        return cls._of_metrics(metrics, name).plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, y_true, y_score, *, max_fpr=0.3, connectivity=8, name=None, ax=None, **kwargs
    ):
        """Draw the curve of any detector's maps.

        Parameters
        ----------
        y_true, y_score : arrays of shape (n, height, width), or lists of (height, width)
            Masks and maps, as for :func:`skpadim.metrics.aupro_score`.
        max_fpr, connectivity
            As for :func:`skpadim.metrics.aupro_score`.
        name : str, default=None
            What the legend calls the curve.
        ax : Axes, default=None
            As for :meth:`plot`.
        **kwargs : dict
            Of :meth:`plot`.

        Returns
        -------
        display : ProCurveDisplay
        """
        import_pyplot(f"{cls.__name__}.from_predictions")
        metrics = PixelMetrics(max_fpr=check_max_fpr(max_fpr), connectivity=connectivity)
        return cls._of_metrics(metrics.update(y_true, y_score), name).plot(ax, **kwargs)

    @classmethod
    def _of_metrics(cls, metrics, name):
        (limit,) = metrics.max_fpr
        fpr, pro, _ = metrics.pro_curve()
        aupro = metrics.compute()[f"aupro_{limit:g}"]
        return cls(fpr, pro, aupro=aupro, max_fpr=limit, name=name)

    def plot(self, ax=None, *, name=None, plot_chance_level=False, **kwargs):
        """Draw the curve.

        Parameters
        ----------
        ax : Axes, default=None
            None makes a figure.
        name : str, default=None
            What the legend calls the curve; None for `name` of the display.
        plot_chance_level : bool, default=False
            Whether to draw the curve of a map that knows nothing, the diagonal.
        **kwargs : dict
            Of matplotlib's ``plot``.

        Returns
        -------
        self : ProCurveDisplay
        """
        self.ax_ = one_axes(ax, f"{type(self).__name__}.plot")
        self.figure_ = self.ax_.figure
        name = self.name if name is None else name
        area = None if self.aupro is None else f"AUPRO = {self.aupro:0.2f}"
        label = f"{name} ({area})" if name and area else name or area
        style = _LINE_STYLES[len(self.ax_.lines) % len(_LINE_STYLES)]
        (self.line_,) = self.ax_.plot(
            *self._visible(), **{"label": label, "linestyle": style, **kwargs}
        )
        self.chance_level_ = None
        if plot_chance_level:
            (self.chance_level_,) = self.ax_.plot(
                [0, self.max_fpr], [0, self.max_fpr], color="grey", linewidth=1, label="chance"
            )
        self.ax_.set(
            xlabel=f"False positive rate (of pixels, up to {self.max_fpr:g})",
            ylabel="Per-region overlap",
            xlim=(0, self.max_fpr),
            ylim=(0, 1.01),
        )
        if label or plot_chance_level:
            self.ax_.legend(loc="lower right")
        return self

    def _visible(self):
        """Points up to the limit, where the last is interpolated, that differ by a step or more."""
        fpr, pro = np.asarray(self.fpr), np.asarray(self.pro)
        inside = fpr < self.max_fpr
        end = np.interp(self.max_fpr, fpr, pro)
        fpr, pro = np.append(fpr[inside], self.max_fpr), np.append(pro[inside], end)
        cells = np.floor(_STEPS * np.stack([fpr / self.max_fpr, pro]))
        keep = np.ones(len(fpr), bool)
        keep[1:-1] = (np.diff(cells[:, :-1]) > 0).any(axis=0)
        return fpr[keep], pro[keep]
