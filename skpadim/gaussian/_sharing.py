"""Which positions have a Gaussian in common, and what that makes of moments and distances?

With ``sharing="neighbourhood"`` the Gaussian at a position is that of the embeddings there and at
the eight positions around, fewer at the grid's border. What is learned stays as it is, moments or
samples of each position, and is pooled when factors are made. With "image" all positions have one
Gaussian, and nothing is learned but that one's moments: a state of one position, whose samples are
the patches. "position" shares nothing; all else is as in `_mahalanobis` and `_leave_one_out`.

A grid is a bool array, True where there is a position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from skpadim.calibration._training_samples import rows_by_group_size
from skpadim.gaussian._leave_one_out import (
    TrainingDistances,
    TrainingMeasure,
    leave_group_out_distances,
    training_distances,
)
from skpadim.gaussian._linalg import (
    check_digits,
    diagonals,
    large_blocks,
    lower_triangles,
    triangle_size,
)
from skpadim.gaussian._mahalanobis import (
    Whitening,
    check_scorable,
    matrices_of,
    new_factors,
    whitening_factors,
    whitening_of,
)
from skpadim.gaussian._moments import Moments, Samples, state_of

SHARING = ("position", "neighbourhood", "image")
# Patches that are multiplied at a time: they stay in a core's cache.
_PATCHES_AT_ONCE = 1024
_PATCHES_AT_ONCE_ON_GPU = 2**17


class Measure(Protocol):
    """Whitenings, and what measures training samples, on some device."""

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Distances (n_samples, n_positions) of embeddings (n_samples, n_positions, n_features)."""

    def to(self, device: torch.device) -> Measure:
        """Return the same on another device."""


def state_to_share(
    embeddings: torch.Tensor, sharing: str, solver: str, *, copy: bool
) -> Moments | Samples:
    """Begin with a batch; see :func:`state_of`."""
    if sharing == "image":
        return patch_moments(embeddings)
    return state_of(embeddings, solver, copy=copy)


def patch_moments(embeddings: torch.Tensor) -> Moments:
    """Moments of all patches of some images, as those of one position."""
    n_features = embeddings.shape[-1]
    on_cpu = embeddings.device.type == "cpu"
    first, *others = embeddings.reshape(-1, 1, n_features).split(
        _PATCHES_AT_ONCE if on_cpu else _PATCHES_AT_ONCE_ON_GPU
    )
    moments = Moments.of(first)
    for patches in others:
        moments.update(patches)
    return moments


