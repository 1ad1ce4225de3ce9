"""Counts in a histogram of fixed size, and bounds of what that does to the metrics.

The bins divide each octave of the scores alike, so that no range must be known beforehand. Within
a bin the order of the pixels is lost: they count as tied, and every metric has the bound that
follows from the best and the worst order they could have had.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from skpadim.metrics import _curves
from skpadim.metrics._counts import AnomalousPixels, Counts

# Magnitudes below 2**-32 share the bin of zero, those from 2**32 up the outermost ones.
_LOWEST_BITS = (127 - 32) << 23
_HIGHEST_BITS = (127 + 32) << 23
# 14 bits of the mantissa: 16,384 bins an octave, 16 MiB an array of counts.
_SHIFT = 23 - 14
_ZERO_BIN = (_HIGHEST_BITS - _LOWEST_BITS >> _SHIFT) + 1
N_BINS = 2 * _ZERO_BIN + 1
# Overlaps are summed in integers of this fraction of a region, since sums of integers, unlike
# those of floats, are the same in any order.
_REGION = 2**40
_CHUNK = 2**17


class Histogram:
    """Pixels counted in bins, and what the anomalous ones add to their regions' overlaps."""

    def __init__(self):
        self.normal = np.zeros(N_BINS, np.int64)
        self.anomalous = np.zeros(N_BINS, np.int64)
        self.overlap = np.zeros(N_BINS, np.int64)
        self.n_regions = 0

    def add(self, maps: np.ndarray, pixels: AnomalousPixels) -> None:
        """Add maps, and their anomalous pixels."""
        flat = maps.reshape(-1)
        for start in range(0, len(flat), _CHUNK):
            np.add.at(self.normal, bins_of(flat[start : start + _CHUNK]), np.int64(1))
        if not len(pixels.areas):
            return
        bins = bins_of(pixels.scores)
        counts = np.bincount(bins, minlength=N_BINS)
        self.normal -= counts
        self.anomalous += counts
        # Regions fill from the highest bin down; the rounded parts add up to the whole.
        region = np.repeat(np.arange(len(pixels.areas)), pixels.areas)
        entries, n_pixels = np.unique(region * N_BINS + (N_BINS - 1 - bins), return_counts=True)
        region, bins = entries // N_BINS, N_BINS - 1 - entries % N_BINS
        filled = np.cumsum(n_pixels) - (np.cumsum(pixels.areas) - pixels.areas)[region]
        level = np.rint(filled / pixels.areas[region] * _REGION).astype(np.int64)
        first = np.concatenate(([True], region[1:] != region[:-1]))
        lift = np.diff(level, prepend=0)
        lift[first] = level[first]
        np.add.at(self.overlap, bins, lift)
        self.n_regions += len(pixels.areas)

    def merge(self, other: Histogram) -> None:
        """Add another's counts."""
        self.normal += other.normal
        self.anomalous += other.anomalous
        self.overlap += other.overlap
        self.n_regions += other.n_regions

    def counts(self) -> Counts:
        """Counts with the lower edges of the bins that have anomalous pixels as thresholds."""
        used = np.flatnonzero(self.anomalous)
        above = np.cumsum(self.normal[::-1])[::-1] - self.normal
        return Counts(
            thresholds=lower_edges(used),
            anomalous=self.anomalous[used],
            overlap=self.overlap[used] / _REGION,
            normal_above=above[used],
            normal_tied=self.normal[used],
            n_normal=int(self.normal.sum()),
            n_regions=self.n_regions,
        )


def bins_of(scores: np.ndarray) -> np.ndarray:
    """Bin of each score; a higher score never has a lower bin."""
    with np.errstate(over="ignore"):  # beyond float32 is the outermost bin as well
        bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.int32)
    key = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))  # orders as the floats do
    low, high = np.int32(_LOWEST_BITS), np.int32(_HIGHEST_BITS)
    key = np.clip(key, -1 - high, high)
    # Closes the gap between -2**-32 and 2**-32; one of the two terms is always zero.
    key = np.maximum(key - low, 0) + np.minimum(key + (low + 1), 0)
    return (key >> _SHIFT).astype(np.int64) + _ZERO_BIN


def lower_edges(bins: np.ndarray) -> np.ndarray:
    """Lowest score of each bin, float32."""
    key = (bins - _ZERO_BIN) << _SHIFT
    key = np.where(key > 0, key + _LOWEST_BITS, key - _LOWEST_BITS - 1).astype(np.int32)
    bits = key ^ ((key >> 31) & np.int32(0x7FFFFFFF))
    edges = bits.view(np.float32)
    return np.where(bins == bins_of(np.float32([-np.inf]))[0], np.float32(-np.inf), edges)


def roc_auc_error(counts: Counts) -> float:
    """Bound: the pairs within a bin count half, and might count none or whole."""
    pairs = np.sum(counts.anomalous * (counts.normal_tied / counts.n_normal))
    return float(pairs / counts.anomalous.sum() / 2)


def average_precision_error(counts: Counts) -> float:
    """Bound, from each bin's pixels in the best and in the worst order."""
    # At best a bin's anomalous pixels are tied above its normal ones, and all have the precision
    # of the last; at worst they come one by one behind all normal ones, where the precision of
    # the k-th, (T + k) / (T + k + F), rises: its sum is at least its integral from zero, and at
    # least as many times the first.
    n_bin = counts.anomalous
    true = np.cumsum(n_bin[::-1])[::-1]  # with the bin
    false = counts.normal_above
    best = n_bin * (true / (true + false))
    true, false = true - n_bin, false + counts.normal_tied
    # Where T + F is zero the precision is one throughout, as the formula has it for F = 0.
    integral = n_bin - false * np.log1p(n_bin / np.maximum(true + false, 1))
    worst = np.maximum(integral, n_bin * ((true + 1) / (true + 1 + false)))
    estimate = _curves.average_precision(counts) * n_bin.sum()
    error = max(best.sum() - estimate, estimate - worst.sum())
    return float(error / n_bin.sum())


def f1_max_error(counts: Counts) -> float:
    """Bound: inside a bin, a threshold can at best take its anomalous pixels and no normal one."""
    true = np.cumsum(counts.anomalous[::-1])[::-1]
    best = 2 * true / (true + counts.normal_above + counts.anomalous.sum())
    return float(best.max() - _curves.f1_max(counts)[0])


def aupro_error(counts: Counts, max_fpr: float) -> float:
    """Bound: the curve lies between the corners of each bin's rectangle."""
    untied = np.zeros_like(counts.normal_tied)
    best, worst = (
        _curves.aupro(replace(counts, normal_above=above, normal_tied=untied), max_fpr)
        for above in (counts.normal_above, counts.normal_above + counts.normal_tied)
    )
    estimate = _curves.aupro(counts, max_fpr)
    return max(best - estimate, estimate - worst)
