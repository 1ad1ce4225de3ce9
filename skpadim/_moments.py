"""Moments of one Gaussian per patch position, and the distances that follow from them.

Free functions on torch tensors of any device, embeddings laid out as
``(n_samples, n_positions, n_features)``. Nothing here knows of images or networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

# Positions are worked through in blocks whose temporaries take about this many bytes: large
# enough for the batched kernels, small enough for the caches and for a small GPU.
_BLOCK_BYTES = 32 * 2**20


@dataclass
class Moments:
    """Sufficient statistics of one Gaussian per position.

    Attributes
    ----------
    count : int
        Number of samples.
    mean : tensor of shape (n_positions, n_features), float64
    scatter : tensor of shape (n_positions, n_features, n_features), float64
        Sum of the outer products of the centred samples. Only the lower triangle is read.
    """

    count: int
    mean: torch.Tensor
    scatter: torch.Tensor

    @classmethod
    def of(cls, embeddings: torch.Tensor) -> Moments:
        """Moments of a batch of shape (n_samples, n_positions, n_features)."""
        _, n_positions, n_features = embeddings.shape
        empty = cls(
            0,
            embeddings.new_zeros((n_positions, n_features), dtype=torch.float64),
            embeddings.new_zeros((n_positions, n_features, n_features), dtype=torch.float64),
        )
        return empty.update(embeddings)

    def update(self, embeddings: torch.Tensor) -> Moments:
        """Add a batch of shape (n_samples, n_positions, n_features), in place.

        The batch is centred on its own mean before it is added, by Chan's rule [1]_: sums of raw
        squares would lose the digits that the covariance consists of.

        References
        ----------
        .. [1] Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing
           sample variances", COMPSTAT 1982.
        """
        n_samples, n_positions, n_features = embeddings.shape
        total = self.count + n_samples
        # The rank-one term of Chan's rule rides along as one more centred row.
        rank_one = (self.count * n_samples / total) ** 0.5
        for block in _blocks(n_positions, 8 * (n_samples + 1) * n_features):
            batch = embeddings[:, block].transpose(0, 1).to(torch.float64)
            batch_mean = batch.mean(dim=1)
            shift = batch_mean - self.mean[block]
            rows = torch.empty(
                (len(batch), n_samples + 1, n_features), dtype=torch.float64, device=batch.device
            )
            torch.sub(batch, batch_mean[:, None], out=rows[:, :n_samples])
            torch.mul(shift, rank_one, out=rows[:, n_samples])
            self.scatter[block].baddbmm_(rows.mT, rows)
            self.mean[block] += shift * (n_samples / total)
        self.count = total
        return self

    def merge(self, other: Moments) -> Moments:
        """Add the moments of other samples, in place (Chan's rule)."""
        total = self.count + other.count
        shift = other.mean.to(self.mean.device) - self.mean
        self.scatter += other.scatter.to(self.scatter.device)
        self.scatter.baddbmm_(
            shift[:, :, None] * (self.count * other.count / total), shift[:, None, :]
        )
        self.mean += shift * (other.count / total)
        self.count = total
        return self

    def copy(self) -> Moments:
        """Return the same moments in memory of their own."""
        return Moments(self.count, self.mean.clone(), self.scatter.clone())

    def to(self, device: torch.device) -> Moments:
        """Return the same moments on another device."""
        return Moments(self.count, self.mean.to(device), self.scatter.to(device))


def covariance_cholesky(
    scatter: torch.Tensor, degrees_of_freedom: int, regularization: float, dtype: torch.dtype
) -> torch.Tensor:
    """Lower Cholesky factors of ``scatter / degrees_of_freedom + regularization * I``.

    Parameters
    ----------
    scatter : tensor of shape (n_positions, n_features, n_features), float64
    degrees_of_freedom : int
        ``n_samples - 1`` for the unbiased covariance.
    regularization : float
        The paper's ε, added to the diagonal, in the features' units squared.
    dtype : torch.dtype
        Of the result; the factorisation itself is done in float64.

    Returns
    -------
    cholesky : tensor of shape (n_positions, n_features, n_features)
    """
    n_features = scatter.shape[-1]
    # Column by column, as LAPACK returns factors and takes them for the solves.
    cholesky = torch.empty_like(scatter, dtype=dtype, memory_format=torch.contiguous_format).mT
    for block in _blocks(len(scatter), 2 * 8 * n_features**2):
        covariance = scatter[block] / degrees_of_freedom
        covariance.diagonal(dim1=1, dim2=2).add_(regularization)
        factor, info = torch.linalg.cholesky_ex(covariance)
        if info.any():
            raise np.linalg.LinAlgError(
                "A covariance matrix is not positive definite: there are too few samples, or "
                f"features that depend on each other, for regularization={regularization!r}. "
                "Use a larger regularization."
            )
        cholesky[block] = factor
    return cholesky


def mahalanobis_distances(
    embeddings: torch.Tensor, mean: torch.Tensor, cholesky: torch.Tensor
) -> torch.Tensor:
    """Mahalanobis distance of each embedding to its position's Gaussian (the paper's eq. 2).

    Parameters
    ----------
    embeddings : tensor of shape (n_samples, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features)
    cholesky : tensor of shape (n_positions, n_features, n_features)
        Lower factors of the covariances. Their dtype is that of the arithmetic.

    Returns
    -------
    distances : tensor of shape (n_samples, n_positions), of the factors' dtype
        Not squared; the square root of ``δᵀ Σ⁻¹ δ = ‖L⁻¹ δ‖²``.
    """
    n_samples, n_positions, n_features = embeddings.shape
    dtype = cholesky.dtype
    mean = mean.to(dtype)
    distances = embeddings.new_empty((n_samples, n_positions), dtype=dtype)
    for block in _blocks(n_positions, 8 * n_samples * n_features):
        difference = (embeddings[:, block].to(dtype) - mean[block]).permute(1, 2, 0)
        whitened = torch.linalg.solve_triangular(cholesky[block], difference, upper=False)
        distances[:, block] = torch.linalg.vector_norm(whitened, dim=1).T
    return distances


def leave_one_out_distances(
    embeddings: torch.Tensor, mean: torch.Tensor, cholesky: torch.Tensor, n_samples: int
) -> torch.Tensor:
    """Distances of training embeddings to the Gaussians fitted without the sample itself.

    Taking one sample out changes the scatter by a rank-one term, so no refit is needed: with
    ``δ = x - μ``, ``A = S / (n - 2) + λ I``, ``q = δᵀ A⁻¹ δ`` and ``c = n / ((n - 1) (n - 2))``,
    the Sherman-Morrison formula gives ``d² = (n / (n - 1))² q / (1 - c q)``.

    Parameters
    ----------
    embeddings : tensor of shape (n_embeddings, n_positions, n_features)
        Some of the training samples.
    mean : tensor of shape (n_positions, n_features)
        Of all training samples.
    cholesky : tensor of shape (n_positions, n_features, n_features)
        Factors of A in float64: :func:`covariance_cholesky` with ``n_samples - 2`` degrees of
        freedom.
    n_samples : int
        Number of all training samples, at least three.

    Returns
    -------
    distances : tensor of shape (n_embeddings, n_positions)
    """
    n = n_samples
    # 1 - c q cancels where the sample itself makes much of the covariance, as with few samples of
    # many features: in float32 nothing might be left of it.
    q = mahalanobis_distances(embeddings, mean, cholesky) ** 2
    without_self = (n / (n - 1)) ** 2 * q / (1 - n / ((n - 1) * (n - 2)) * q)
    return without_self.sqrt().to(embeddings.dtype)


class TrainingDistances:
    """Distances of training samples in the way that `calibration` asks for.

    Built once from the moments of all samples, then called on the samples in batches.
    """

    def __init__(self, moments: Moments, regularization: float, calibration: str, dtype):
        self.leave_one_out = calibration == "leave_one_out"
        if self.leave_one_out and moments.count < 3:
            raise ValueError(
                f"calibration='leave_one_out' needs at least 3 training samples, found "
                f"{moments.count}: give more, or set calibration=None and call calibrate with "
                "other normal samples."
            )
        self.moments = moments
        degrees_of_freedom = moments.count - (2 if self.leave_one_out else 1)
        self.cholesky = covariance_cholesky(
            moments.scatter,
            degrees_of_freedom,
            regularization,
            torch.float64 if self.leave_one_out else dtype,
        )

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (n_embeddings, n_positions, n_features) to (n_embeddings, n_positions)."""
        if self.leave_one_out:
            return leave_one_out_distances(
                embeddings, self.moments.mean, self.cholesky, self.moments.count
            )
        return mahalanobis_distances(embeddings, self.moments.mean, self.cholesky)


def _blocks(n_positions: int, bytes_per_position: int) -> list[slice]:
    """Slices of the positions whose temporaries fit the block size."""
    size = max(1, _BLOCK_BYTES // bytes_per_position)
    return [slice(start, start + size) for start in range(0, n_positions, size)]
