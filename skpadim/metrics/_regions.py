"""Connected regions of masks.

Regions are found from runs, the stretches of anomalous pixels within rows: there are far fewer of
them than pixels, and all images of a batch are handled in one go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass
class Regions:
    """The regions of a batch of masks, in the order of their first pixels; all are int64."""

    areas: np.ndarray  # number of pixels of each
    images: np.ndarray  # index of the image each lies in
    positions: np.ndarray  # indices of the first region's pixels in the flattened masks, ...


def find_regions(masks: np.ndarray, connectivity: int = 8) -> Regions:
    """Find the connected regions of C-contiguous masks (n, height, width) of bool."""
    _, height, width = masks.shape
    rows, starts, stops = _runs(masks.reshape(-1), width)
    labels = _label_runs(rows, starts, stops, height, width, connectivity)
    n_regions = labels.max() + 1 if len(labels) else 0
    order = np.argsort(labels, kind="stable")
    lengths = (stops - starts)[order]
    areas = np.bincount(labels, weights=stops - starts, minlength=n_regions).astype(np.int64)
    first_runs = np.searchsorted(labels[order], np.arange(n_regions))
    images = rows[order][first_runs] // height if n_regions else np.zeros(0, np.int64)
    # Positions of all runs' pixels without a loop: a range, shifted run by run.
    before = np.cumsum(lengths) - lengths
    positions = np.repeat((rows * width + starts)[order] - before, lengths)
    positions += np.arange(len(positions))
    return Regions(areas, images, positions)


def _runs(mask, width):
    """Row, first column and column behind the last of each run, in order."""
    # Where a pixel differs from the one before it, a stretch starts or stops.
    changes = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    ends = np.concatenate(([0] if mask[0] else [], changes, [len(mask)] if mask[-1] else []))
    starts, stops = ends.astype(np.int64).reshape(-1, 2).T
    # Stretches go on from one row into the next: cut them at the end of each.
    first, last = starts // width, (stops - 1) // width
    n_rows = last - first + 1
    rows = np.repeat(first - (np.cumsum(n_rows) - n_rows), n_rows) + np.arange(n_rows.sum())
    starts = np.maximum(np.repeat(starts, n_rows), rows * width) - rows * width
    stops = np.minimum(np.repeat(stops, n_rows), (rows + 1) * width) - rows * width
    return rows, starts, stops


def _label_runs(rows, starts, stops, height, width, connectivity):
    """Region of each run: runs of neighbouring rows that overlap are connected."""
    if not len(rows):
        return np.zeros(0, np.int64)
    # One axis for all rows, two columns apart so that runs of different rows never touch, with an
    # empty row between images. The runs that one touches in the row below are then consecutive.
    stride = width + 2
    offsets = (rows + rows // height) * stride
    first, behind = starts + offsets, stops + offsets
    if connectivity == 8:
        lower = np.searchsorted(behind, first + stride, side="left")
        upper = np.searchsorted(first, behind + stride, side="right")
    else:
        lower = np.searchsorted(behind, first + stride, side="right")
        upper = np.searchsorted(first, behind + stride, side="left")
    n_below = np.maximum(upper - lower, 0)
    above = np.repeat(np.arange(len(rows)), n_below)
    below = np.repeat(lower - (np.cumsum(n_below) - n_below), n_below) + np.arange(len(above))
    graph = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(len(rows), len(rows)))
    _, labels = connected_components(graph.tocsr(), directed=False)
    return labels.astype(np.int64)
