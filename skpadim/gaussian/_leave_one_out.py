"""Distances of training samples to the Gaussians, fitted to all of them or without some.

A sample is left out alone, or with its group: with the other photographs of the same part, which
would otherwise vouch for it. In closed form, so nothing is fitted twice; for moments and for kept
samples. Free functions on torch tensors of any device, laid out as in `_mahalanobis`; `groups`
(n_samples,) are integers, None leaves out each sample alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from skpadim.calibration._training_samples import rows_by_group_size
from skpadim.gaussian._linalg import (
    check_digits,
    cholesky,
    each_block,
    gram_matrices,
    inverse_factors,
    large_blocks,
    not_positive_definite,
)
from skpadim.gaussian._mahalanobis import (
    centred_samples,
    kernel_cholesky,
    mahalanobis_distances,
    matrices_of,
    whitening_factors,
)
from skpadim.gaussian._moments import Moments, Samples

# Of a sample that makes nearly all of the covariance in its own direction, leaving it out leaves
# next to nothing: below this share float32 has too few digits.
_MIN_FLOAT32_REST = 0.05
# And below this one, to which the rounding errors of the factors and the mean come close, float64.
_MIN_REST = 1e-7
# The kernel's inverse has the distances in a difference to one, of which nothing is left if the
# samples hardly vary beside the regularisation.
_MIN_KERNEL_RATIO = 1e-6


def training_distances(
    state: Moments | Samples,
    embeddings: torch.Tensor,
    regularization: float,
    calibration: str,
    groups: np.ndarray | None = None,
) -> torch.Tensor:
    """Distances of all training samples in the way that `calibration` asks for.

    By the kernel of the samples if there are no more of them than features, by the covariances
    otherwise: each is singular in the other case, but for the regularisation. A LinAlgError says
    that float64 has too few digits for what is left of the covariances.
    """
    leave_one_out = calibration == "leave_one_out"
    # If one more is left out, the others leave a direction out.
    is_few = len(embeddings) <= embeddings.shape[2] + leave_one_out
    if is_few and not state.spread < _MIN_KERNEL_RATIO * regularization:
        samples = state if isinstance(state, Samples) else Samples(embeddings, limit=None)
        return low_rank_training_distances(samples, regularization, leave_one_out, groups)
    moments = state if isinstance(state, Moments) else Moments.of(embeddings)
    measure = TrainingDistances(moments, regularization, calibration, embeddings.dtype)
    return measure.distances(embeddings, groups)


def leave_one_out_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    factors: torch.Tensor,
    n_samples: int,
    regularization: float,
    exact_factors: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Distances of training embeddings to the Gaussians fitted without the sample itself.

    Taking one sample out of n, at least three, changes the scatter by a rank-one term, so no refit
    is needed: with ``δ = x - μ``, ``A = S / (n - 2) + λ I``, ``q = δᵀ A⁻¹ δ`` and
    ``c = n / ((n - 1) (n - 2))``, the Sherman-Morrison formula gives
    ``d² = (n / (n - 1))² q / (1 - c q)``.

    The embeddings are some of the samples, the mean is that of all, and `factors` are A's:
    :func:`whitening_factors` with n - 2 degrees of freedom. `exact_factors` gives those of some
    positions, by their indices, in float64, for the few where the embeddings' precision is not
    enough; without it `factors` are float64 themselves.
    """
    n, dtype = n_samples, embeddings.dtype
    q = mahalanobis_distances(embeddings, mean, factors).double() ** 2
    c = n / ((n - 1) * (n - 2))
    if dtype != torch.float64:
        few = (1 - c * q < _MIN_FLOAT32_REST).any(dim=0).nonzero()[:, 0]
        if len(few) > 0:
            few_factors = exact_factors(few) if exact_factors else factors[few]
            few_embeddings = embeddings[:, few].double()
            q[:, few] = mahalanobis_distances(few_embeddings, mean[few], few_factors) ** 2
    rest = 1 - c * q
    if not (rest >= _MIN_REST).all():
        raise not_positive_definite(regularization)
    return ((n / (n - 1)) ** 2 * q / rest).sqrt().to(dtype)


