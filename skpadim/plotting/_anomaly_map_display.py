"""Images with their anomaly maps, in a grid, worst first."""

from __future__ import annotations

import heapq
import os

import numpy as np

from skpadim.calibration._conformal import conformal_p_values
from skpadim.calibration._training_samples import check_labels
from skpadim.images._items import list_items
from skpadim.images._masks import as_sequence, image_size, is_missing, read_mask
from skpadim.images._sizes import shrunk
from skpadim.metrics._evaluate import iter_maps_and_masks
from skpadim.metrics._geometry import Window, with_peak
from skpadim.plotting._axes import NOT_INSPECTED, grid_of_axes, import_pyplot
from skpadim.plotting._colours import hatched, map_colours, overlay, plain_colours
from skpadim.regions._table import regions_of_map

_MAX_PIXELS = 1024  # along a side: no grid shows more of an image
_MAX_NAME = 24
_MAX_P_VALUES = 3  # of an image: more would cover it
# Told apart without colour, and seen on light and dark images: both run on a white line.
_STYLES = {
    "decision": {"colors": "black", "linestyles": "solid", "linewidths": 1.0},
    "truth": {"colors": "#0072b2", "linestyles": [(0, (2, 1.5))], "linewidths": 1.8},
}


class AnomalyMapDisplay:
    """Images with what their anomaly maps say, worst first.

    Each image has its own proportions; all have one scale of colours. Below the threshold an image
    is left as it is, and a map is grey: what is good looks good. What was not inspected is hatched.
    Use :meth:`from_estimator` or :meth:`from_predictions` to make one.

    Parameters
    ----------
    images : list of ndarray of shape (height, width, 3), uint8
    anomaly_maps : list of ndarray of shape (height, width)
        Of the sizes of the images; higher is more anomalous, NaN where not inspected.
    scores : array-like of shape (n_images,)
        Higher is more normal, as of ``score_samples``.
    names : list of str
        What the images are called.
    threshold : float, default=None
        Of the maps, above 0: ``-detector.offset_``. None if there is none; colours then go from 0
        to the highest value shown.
    masks : list of ndarray of shape (height, width) or None, default=None
        The truth, bool: True where defective.
    y : array-like of shape (n_images,), default=None
        +1 good, -1 defective: titles then tell what was missed, and what was a false alarm.
    regions : list of DataFrame, default=None
        As of :meth:`PadimDetector.anomalous_regions`, in pixels of the images: the p-values of the
        three with the highest peaks are written beside them.

    Attributes
    ----------
    axes_ : ndarray of shape (n_rows, n_columns) of matplotlib Axes
    figure_ : matplotlib Figure
    images_ : list of matplotlib AxesImage
        With ``kind="map"`` their arrays are the maps.
    truth_contours_, decision_contours_ : list of matplotlib ContourSet or None
        Outlines of the masks, and of what is above the threshold; None for an image without.
    colorbar_ : matplotlib Colorbar

    See Also
    --------
    ScoreHistogramDisplay : All scores, and the threshold.

    Examples
    --------
    >>> from skpadim import PadimDetector
    >>> from skpadim.datasets import make_defects
    >>> from skpadim.plotting import AnomalyMapDisplay
    >>> parts = make_defects(24, 4, image_size=64, random_state=0)
    >>> detector = PadimDetector("filter_bank", image_size=64, random_state=0)
    >>> detector = detector.fit(parts.data[:24])
    >>> display = AnomalyMapDisplay.from_estimator(
    ...     detector, parts.data[20:], parts.target[20:], parts.masks[20:], max_images=6
    ... )
    >>> display.axes_.shape
    (2, 4)
    """

    def __init__(
        self, images, anomaly_maps, scores, names, *, threshold=None, masks=None, y=None,
        regions=None,
    ):  # fmt: skip
        self.images = images
        self.anomaly_maps = anomaly_maps
        self.scores = scores
        self.names = names
        self.threshold = threshold
        self.masks = masks
        self.y = y
        self.regions = regions

    @classmethod
    def from_estimator(cls, detector, X, y=None, masks=None, *, max_images=12, ax=None, **kwargs):
        """Score images and show the worst, in one pass; only their maps are kept.

        Parameters
        ----------
        detector : PadimDetector, or any object with ``iter_anomaly_maps(X)``
            Fitted. Its `offset_`, if it has one, is the threshold, and the p-values of regions
            come from its `calibration_scores_`.
        X : images
            In any form that the detector takes, but for an iterator.
        y : array-like of shape (n_samples,), default=None
            +1 good, -1 defective.
        masks : sequence of length n_samples, default=None
            The truth, as for :func:`skpadim.metrics.evaluate`.
        max_images : int, default=12
            How many are shown: those of the lowest scores.
        ax : Axes, array of Axes, default=None
            As for :meth:`plot`.
        **kwargs : dict
            Of :meth:`plot`.

        Returns
        -------
        display : AnomalyMapDisplay
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        masks = [None] * len(list_items(X)) if masks is None else masks
        entries = iter_maps_and_masks(detector, X, masks)
        offset = getattr(detector, "offset_", None)
        threshold = None if offset is None else -float(offset)
        display = cls._of_worst(entries, X, threshold, y, None, max_images)
        calibration_scores = getattr(detector, "calibration_scores_", None)
        if threshold is not None and calibration_scores is not None:
            groups = getattr(detector, "calibration_groups_", None)
            display.regions = [
                regions_of_map(
                    with_peak(anomaly_map, -score),
                    threshold,
                    p_values=lambda peaks: conformal_p_values(peaks, calibration_scores, groups),
                )
                for anomaly_map, score in zip(display.anomaly_maps, display.scores, strict=True)
            ]
        return display.plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        images,
        anomaly_maps,
        *,
        threshold=None,
        y=None,
        masks=None,
        names=None,
        max_images=12,
        ax=None,
        **kwargs,
    ):
        """Show maps of any detector.

        Parameters
        ----------
        images : images
            In any form that a :class:`~skpadim.PadimDetector` takes.
        anomaly_maps : sequence of arrays of shape (height, width)
            One for each image, of whatever size: each is taken to show the whole image. Higher is
            more anomalous. With a crop, give ``detector.anomaly_map(X, size="original")``.
        threshold, y, masks
            As of the class; masks also as for :func:`skpadim.metrics.evaluate`.
        names : sequence of str, default=None
            What the images are called. None for their files' names, or their indices.
        max_images : int, default=12
            How many are shown: those of the highest maxima.
        ax : Axes, array of Axes, default=None
            As for :meth:`plot`.
        **kwargs : dict
            Of :meth:`plot`.

        Returns
        -------
        display : AnomalyMapDisplay
        """
        import_pyplot(f"{cls.__name__}.from_predictions")
        masks = [None] * len(anomaly_maps) if masks is None else as_sequence(masks)
        n_images = len(list_items(images))
        for given, values in (("anomaly_maps", anomaly_maps), ("masks", masks)):
            if len(values) != n_images:
                raise ValueError(
                    f"{given} has length {len(values)} and there are {n_images} images: give one "
                    "for each."
                )
        entries = (
            (
                index,
                anomaly_map,
                None if is_missing(mask) else read_mask(mask, index),
                Window(anomaly_map.shape, (0, 0), anomaly_map.shape),
            )
            for index, (anomaly_map, mask) in enumerate(
                zip(map(np.asarray, anomaly_maps), masks, strict=True)
            )
        )
        return cls._of_worst(entries, images, threshold, y, names, max_images).plot(ax, **kwargs)

    @classmethod
    def _of_worst(cls, entries, X, threshold, y, names, max_images):
        """A display of those images whose maps go highest."""
        from skpadim.images._batches import Images  # needs torch, as the other does
        from skpadim.images._read import as_picture

        if max_images < 1:
            raise ValueError(f"max_images={max_images!r} must be at least 1.")
        images = Images(X)
        labels = None if y is None else check_labels(y, len(images))
        scored = (
            (-_highest(anomaly_map), index, np.array(anomaly_map), mask, window)
            for index, anomaly_map, mask, window in entries
        )
        worst = heapq.nsmallest(max_images, scored, key=lambda entry: entry[:2])
        shown, maps, outlines = [], [], []
        for _, index, anomaly_map, mask, window in worst:
            shape = shrunk(image_size(images.items[index]), _MAX_PIXELS)
            shown.append(as_picture(images.read(index, shape)))
            maps.append(_in_image(anomaly_map, window, shape, threshold))
            has_defect = mask is not None and mask.any()
            outlines.append(_small_mask(mask, shape) if has_defect else None)
        indices = [entry[1] for entry in worst]
        return cls(
            shown,
            maps,
            np.array([entry[0] for entry in worst]),
            [_name(images.items[index], index) if names is None else names[index]
             for index in indices],
            threshold=threshold,
            masks=outlines,
            y=None if labels is None else labels[indices],
        )  # fmt: skip

    def plot(self, ax=None, *, kind="overlay", opacity=0.6, n_columns=4, colorbar=True):
        """Draw the grid.

        Parameters
        ----------
        ax : Axes, array of Axes, default=None
            An array with one for each cell of the grid; or one, to be divided where there are
            several images. None makes a figure.
        kind : {"overlay", "map"}, default="overlay"
            Images with the map's colours above the threshold, or maps alone.
        opacity : float, default=0.6
            Of the colours over an image, in [0, 1].
        n_columns : int, default=4
            Of the grid; fewer if there are fewer images.
        colorbar : bool, default=True
            Whether the scale is shown, with the threshold marked.

        Returns
        -------
        self : AnomalyMapDisplay
        """
        if kind not in ("overlay", "map"):
            raise ValueError(f"kind={kind!r} must be 'overlay' or 'map'.")
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(
                f"threshold={self.threshold!r} must be above 0, as the scale of colours begins "
                "there: of maps with negative values, subtract the least."
            )
        n_columns = min(n_columns, len(self.images))
        n_rows = -(-len(self.images) // n_columns)
        ratio = np.median([np.divide(*image.shape[:2]) for image in self.images])
        size = 2.3 * n_columns + 1.2, n_rows * (2.2 * np.clip(ratio, 0.3, 1.3) + 0.45) + 0.3
        self.axes_ = grid_of_axes(ax, (n_rows, n_columns), size, f"{type(self).__name__}.plot")
        self.figure_ = self.axes_[0, 0].figure
        colours, norm = self._scale()
        self.images_, self.truth_contours_, self.decision_contours_ = [], [], []
        for index, axes in enumerate(self.axes_.flat):
            if index >= len(self.images):
                axes.set_axis_off()
                continue
            self._plot_one(axes, index, colours, norm, kind, opacity)
        self._plot_legend()
        if colorbar:
            self._plot_colorbar(colours, norm)
        return self

    def _scale(self):
        """Colours and norm of all maps."""
        from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize

        if self.threshold is None:
            inspected = [high for high in map(_highest, self.anomaly_maps) if np.isfinite(high)]
            highest = max(inspected, default=1)
            colours = LinearSegmentedColormap.from_list("anomaly", plain_colours() / 255)
            return colours, Normalize(0, highest)
        # Of an even number, half of them grey.
        places = (np.arange(512) + 0.5) / 256
        colours = ListedColormap(map_colours(places, 1.0) / 255, "anomaly")
        return colours, Normalize(0, 2 * self.threshold)

    def _plot_one(self, axes, index, colours, norm, kind, opacity):
        image, anomaly_map = self.images[index], self.anomaly_maps[index]
        if kind == "map":
            artist = axes.imshow(anomaly_map, cmap=colours, norm=norm)
        elif self.threshold is not None:
            artist = axes.imshow(overlay(image, anomaly_map, self.threshold, opacity))
        else:  # the more, the higher the map
            share = opacity * norm(np.nan_to_num(anomaly_map)).data[..., None]
            coloured = 255 * colours(norm(np.nan_to_num(anomaly_map)))[..., :3]
            mixed = ((1 - share) * image + share * coloured).astype(np.uint8)
            artist = axes.imshow(hatched(mixed, anomaly_map))
        axes.patch.set(**NOT_INSPECTED)  # seen where a map has no value
        self.images_.append(artist)
        mask = None if self.masks is None else self.masks[index]
        flagged = None
        if self.threshold is not None:
            flagged = np.nan_to_num(anomaly_map) > self.threshold
        self.decision_contours_.append(_contour(axes, flagged, "decision"))
        self.truth_contours_.append(_contour(axes, mask, "truth"))
        if self.regions is not None:
            _plot_p_values(axes, self.regions[index], anomaly_map.shape)
        height, width = anomaly_map.shape
        # Outlines would widen the axes.
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), xticks=[], yticks=[])
        name, verdict = self.names[index], self._verdict(index)
        score = f"{-self.scores[index]:.3g}" if np.isfinite(self.scores[index]) else "not inspected"
        axes.set_title(
            f"{name if len(name) <= _MAX_NAME else '…' + name[1 - _MAX_NAME:]}\n"
            f"{score}{verdict and ': '}{verdict}",
            fontsize="small",
            fontweight="bold" if verdict in ("anomalous", "found", "false alarm") else None,
            parse_math=False,  # a file may be called $1.png
        )  # fmt: skip

    def _verdict(self, index):
        """What is said of an image, by its score alone, or beside what is known of it."""
        if self.threshold is None:
            return "" if self.y is None else {1: "good", -1: "defective"}[self.y[index]]
        flagged = -self.scores[index] > self.threshold
        if self.y is None:
            return "anomalous" if flagged else "good"
        if self.y[index] == 1:
            return "false alarm" if flagged else "good"
        return "found" if flagged else "missed"

    def _plot_legend(self):
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        handles = [
            Line2D([], [], color=_STYLES[label]["colors"], linewidth=_STYLES[label]["linewidths"],
                   linestyle=linestyle, label={"decision": "flagged"}.get(label, label))
            for label, linestyle, contours in (
                ("decision", "-", self.decision_contours_),
                ("truth", (0, (2, 1.5)), self.truth_contours_),
            )
            if any(contour is not None for contour in contours)
        ]  # fmt: skip
        if any(np.isnan(anomaly_map).any() for anomaly_map in self.anomaly_maps):
            handles.append(Patch(label="not inspected", **NOT_INSPECTED))
        if handles:
            self.axes_[-1, 0].legend(
                handles=handles, loc="upper left", bbox_to_anchor=(0, 0), ncols=2, frameon=False,
                columnspacing=1, handlelength=1.6,
                fontsize="small", borderaxespad=0.3,
            )  # fmt: skip

    def _plot_colorbar(self, colours, norm):
        from matplotlib.cm import ScalarMappable

        scale = ScalarMappable(norm, colours)
        self.colorbar_ = self.figure_.colorbar(
            scale,
            ax=self.axes_,
            label="anomaly map",
            extend="neither" if self.threshold is None else "max",
            aspect=15 * len(self.axes_),
        )
        if self.threshold is not None:
            self.colorbar_.ax.axhline(self.threshold, color="black", linewidth=1.5)
            self.colorbar_.set_ticks([0, self.threshold, 2 * self.threshold])
            middle = f"threshold\n{self.threshold:.3g}"
            self.colorbar_.set_ticklabels(["0", middle, f"{2 * self.threshold:.3g}"])


def _contour(axes, region, style):
    """The outline of a region, closed along the edge of the image; None if it is empty."""
    if region is None or not region.any():
        return None
    places = [np.arange(-1, length + 1) for length in region.shape[::-1]]
    padded = np.pad(region.astype(float), 1)
    axes.contour(*places, padded, [0.5], colors="white", linewidths=2.4)
    return axes.contour(*places, padded, [0.5], **_STYLES[style])


def _plot_p_values(axes, regions, shape):
    """Write the p-values of the regions with the highest peaks beside their boxes."""
    from matplotlib.patheffects import withStroke

    for region in regions.nlargest(_MAX_P_VALUES, "peak").itertuples():
        is_at_top, is_at_right = region.top < 0.15 * shape[0], region.left > 0.6 * shape[1]
        below = region.bottom if region.bottom < 0.85 * shape[0] else 0
        axes.text(
            region.right if is_at_right else region.left,
            below if is_at_top else region.top,
            f"p = {region.p_value:.2g}",
            ha="right" if is_at_right else "left",
            va="top" if is_at_top else "bottom",
            fontsize="x-small",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _in_image(anomaly_map, window, shape, threshold):
    """A map in an image's pixels; a peak above the threshold is not lost between them."""
    if anomaly_map.shape == shape == window.resized:
        return anomaly_map
    in_image, highest = window.in_picture(anomaly_map, shape), _highest(anomaly_map)
    is_lost = threshold is not None and _highest(in_image) <= threshold < highest
    return with_peak(in_image, highest) if is_lost else in_image


def _small_mask(mask, shape):
    """A mask in a picture, in which a small defect is not lost."""
    whole = Window(mask.shape, (0, 0), mask.shape)
    return whole.in_picture(mask.astype(np.float32), shape) >= 0.5


def _highest(anomaly_map):
    """Of the pixels that were inspected; infinite if none was, which nobody calls good."""
    return float(np.nan_to_num(np.fmax.reduce(anomaly_map, axis=None), nan=np.inf, posinf=np.inf))


def _name(item, index):
    if isinstance(item, (str, os.PathLike)):
        return os.path.basename(os.fspath(item))
    return f"image {index}"
