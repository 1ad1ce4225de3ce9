"""From moments or samples to factors of the covariances, and to Mahalanobis distances.

Free functions on torch tensors of any device, embeddings laid out as
``(n_samples, n_positions, n_features)``. Nothing here knows of images or networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from skpadim._blocks import each_block
from skpadim._moments import Moments, Samples

# The low-rank form subtracts squared lengths in units of the regularisation. Above this ratio
# float32 would keep too few digits of the difference, and the distances are computed in float64.
_MAX_FLOAT32_RATIO = 1000.0
# Of a sample that makes nearly all of the covariance in its own direction, leaving it out leaves
# next to nothing: below this share float32 has too few digits.
_MIN_FLOAT32_REST = 0.05
# A factor is half zeros. On a CPU it is kept as strips of rows that end at the diagonal, at most so
# many and none lower than that: one image at a time waits for the memory that factors are read
# from. Flatter strips leave out more zeros, and their products are too small to be quick.
_MAX_STRIPS = 8
_MIN_STRIP_ROWS = 32


@dataclass
class Whitening:
    """Factors of the covariances: ``d² = ‖W δ‖²`` with ``W = L⁻¹`` and ``L Lᵀ = Σ``.

    Attributes
    ----------
    mean : tensor of shape (n_positions, n_features)
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
        Of the rows of W, without the columns that are zero in all rows of the strip. Their dtype is
        that of the products.
    """

    mean: torch.Tensor
    strips: list[torch.Tensor]

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (n_samples, n_positions) of embeddings (the paper's eq. 2)."""
        return mahalanobis_distances(embeddings, self.mean, self.strips)


