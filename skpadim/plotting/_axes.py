"""Where displays draw: in axes of the caller's, or of a new figure; and what shows through."""

from __future__ import annotations

import numpy as np

# Of a patch that shows where there is nothing to show.
NOT_INSPECTED = {"facecolor": "0.75", "edgecolor": "0.95", "hatch": "////", "linewidth": 0}


def import_pyplot(caller: str):
    """``matplotlib.pyplot``, or an error that says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'{caller} needs matplotlib: pip install "skpadim[plot]"') from error
    return plt


def one_axes(ax, caller: str):
    """The axes given, or those of a new figure."""
    plt = import_pyplot(caller)
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def grid_of_axes(ax, shape: tuple[int, int], figsize: tuple[float, float], caller: str):
    """Axes (n_rows, n_columns): of a new figure, as many as are given, or inside of one given."""
    plt = import_pyplot(caller)
    if ax is None:
        return plt.subplots(*shape, figsize=figsize, layout="constrained", squeeze=False)[1]
    given = np.asarray(ax, dtype=object)
    if given.size == shape[0] * shape[1]:
        return given.reshape(shape)
    if given.size > 1:
        raise ValueError(f"ax has {given.size} axes; {shape[0]} x {shape[1]} are needed, or one.")
    place = given.item().get_subplotspec()
    if place is None:
        raise ValueError("ax must be a subplot (plt.subplots), to be divided into several axes.")
    given.item().set_axis_off()
    return place.subgridspec(*shape).subplots(squeeze=False)
