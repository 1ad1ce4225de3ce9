"""What a model expects, and where it is strict."""

from __future__ import annotations

import numpy as np

from skpadim.gaussian._patch_gaussian import on_grid, variances_in
from skpadim.plotting._axes import NOT_INSPECTED, grid_of_axes, import_pyplot


class PatchGaussianDisplay:
    """Where a fitted model is strict and where it is lax, and what it expects at one position.

    At the left, how much the features of good parts vary at each position: the root of their mean
    variance. Where it is small the model is strict: a small change makes a large distance. At the
    right, the mean of each feature at one position, and one standard deviation about it. Use
    :meth:`from_estimator` to make one.

    Parameters
    ----------
    location : ndarray of shape (height, width, n_features)
        Mean at each position; NaN where there is no Gaussian, which is hatched.
    variances : ndarray of shape (height, width, n_features)
        Variance of each feature at each position, the regularization included.
    position : (row, column), default=None
        Of the grid, that the right-hand plot shows. None for where good parts vary most.

    Attributes
    ----------
    spread : ndarray of shape (height, width)
        What the left-hand plot shows, in the features' units.
    axes_ : ndarray of shape (2,) of matplotlib Axes
    figure_ : matplotlib Figure
    image_ : matplotlib AxesImage
        Of `spread`.
    colorbar_ : matplotlib Colorbar
    line_ : matplotlib Line2D
        Means of the features at the position.
    band_ : matplotlib FillBetweenPolyCollection
        One standard deviation about them.
    overall_line_ : matplotlib Line2D
        Means over all positions.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim import PatchGaussian
    >>> from skpadim.plotting import PatchGaussianDisplay
    >>> good = np.random.default_rng(0).normal(size=(50, 4, 4, 3))
    >>> good[:, 1, 2] *= 5                             # where good parts differ
    >>> display = PatchGaussianDisplay.from_estimator(PatchGaussian().fit(good))
    >>> display.position
    (1, 2)
    """

    def __init__(self, location, variances, *, position=None):
        self.location = np.asarray(location)
        self.variances = np.asarray(variances)
        if self.location.ndim != 3 or self.location.shape != self.variances.shape:
            raise ValueError(
                f"location has shape {self.location.shape} and variances {self.variances.shape}; "
                "both must be (height, width, n_features): Gaussians of plain features have no "
                "positions to show."
            )
        self.spread = np.sqrt(self.variances.mean(axis=-1))
        grid = self.spread.shape
        if position is None:
            position = np.unravel_index(np.nanargmax(self.spread), grid)
        if not all(0 <= place < length for place, length in zip(position, grid, strict=True)):
            raise ValueError(
                f"position={position!r} must be a row and a column of the grid, which is "
                f"{grid[0]} x {grid[1]}."
            )
        self.position = tuple(map(int, position))

    @classmethod
    def from_estimator(cls, detector, *, position=None, ax=None, **kwargs):
        """Draw what a model has learned.

        Parameters
        ----------
        detector : PadimDetector, PatchGaussian, or a pipeline that ends in one
            Fitted.
        position : (row, column), default=None
            As of the class.
        ax : Axes, array of two Axes, default=None
            As for :meth:`plot`.
        **kwargs : dict
            Of :meth:`plot`.

        Returns
        -------
        display : PatchGaussianDisplay
        """
        import_pyplot(f"{cls.__name__}.from_estimator")
        last = detector.steps[-1][1] if hasattr(detector, "steps") else detector
        gaussian = getattr(last, "gaussian_", last)
        values = gaussian.location_, variances_in(gaussian)
        display = cls(*(on_grid(gaussian, each) for each in values), position=position)
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, *, cmap="cividis"):
        """Draw both plots.

        Parameters
        ----------
        ax : Axes, array of two Axes, default=None
            One is divided. None makes a figure.
        cmap : str or Colormap, default="cividis"
            Of the left-hand plot; this one is read in grey too.

        Returns
        -------
        self : PatchGaussianDisplay
        """
        axes = grid_of_axes(ax, (1, 2), (9, 3.8), f"{type(self).__name__}.plot")[0]
        self.axes_, self.figure_ = axes, axes[0].figure
        row, column = self.position
        self.image_ = axes[0].imshow(self.spread, cmap=cmap)
        if np.isnan(self.spread).any():
            axes[0].set_title("hatched: not inspected")
            axes[0].patch.set(**NOT_INSPECTED)
        self.colorbar_ = self.figure_.colorbar(
            self.image_, ax=axes[0], label="strict        standard deviation        lax"
        )
        for colour, width in (("white", 4), ("black", 1.5)):
            axes[0].plot(column, row, "s", markersize=9, fillstyle="none", color=colour,
                         markeredgewidth=width)  # fmt: skip
        axes[0].set(xlabel="Column of the grid", ylabel="Row of the grid")
        axes[0].locator_params(integer=True)
        mean, sd = self.location[row, column], np.sqrt(self.variances[row, column])
        features = np.arange(len(mean))
        self.band_ = axes[1].fill_between(
            features, mean - sd, mean + sd, color="#9ecae1", label="± one standard deviation"
        )
        (self.line_,) = axes[1].plot(features, mean, color="black", linewidth=1, label="mean here")
        (self.overall_line_,) = axes[1].plot(
            features,
            np.nanmean(self.location, axis=(0, 1)),
            color="#d55e00",
            linestyle=":",
            label="mean over all positions",
        )
        axes[1].set(
            title=f"expected at row {row}, column {column}", xlabel="Feature", ylabel="Value"
        )
        axes[1].legend(fontsize="small")
        return self