@dataclass
class LowRankWhitening:
    """Factors of covariances of few samples: ``d² = (‖δ‖² - ‖W δ‖²) / λ``, exactly.

    With centred samples X (n x D), ``Σ = XᵀX / (n - 1) + λ I``. By the Woodbury identity
    ``Σ⁻¹ = (I - Xᵀ K⁻¹ X) / λ`` with ``K = X Xᵀ + λ (n - 1) I``, so ``W = L⁻¹ X`` with
    ``L Lᵀ = K``.

    Attributes
    ----------
    mean : tensor of shape (n_positions, n_features)
    matrices : tensor of shape (n_positions, n_samples, n_features)
    regularization : float
    """

    mean: torch.Tensor
    matrices: torch.Tensor
    regularization: float

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (n_samples, n_positions) of embeddings (the paper's eq. 2)."""
        return low_rank_distances(embeddings, self.mean, self.matrices, self.regularization)


def whitening_of(
    state: Moments | Samples, regularization: float, dtype: torch.dtype
) -> Whitening | LowRankWhitening:
    """Factors that :meth:`distances` needs, for products in `dtype`.

    Parameters
    ----------
    state : Moments or Samples
        Of at least two samples.
    regularization : float
        The paper's ε, added to the diagonal of the covariances, in the features' units squared.
    dtype : torch.dtype
        bfloat16 holds the factors of moments in half the memory of float32, and reads them in half
        the time; those of samples, which lie in a difference, are kept in float32 then.

    Returns
    -------
    whitening : Whitening or LowRankWhitening
    """
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    if isinstance(state, Moments):
        strips = whitening_strips(state.scatter, state.count - 1, regularization, dtype)
        return Whitening(state.mean.to(exact), strips)
    mean = state.mean
    if _squared_radius(state.rows, mean) > _MAX_FLOAT32_RATIO * regularization:
        exact = torch.float64
    matrices = low_rank_matrices(state.rows, mean, regularization, exact)
    return LowRankWhitening(mean.to(exact), matrices, regularization)


def whitening_strips(
    scatter: torch.Tensor, degrees_of_freedom: int, regularization: float, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Inverse Cholesky factors of ``scatter / degrees_of_freedom + regularization * I``.

    Parameters
    ----------
    scatter : tensor of shape (n_positions, n_features, n_features), float64
    degrees_of_freedom : int
        ``n_samples - 1`` for the unbiased covariance.
    regularization : float
    dtype : torch.dtype
        Of the result; it is computed in float64.

    Returns
    -------
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
        See :class:`Whitening`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite.
    """
    n_positions, n_features, _ = scatter.shape
    strips = [
        scatter.new_empty((n_positions, stop - start, stop), dtype=dtype)
        for start, stop in _strip_rows(n_features, scatter.device)
    ]
    identity = torch.eye(n_features, dtype=torch.float64, device=scatter.device)

    def invert(block):
        covariance = scatter[block] / degrees_of_freedom
        covariance.diagonal(dim1=1, dim2=2).add_(regularization)
        factors = _cholesky(covariance, regularization)
        inverses = torch.linalg.solve_triangular(factors, identity, upper=False)
        for strip in strips:
            n_rows, stop = strip.shape[1:]
            strip[block] = inverses[:, stop - n_rows : stop, :stop]

    each_block(invert, n_positions, 3 * 8 * n_features**2, scatter.device)
    return strips


def low_rank_matrices(
    rows: torch.Tensor, mean: torch.Tensor, regularization: float, dtype: torch.dtype
) -> torch.Tensor:
    """``W = L⁻¹ X`` of :class:`LowRankWhitening`.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features), float64
    regularization : float
    dtype : torch.dtype
        Of the result; the Gram matrices and their factors are float64.

    Returns
    -------
    matrices : tensor of shape (n_positions, n_samples, n_features)
    """
    n_samples, n_positions, n_features = rows.shape
    matrices = rows.new_empty((n_positions, n_samples, n_features), dtype=dtype)
    identity = torch.eye(n_samples, dtype=torch.float64, device=rows.device)
    ridge = regularization * (n_samples - 1)

    def project(block):
        centred = _centred(rows, mean, block)
        factors = _kernel_cholesky(centred, ridge, regularization)
        inverses = torch.linalg.solve_triangular(factors, identity, upper=False)
        torch.bmm(inverses.to(dtype), centred.to(dtype), out=matrices[block])

    each_block(project, n_positions, 8 * n_samples * (n_features + 2 * n_samples), rows.device)
    return matrices


def mahalanobis_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    strips: list[torch.Tensor],
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Distances ``‖W (x - μ)‖`` of embeddings; for the parameters see :class:`Whitening`.

    Parameters
    ----------
    embeddings : tensor of shape (n_samples, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features)
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
    dtype : torch.dtype, default=None
        Of the products; by default that of the strips.

    Returns
    -------
    distances : tensor of shape (n_samples, n_positions), of the mean's dtype
        Not squared.
    """
    n_samples, n_positions, n_features = embeddings.shape
    dtype = dtype or strips[0].dtype
    distances = mean.new_empty((n_samples, n_positions))

    def measure(block):
        difference = (embeddings[:, block] - mean[block]).to(dtype).permute(1, 2, 0)
        squared = mean.new_zeros((len(difference), n_samples))
        for strip in strips:
            whitened = torch.bmm(strip[block].to(dtype), difference[:, : strip.shape[2]])
            squared += whitened.to(mean.dtype).square_().sum(dim=1)
        distances[:, block] = squared.sqrt_().T

    each_block(measure, n_positions, 8 * n_samples * n_features, embeddings.device, threads=False)
    return distances


def low_rank_distances(
    embeddings: torch.Tensor, mean: torch.Tensor, matrices: torch.Tensor, regularization: float
) -> torch.Tensor:
    """Distances of embeddings; for the parameters see :class:`LowRankWhitening`.

    Parameters
    ----------
    embeddings : tensor of shape (n_embeddings, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features)
    matrices : tensor of shape (n_positions, n_samples, n_features)
    regularization : float

    Returns
    -------
    distances : tensor of shape (n_embeddings, n_positions), of the embeddings' dtype
    """
    n_embeddings, n_positions, n_features = embeddings.shape
    distances = embeddings.new_empty((n_embeddings, n_positions))

    def measure(block):
        difference = (embeddings[:, block] - mean[block]).permute(1, 2, 0)
        projected = torch.bmm(matrices[block], difference)
        squared = difference.square().sum(dim=1) - projected.square().sum(dim=1)
        distances[:, block] = (squared / regularization).clamp_(min=0).sqrt().T

    n_bytes = 8 * n_embeddings * (n_features + matrices.shape[1])
    each_block(measure, n_positions, n_bytes, embeddings.device, threads=False)
    return distances


def leave_one_out_distances(
    embeddings: torch.Tensor, mean: torch.Tensor, strips: list[torch.Tensor], n_samples: int
) -> torch.Tensor:
    """Distances of training embeddings to the Gaussians fitted without the sample itself.

    Taking one sample out changes the scatter by a rank-one term, so no refit is needed: with
    ``δ = x - μ``, ``A = S / (n - 2) + λ I``, ``q = δᵀ A⁻¹ δ`` and ``c = n / ((n - 1) (n - 2))``,
    the Sherman-Morrison formula gives ``d² = (n / (n - 1))² q / (1 - c q)``.

    Parameters
    ----------
    embeddings : tensor of shape (n_embeddings, n_positions, n_features)
        Some of the training samples.
    mean : tensor of shape (n_positions, n_features), float64
        Of all training samples.
    strips : list of tensors of shape (n_positions, n_rows, n_columns), float64
        Inverse factors of A: :func:`whitening_strips` with ``n_samples - 2`` degrees of freedom.
    n_samples : int
        Number of all training samples, at least three.

    Returns
    -------
    distances : tensor of shape (n_embeddings, n_positions)
    """
    n, dtype = n_samples, embeddings.dtype
    q = mahalanobis_distances(embeddings, mean.to(dtype), strips, dtype).double() ** 2
    c = n / ((n - 1) * (n - 2))
    if dtype != torch.float64:
        few = (1 - c * q < _MIN_FLOAT32_REST).any(dim=0).nonzero()[:, 0]
        few_strips = [strip[few] for strip in strips]
        few_embeddings = embeddings[:, few].double()
        q[:, few] = mahalanobis_distances(few_embeddings, mean[few], few_strips) ** 2
    return ((n / (n - 1)) ** 2 * q / (1 - c * q)).sqrt().to(dtype)


def low_rank_training_distances(
    state: Samples, regularization: float, leave_one_out: bool
) -> torch.Tensor:
    """Distances of the samples to the Gaussians that are fitted to them, or to all but them.

    Of the kernel ``K = X Xᵀ + μ I`` with ``μ = λ f`` and f degrees of freedom, the diagonal of the
    inverse is enough: ``q = δᵀ (S / f + λ I)⁻¹ δ = f (1 - μ (K⁻¹)ᵢᵢ)``, by the Woodbury identity.
    f is n - 1, or n - 2 to go on as :func:`leave_one_out_distances` does.

    Parameters
    ----------
    state : Samples
    regularization : float
    leave_one_out : bool

    Returns
    -------
    distances : tensor of shape (n_samples, n_positions)
    """
    n, n_positions, n_features = state.rows.shape
    mean = state.mean
    degrees_of_freedom = n - 2 if leave_one_out else n - 1
    ridge = regularization * degrees_of_freedom
    identity = torch.eye(n, dtype=torch.float64, device=mean.device)
    distances = state.rows.new_empty((n, n_positions))

    def measure(block):
        # Centring makes the vector of ones an eigenvector with eigenvalue μ, a share 1 / (n μ) of
        # the diagonal that would hide the rest of it. With a larger eigenvalue it does not.
        centred = _centred(state.rows, mean, block)
        lift = centred.square().sum(dim=(1, 2)) / n
        factors = _kernel_cholesky(centred, ridge, regularization, lift)
        inverses = torch.linalg.solve_triangular(factors, identity, upper=False)
        others = ridge * (inverses.square().sum(dim=1) - (1 / (n * (ridge + lift)))[:, None])
        squared = degrees_of_freedom * ((n - 1) / n - others)
        if leave_one_out:
            # The denominator is 1 - c q.
            squared = (n / (n - 1)) ** 2 * squared / (n / (n - 1) * others)
        distances[:, block] = squared.clamp_(min=0).sqrt().T.to(distances.dtype)

    each_block(measure, n_positions, 8 * n * (n_features + 2 * n), mean.device)
    return distances


class TrainingDistances:
    """Distances of training samples in the way that `calibration` asks for.

    Built once from the moments of all samples, then called on the samples in batches. Where the
    state is the samples themselves, :func:`low_rank_training_distances` has all of them at once.
    """

    def __init__(self, moments: Moments, regularization: float, calibration: str, dtype):
        self.leave_one_out = calibration == "leave_one_out"
        self.n_samples, self.mean = moments.count, moments.mean
        self.strips = whitening_strips(
            moments.scatter,
            moments.count - (2 if self.leave_one_out else 1),
            regularization,
            torch.float64 if self.leave_one_out else dtype,
        )

    def __call__(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (n_embeddings, n_positions, n_features) to (n_embeddings, n_positions)."""
        if self.leave_one_out:
            return leave_one_out_distances(embeddings, self.mean, self.strips, self.n_samples)
        mean = self.mean.to(self.strips[0].dtype)
        return mahalanobis_distances(embeddings, mean, self.strips)


def check_enough_samples(n_samples: int, calibration: str | None) -> None:
    """Raise if there are too few samples to leave one out."""
    if calibration == "leave_one_out" and n_samples < 3:
        raise ValueError(
            f"calibration='leave_one_out' needs at least 3 training samples, found {n_samples}: "
            "give more, or set calibration=None and call calibrate with other normal samples."
        )


def _strip_rows(n_features, device):
    """First row and last but one of each strip; a GPU's kernels want one that has all rows."""
    n_strips = min(_MAX_STRIPS, n_features // _MIN_STRIP_ROWS) if device.type == "cpu" else 1
    height = -(-n_features // max(1, n_strips))
    return [(start, min(start + height, n_features)) for start in range(0, n_features, height)]


def _centred(rows, mean, block):
    """Samples of some positions minus their mean, (n_block, n_samples, n_features) in float64."""
    centred = rows[:, block].transpose(0, 1).to(torch.float64, copy=True)
    return centred.contiguous().sub_(mean[block, None])


def _kernel_cholesky(centred, ridge, regularization, lift=None):
    """Cholesky factors of ``X Xᵀ + ridge I``, with `lift` added to the eigenvalue of the ones."""
    if regularization == 0:  # centred samples depend on each other, whatever rounding makes of it
        raise _not_positive_definite(regularization)
    kernel = torch.bmm(centred, centred.mT)
    kernel.diagonal(dim1=1, dim2=2).add_(ridge)
    if lift is not None:
        kernel += (lift / kernel.shape[1])[:, None, None]
    return _cholesky(kernel, regularization)


def _cholesky(matrices, regularization):
    factors, info = torch.linalg.cholesky_ex(matrices)
    if info.any():
        raise _not_positive_definite(regularization)
    return factors


def _not_positive_definite(regularization):
    return np.linalg.LinAlgError(
        "A covariance matrix is not positive definite: there are too few samples, or features "
        f"that depend on each other, for regularization={regularization!r}. Use a larger "
        "regularization."
    )


def _squared_radius(rows, mean):
    """Largest mean square distance of samples to their position's mean."""
    radii = mean.new_empty(len(mean))

    def measure(block):
        radii[block] = (rows[:, block] - mean[block]).square().sum(dim=2).mean(dim=0)

    each_block(measure, len(mean), 8 * rows.shape[0] * rows.shape[2], rows.device)
    return radii.max().item()