def leave_group_out_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    factors: torch.Tensor,
    n_samples: int,
    group_size: int,
    regularization: float,
    step: int = 1,
) -> torch.Tensor:
    """Distances of training embeddings to the Gaussians fitted without the sample's whole group.

    Without a group of k samples with centred rows Δ, ``n' = n - k`` samples are left, at least two.
    Their mean is ``μ - Δᵀ1 / n'`` and their scatter ``S - Δᵀ (I + 11ᵀ / n') Δ``, a change of rank
    k. With ``f = n' - 1``, ``W`` the inverse Cholesky factor of ``S / f + λ I``, ``Y = Δ Wᵀ``,
    ``V`` the same of the rows minus the mean that is left, and
    ``R = f (I - 11ᵀ / n) - Y Yᵀ = L Lᵀ``, the Woodbury identity (Woodbury, "Inverting modified
    matrices", Princeton, 1950) gives, for row j of the group, ``d² = ‖V_j‖² + ‖L⁻¹ Y V_jᵀ‖²``: a
    sum of squares, so no digits are lost where a distance is small.

    The embeddings are whole groups of size k, one after the other, and from the first of a group on
    every `step`-th is measured. The mean is that of all samples, and `factors` are W:
    :func:`whitening_factors` with f degrees of freedom, in float64. So is all else: a group can
    make most of the covariance, and R is a difference.
    """
    n_rows, n_positions, n_features = embeddings.shape
    rest, degrees_of_freedom = n_samples - group_size, n_samples - group_size - 1
    identity = torch.eye(group_size, dtype=torch.float64, device=embeddings.device)
    unchanged = degrees_of_freedom * (identity - 1 / n_samples)
    distances = embeddings.new_empty((n_rows // step, n_positions))

    def measure(block):
        centred = centred_samples(embeddings, mean, block)
        whitened = torch.bmm(centred, matrices_of(factors[block]).mT)
        rows = whitened.reshape(-1, group_size, n_features)  # (positions * groups, k, features)
        shifted = rows[:, ::step] + rows.sum(dim=1, keepdim=True) / rest
        lower = cholesky(unchanged - gram_matrices(rows), regularization)
        pivots = lower.diagonal(dim1=1, dim2=2).square()
        check_digits(degrees_of_freedom / pivots, regularization)
        changes = torch.linalg.solve_triangular(lower, torch.bmm(rows, shifted.mT), upper=False)
        squared = shifted.square().sum(dim=2) + changes.square().sum(dim=1)
        distances[:, block] = squared.sqrt().reshape(-1, len(distances)).T.to(distances.dtype)

    n_bytes = 8 * (n_rows * (4 * n_features + 4 * group_size) + n_features**2)
    each_block(measure, n_positions, n_bytes, embeddings.device)
    return distances


def low_rank_training_distances(
    state: Samples,
    regularization: float,
    leave_one_out: bool,
    groups: np.ndarray | None = None,
) -> torch.Tensor:
    """Distances of the samples to the Gaussians that are fitted to them, or to all but them.

    Of the kernel ``K = X Xᵀ + μ I`` with ``μ = λ f`` and f degrees of freedom, the diagonal of the
    inverse is enough: ``q = δᵀ (S / f + λ I)⁻¹ δ = f (1 - μ (K⁻¹)ᵢᵢ)``, by the Woodbury identity.
    f is n - 1, or n - 2 to go on as :func:`leave_one_out_distances` does.

    For a group of k samples it takes a block of the inverse, and f is n' - 1 of the n' = n - k
    samples that are left. In the terms of :func:`leave_group_out_distances`, with
    ``O = μ (K⁻¹)_GG - 11ᵀ / n``, ``R = f O`` and ``Y Yᵀ = f (I - 11ᵀ / n - O)``, so
    ``d² = f ((O⁻¹)_jj - 1 - 1 / n')``.
    """
    n, n_positions, n_features = state.rows.shape
    mean = state.mean
    distances = state.rows.new_empty((n, n_positions))
    rows_of = (
        {1: np.arange(n)} if groups is None or not leave_one_out else rows_by_group_size(groups)
    )
    degrees_of_freedom = {size: n - size - 1 if leave_one_out else n - 1 for size in rows_of}

    def measure(block):
        centred = centred_samples(state.rows, mean, block)
        lift = torch.linalg.vector_norm(centred, dim=2).square().mean(dim=1)
        for size, rows in rows_of.items():
            # Centring makes the vector of ones an eigenvector with eigenvalue μ, a share 1 / (n μ)
            # of each entry that would hide the rest of it. With a larger eigenvalue it does not.
            dof = degrees_of_freedom[size]
            ridge = regularization * dof
            factors = kernel_cholesky(centred, ridge, regularization, lift)
            pivots = factors.diagonal(dim1=1, dim2=2).square()
            check_digits(factors.square().sum(dim=2) / pivots, regularization)
            inverses = inverse_factors(factors)
            ones = 1 / (n * (ridge + lift))
            if size == 1:
                columns = inverses if len(rows) == n else inverses[:, :, rows]
                others = ridge * (columns.square().sum(dim=1) - ones[:, None])
                squared = dof * ((n - 1) / n - others)
                if leave_one_out:
                    # The denominator is 1 - c q.
                    squared = (n / (n - 1)) ** 2 * squared / (n / (n - 1) * others)
            else:
                squared = _low_rank_groups(inverses[:, :, rows], ones, regularization, n, size)
            distances[rows, block] = squared.clamp_(min=0).sqrt().T.to(distances.dtype)

    each_block(measure, n_positions, 8 * n * (n_features + 4 * n), mean.device)
    return distances


def _low_rank_groups(columns, ones, regularization, n_samples, size):
    """Squared distances (n_positions, n_rows) from the groups' columns of ``L⁻¹``, ``K = L Lᵀ``."""
    n_positions, _, n_rows = columns.shape
    degrees_of_freedom = n_samples - size - 1
    columns = columns.reshape(n_positions, n_samples, -1, size).transpose(1, 2)
    others = (
        regularization * degrees_of_freedom * (columns.mT @ columns - ones[:, None, None, None])
    )
    inverses = torch.cholesky_inverse(cholesky(others, regularization))
    diagonal = inverses.diagonal(dim1=2, dim2=3).reshape(n_positions, n_rows)
    return degrees_of_freedom * (diagonal - 1 - 1 / (n_samples - size))


@dataclass
class TrainingMeasure:
    """What measures training samples: the state, and factors that are kept for the next batch."""

    state: Moments | Samples
    regularization: float
    calibration: str
    _kept: tuple = field(default=(None, None), init=False, repr=False)  # of what, and the factors

    def to(self, device: torch.device) -> TrainingMeasure:
        """Return the same on another device; itself if it is there."""
        is_there = self.state.mean.device == device
        return self if is_there else replace(self, state=self.state.to(device))

    def __getstate__(self):
        return {**vars(self), "_kept": (None, None)}


@dataclass
class TrainingDistances(TrainingMeasure):
    """Distances of training samples to their moments' Gaussians, of all at once or of batches.

    Factors depend on how many samples are left out, and are built when they are needed: for all
    samples at once block by block of positions; for batches at all positions, those of one group
    size at a time. So groups in batches are best given sorted by size, which needs as many
    factorisations as there are sizes. Products are of `dtype`; where groups of several samples are
    left out, float64.

    Where the state is the samples themselves, :func:`low_rank_training_distances` has all of them
    at once.
    """

    dtype: torch.dtype

    def distances(self, embeddings: torch.Tensor, groups: np.ndarray | None = None) -> torch.Tensor:
        """Distances of some or all of the training samples.

        A group must be here whole: it cannot be told from what is here if others belong to it.
        """
        n = self.state.count
        if self.calibration != "leave_one_out":

            def measure(rows, mean, factors, exact_factors):
                return mahalanobis_distances(rows, mean, factors)

            return self._measure(embeddings, n - 1, self.dtype, measure)
        rows_of = {1: slice(None)} if groups is None else rows_by_group_size(groups)
        distances = embeddings.new_empty(embeddings.shape[:2])
        # Factors that are there already are used before they are replaced.
        for size in sorted(rows_of, key=lambda size: self._factors_for(size) != self._kept[0]):

            def measure(rows, mean, factors, exact_factors, size=size):
                if size == 1:
                    return leave_one_out_distances(
                        rows, mean, factors, n, self.regularization, exact_factors
                    )
                return leave_group_out_distances(rows, mean, factors, n, size, self.regularization)

            rows = rows_of[size]
            distances[rows] = self._measure(embeddings, *self._factors_for(size), measure, rows)
        return distances

    def _factors_for(self, size):
        """Degrees of freedom, and dtype of the factors, where groups of a size are left out."""
        return self.state.count - size - 1, self.dtype if size == 1 else torch.float64

    def _measure(self, embeddings, degrees_of_freedom, dtype, measure, rows=slice(None)):
        """Distances of some rows, `measure` being given rows, mean and factors of positions."""
        mean, scatter = self.state.mean, self.state.scatter
        n_positions, n_features = mean.shape

        def factors_of(of, dtype):
            return whitening_factors(of, degrees_of_freedom, self.regularization, dtype)

        def exactly(of):
            """Factors of those positions that float32 is not enough for, by their indices."""
            return lambda few: factors_of(of[few], torch.float64)

        if len(embeddings) < self.state.count:
            if self._kept[0] != (degrees_of_freedom, dtype):
                self._kept = (None, None)  # freed before the next are made
                self._kept = (degrees_of_freedom, dtype), factors_of(scatter, dtype)
            return measure(embeddings[rows], mean, self._kept[1], exactly(scatter))
        are_copied = not isinstance(rows, slice)
        # Without a sample or a group, little may be left beside what rounding has left of the mean.
        is_centred_anew = self.calibration == "leave_one_out" and dtype == torch.float64
        n_rows = len(rows) if are_copied else len(embeddings)
        distances = embeddings.new_empty((n_rows, n_positions))

        n_copied = n_rows * are_copied + len(embeddings) * is_centred_anew
        n_bytes = 8 * (n_features * (n_features + n_copied) + 4 * n_rows)
        for block in large_blocks(n_positions, n_bytes, mean.device):
            factors, exact = factors_of(scatter[block], dtype), exactly(scatter[block])
            samples, centre = embeddings[:, block], mean[block]
            if is_centred_anew:
                samples = samples.to(torch.float64) - centre
                samples -= samples.mean(dim=0)
                centre = torch.zeros_like(centre)
            distances[:, block] = measure(samples[rows], centre, factors, exact)
        return distances


def check_enough_samples(
    n_samples: int,
    calibration: str | None,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    least: int = 2,
) -> None:
    """Raise if there are fewer than `least` samples, or if they are without one, or a group.

    `labels` has the groups' names.
    """
    if n_samples < least:
        raise ValueError(f"At least {least} training samples are needed, found {n_samples}.")
    if calibration != "leave_one_out":
        return
    instead = "set calibration=None and call calibrate with other normal samples."
    if n_samples <= least:
        raise ValueError(
            f"calibration='leave_one_out' needs at least {least + 1} training samples, found "
            f"{n_samples}: give more, or {instead}"
        )
    if groups is None:
        return
    codes, counts = np.unique(groups, return_counts=True)
    largest = codes[counts.argmax()]
    label = str(largest if labels is None else labels[largest])
    if len(codes) == 1:
        raise ValueError(
            f"groups has one label for all {n_samples} training samples, {label!r}, and "
            "calibration='leave_one_out' leaves out whole groups: give samples of at least two "
            f"groups, or {instead}"
        )
    if n_samples - counts.max() < least:
        raise ValueError(
            f"The group {label!r} has {counts.max()} of the {n_samples} training samples, and "
            f"calibration='leave_one_out' needs at least {least} that are left without it: give "
            f"samples of more groups, or {instead}"
        )