def neighbourhoods(grid: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield positions (n,) with equally many neighbours, and these (n, k), each itself the first.

    The grid is bool, True where there is a position; these are numbered row by row. Inside of a
    grid k is 9, at its edges 6, in its corners 4.
    """
    rows, columns = np.nonzero(grid)
    steps = np.array(sorted(np.ndindex(3, 3), key=lambda step: step != (1, 1)))
    numbers = np.full(np.add(grid.shape, 2), -1)
    numbers[rows + 1, columns + 1] = np.arange(len(rows))
    around = numbers[rows[:, None] + steps[:, 0], columns[:, None] + steps[:, 1]]
    counts = (around >= 0).sum(axis=1)
    for k in np.unique(counts):
        positions = np.flatnonzero(counts == k)
        near = around[positions]
        yield positions, near[near >= 0].reshape(len(positions), k)


def pooled_moments(state: Moments | Samples, near: np.ndarray) -> Moments:
    """Moments of the samples at the positions `near` (n, k), pooled: of n positions.

    By Chan's rule for sets of equal size m: the mean is that of the means, and the scatter is
    ``Σ S_j + m Σ (μ_j - μ) (μ_j - μ)ᵀ``.
    """
    if isinstance(state, Samples):
        there, index = np.unique(near, return_inverse=True)
        near = index.reshape(near.shape)
        state = Moments.of(state.rows[:, torch.from_numpy(there).to(state.rows.device)])
    index = torch.from_numpy(near).to(state.mean.device)
    pooled = Moments.of(state.mean[index].transpose(0, 1))  # as if the means were samples
    pooled.scatter *= state.count
    for column in index.T:
        pooled.scatter += state.scatter[column]
    pooled.count *= state.count
    return pooled


def pooled_means(mean: torch.Tensor, grid: np.ndarray) -> torch.Tensor:
    """Means of the neighbourhoods, of the means (n_positions, n_features) of the positions."""
    pooled = torch.empty_like(mean)
    for positions, near in neighbourhoods(grid):
        pooled[positions] = mean[torch.from_numpy(near).to(mean.device)].mean(dim=1)
    return pooled


def _neighbourhood_blocks(grid, n_features, device, n_rows=0):
    """Blocks of :func:`neighbourhoods`, for temporaries of their scatters and of so many rows."""
    for positions, near in neighbourhoods(grid):
        n_bytes = 8 * (2 * triangle_size(n_features) + n_rows * near.shape[1] * n_features)
        for block in large_blocks(len(positions), n_bytes, device):
            yield positions[block], near[block]


def all_moments(state: Moments | Samples, sharing: str, grid: np.ndarray) -> Iterator:
    """Yield positions and the moments of their Gaussians, some at a time."""
    (n_positions, n_features), device = state.mean.shape, state.mean.device
    if sharing == "neighbourhood":
        for positions, near in _neighbourhood_blocks(grid, n_features, device):
            yield positions, pooled_moments(state, near)
        return
    for block in large_blocks(n_positions, 16 * triangle_size(n_features), device):
        if isinstance(state, Samples):
            yield block, Moments.of(state.rows[:, block])
        else:
            yield block, Moments(state.count, state.mean[block], state.scatter[block])


class SharedWhitening(Whitening):
    """The factor of one covariance, and its mean (1, n_features), for all positions."""

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (n_samples, n_positions) of embeddings."""
        matrix = matrices_of(self.factors)[0]
        patches = embeddings.reshape(-1, embeddings.shape[-1])
        squared = torch.empty(len(patches), dtype=matrix.dtype, device=matrix.device)
        for block in large_blocks(len(patches), 16 * patches.shape[1], patches.device):
            # In float64: a mean rounded to float32 is off by more than samples far from 0 vary.
            difference = (patches[block] - self.mean).to(matrix.dtype)
            squared[block] = (difference @ matrix.T).square_().sum(dim=1)
        return squared.sqrt_().to(embeddings.dtype).reshape(embeddings.shape[:2])


def shared_whitening_of(
    state: Moments | Samples,
    sharing: str,
    grid: np.ndarray,
    regularization: float,
    dtype: torch.dtype,
) -> Measure:
    """Factors of the covariances, shared or not; see :func:`whitening_of`."""
    if sharing == "position":
        return whitening_of(state, regularization, dtype)
    if sharing == "image":
        # There is nothing to gain from a single factor in half precision.
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        whitening = whitening_of(state, regularization, exact)
        return SharedWhitening(whitening.mean, whitening.factors)
    mean = torch.empty_like(state.mean)
    learned = state.rows if isinstance(state, Samples) else state.scatter
    factors = new_factors(*mean.shape, dtype, learned)
    for positions, moments in all_moments(state, sharing, grid):
        part = whitening_of(moments, regularization, dtype)
        if part.factors.dtype != dtype:  # which has too few digits
            return shared_whitening_of(state, sharing, grid, regularization, torch.float64)
        mean[positions], factors[positions] = part.mean, part.factors
    return Whitening(mean, factors)


def check_shared_scorable(
    state: Moments | Samples, sharing: str, grid: np.ndarray, regularization: float
) -> None:
    """Raise what :func:`shared_whitening_of` would raise; see :func:`check_scorable`."""
    if sharing != "neighbourhood":
        check_scorable(state, regularization)
        return
    for _, moments in all_moments(state, sharing, grid):
        check_scorable(moments, regularization)


def least_pool(sharing: str, grid: np.ndarray) -> int:
    """How many embeddings of one sample a Gaussian learns from, at the least."""
    if sharing == "position":
        return 1
    if sharing == "image":
        return int(grid.sum())
    return min(near.shape[1] for _, near in neighbourhoods(grid))


def shared_training_distances(
    state: Moments | Samples,
    embeddings: torch.Tensor,
    sharing: str,
    grid: np.ndarray,
    regularization: float,
    calibration: str,
    groups: np.ndarray | None = None,
) -> torch.Tensor:
    """Distances of all training samples; see :func:`training_distances`."""
    if sharing == "position":
        return training_distances(state, embeddings, regularization, calibration, groups)
    measure = training_measure(state, sharing, grid, regularization, calibration, embeddings.dtype)
    return measure.distances(embeddings, groups)


def training_measure(
    state: Moments | Samples,
    sharing: str,
    grid: np.ndarray,
    regularization: float,
    calibration: str,
    dtype: torch.dtype,
) -> Measure:
    """What gives distances of training samples, all or batches; moments if nothing is shared."""
    if sharing == "position":
        return TrainingDistances(state, regularization, calibration, dtype)
    if sharing == "image":
        return PatchTrainingDistances(state, regularization, calibration)
    return NeighbourhoodTrainingDistances(state, regularization, calibration, grid)


@dataclass
class NeighbourhoodTrainingDistances(TrainingMeasure):
    """Distances of training samples to the neighbourhoods' Gaussians, of all or of batches.

    A sample that is left out takes all its embeddings of a neighbourhood with it. They are a group
    of :func:`leave_group_out_distances`: of g samples left out together, one of g k embeddings.
    """

    grid: np.ndarray

    def distances(self, embeddings: torch.Tensor, groups: np.ndarray | None = None) -> torch.Tensor:
        """Distances of some or all of the training samples; a group must be here whole."""
        if self.calibration != "leave_one_out":
            return self._of_all(embeddings.dtype).distances(embeddings)
        codes = np.arange(len(embeddings)) if groups is None else groups
        distances = embeddings.new_empty(embeddings.shape[:2])
        n = self.state.count
        for size, rows in rows_by_group_size(codes).items():
            for positions, near, mean, factors in self._without(size, len(embeddings)):
                k = near.shape[1]
                # A sample's embeddings one after the other: (n_rows * k, n, n_features).
                there = embeddings[rows[:, None, None], near.T].flatten(0, 1)
                distances[rows[:, None], positions] = leave_group_out_distances(
                    there, mean, factors, n * k, size * k, self.regularization, step=k
                )
        return distances

    def _of_all(self, dtype):
        if self._kept[0] != dtype:
            whitening = shared_whitening_of(
                self.state, "neighbourhood", self.grid, self.regularization, dtype
            )
            self._kept = dtype, whitening
        return self._kept[1]

    def _without(self, size, n_rows):
        """Positions, neighbours, means and factors, where groups of a size are left out."""
        if n_rows == self.state.count:  # all at once, and these factors only now
            return self._make_without(size, n_rows)
        if self._kept[0] != size:
            self._kept = (None, None)  # freed before the next are made
            self._kept = size, list(self._make_without(size, n_rows))
        return self._kept[1]

    def _make_without(self, size, n_rows):
        n, n_features, device = self.state.count, self.state.mean.shape[1], self.state.mean.device
        for positions, near in _neighbourhood_blocks(self.grid, n_features, device, n_rows):
            moments = pooled_moments(self.state, near)
            factors = whitening_factors(
                moments.scatter,
                (n - size) * near.shape[1] - 1,
                self.regularization,
                torch.float64,
            )
            yield positions, near, moments.mean, factors


class PatchTrainingDistances(TrainingMeasure):
    """Distances of training samples to the one Gaussian of all patches, of all or of batches.

    A sample that is left out takes its own moments with it, by Chan's rule undone, and what is left
    is factorised: one matrix a sample, or a group.
    """

    def distances(self, embeddings: torch.Tensor, groups: np.ndarray | None = None) -> torch.Tensor:
        """Distances of some or all of the training samples; a group must be here whole."""
        if self.calibration != "leave_one_out":
            whitening = shared_whitening_of(
                self.state, "image", None, self.regularization, embeddings.dtype
            )
            return whitening.distances(embeddings)
        distances = embeddings.new_empty(embeddings.shape[:2])
        codes = np.arange(len(embeddings)) if groups is None else groups
        order = np.argsort(codes, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
            rest = moments_without(self.state, patch_moments(embeddings[rows]))
            whitening = self._whitening(rest, embeddings.dtype)
            distances[rows] = whitening.distances(embeddings[rows])
        return distances

    def _whitening(self, rest, dtype):
        degrees_of_freedom = rest.count - 1
        factors = whitening_factors(rest.scatter, degrees_of_freedom, self.regularization, dtype)
        # What is left is a difference, to the digits that the whole has.
        whole = diagonals(self.state.scatter) / degrees_of_freedom + self.regularization
        scales = matrices_of(factors).diagonal(dim1=1, dim2=2).double()
        check_digits(whole * scales.square(), self.regularization)
        return SharedWhitening(rest.mean, factors)


def moments_without(moments: Moments, part: Moments) -> Moments:
    """Moments of the samples that are not in a part of them: Chan's rule undone.

    With n samples, m of them in the part and r = n - m left, ``μ_r = μ - (m / r) (μ_m - μ)`` and
    ``S_r = S - S_m - (n m / r) (μ_m - μ) (μ_m - μ)ᵀ``.
    """
    n, m = moments.count, part.count
    shift = part.mean - moments.mean
    between = lower_triangles(shift[:, :, None] * shift[:, None, :]) * (n * m / (n - m))
    mean = moments.mean - shift * (m / (n - m))
    return Moments(n - m, mean, moments.scatter - part.scatter - between)
