"""From moments or samples to factors of the covariances, and to Mahalanobis distances.

Free functions on torch tensors of any device: embeddings, and the rows that are samples, are
``(n_samples, n_positions, n_features)``, means ``(n_positions, n_features)`` in float64, distances
``(n_samples, n_positions)``, not squared. `regularization` is the paper's ε, here λ, added to the
diagonal of the covariances, in the features' units squared. Nothing here knows of images or
networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from skpadim.gaussian._linalg import (
    check_digits,
    cholesky,
    diagonals,
    each_block,
    gram_matrices,
    has_kernels,
    inverse_factors,
    large_blocks,
    lower_matrices,
    lower_triangles,
    not_positive_definite,
    run_kernel,
    symmetric_matrices,
    triangle_rows,
    triangle_size,
)
from skpadim.gaussian._moments import Moments, Samples
from skpadim.machine._devices import empty
from skpadim.machine._file_memory import is_in_file

# The low-rank form subtracts squared lengths in units of the regularisation. Above this ratio
# float32 would keep too few digits of the difference, and the distances are computed in float64.
_MAX_FLOAT32_RATIO = 100.0
# Above this one float64 would, too, and the factors are triangles that are made with care.
_MAX_LOW_RANK_RATIO = 1e9
# Up to this size the products of the factors with the samples are kept, for the sake of images that
# are scored one at a time. Larger ones would take longer to write than they save; but on a GPU each
# batch would convert and centre the samples anew.
_MAX_PRODUCT_BYTES = 2**29
_MAX_PRODUCT_BYTES_ON_GPU = 2**33
# Factors of full rank are taken for samples too, where they are triangles that are quick to make;
# but not where the features vary so much more than the regularisation that float32 would keep too
# few digits of the factors' small products.
_MAX_TRIANGLE_FEATURES = 256
_MAX_TRIANGLE_RATIO = 1e6
# Of the squares of means, what counts as if the samples varied by it.
_ROUNDED_SHARE = 1e-11
# Nor are any factors float32, or less, if what is left of a variance when the other features are
# known is so small a part of it; or if the variances, or the squared distances, are so large or so
# small that their squares may have no place in float32.
_MAX_FLOAT32_DIGITS_LOST = 3e4
_FLOAT32_VARIANCES = 1e-24, 1e24
# The compiled loop keeps a factor and its inverse in the core's caches, as far as these are larger
# than that of matrices of this size; libraries' blocks do with less.
_MAX_LOOP_FEATURES = 600


@dataclass
class Whitening:
    """Factors of the covariances: ``d² = ‖W δ‖²`` with ``W = L⁻¹`` and ``L Lᵀ = Σ``.

    On a CPU, which waits for the memory that they are read from, the factors are lower triangles,
    (n_positions, n_features * (n_features + 1) / 2), row by row; on a GPU they are matrices,
    (n_positions, n_features, n_features). In bfloat16, products are float32 on a CPU.
    """

    mean: torch.Tensor  # rounded to float32 it may be off by more than the features vary
    factors: torch.Tensor

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (n_samples, n_positions) of embeddings (the paper's eq. 2)."""
        return mahalanobis_distances(embeddings, self.mean, self.factors)

    def to(self, device: torch.device) -> Whitening:
        """Return the same factors on another device."""
        return type(self)(self.mean.to(device), _factors_on(self.factors, device))


@dataclass
class LowRankWhitening:
    """Factors of covariances of few samples: ``d² = (‖δ‖² - ‖L⁻¹ X δ‖²) / λ``, exactly.

    With centred samples X (n x D), ``Σ = XᵀX / (n - 1) + λ I``. By the Woodbury identity
    ``Σ⁻¹ = (I - Xᵀ K⁻¹ X) / λ`` with ``K = X Xᵀ + λ (n - 1) I = L Lᵀ``. The factors are ``L⁻¹ X``,
    (n_positions, n_samples, n_features); or, with the samples at hand, ``L⁻¹``, laid out as in
    :class:`Whitening`.
    """

    mean: torch.Tensor
    factors: torch.Tensor
    regularization: float
    samples: torch.Tensor | None  # those of the state, not centred

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (n_samples, n_positions) of embeddings (the paper's eq. 2)."""
        return low_rank_distances(
            embeddings, self.mean, self.factors, self.regularization, self.samples
        )

    def to(self, device: torch.device) -> LowRankWhitening:
        """Return the same factors on another device."""
        mean = self.mean.to(device)
        if self.samples is None:
            return LowRankWhitening(mean, self.factors.to(device), self.regularization, None)
        factors, samples = _factors_on(self.factors, device), self.samples.to(device)
        return LowRankWhitening(mean, factors, self.regularization, samples)


def whitening_of(
    state: Moments | Samples, regularization: float, dtype: torch.dtype
) -> Whitening | LowRankWhitening:
    """Factors of the covariances of two samples or more, all finite, for products in `dtype`.

    bfloat16 holds the factors of moments in half the memory of float32, and reads them in half the
    time; those of samples are float32 at the least. A LinAlgError says that float64 has too few
    digits for a covariance.
    """
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    if isinstance(state, Moments):
        factors = whitening_factors(state.scatter, state.count - 1, regularization, dtype)
        if not _ratio(state, regularization) <= _MAX_LOW_RANK_RATIO:
            n_positions, n_features = state.mean.shape
            for block in large_blocks(n_positions, 8 * n_features**2, factors.device):
                sizes = state.mean[block, :, None].abs()  # whose rounding errors are magnified
                check_digits(matrices_of(factors[block]).double().abs() @ sizes, regularization)
        return Whitening(state.mean, factors)
    rows, mean, ratio = state.rows, state.mean, _ratio(state, regularization)
    if not ratio <= _MAX_LOW_RANK_RATIO:
        return Whitening(mean, exact_triangles(rows, mean, regularization))
    if not _suit_float32(regularization, state.spread + regularization, state.spread):
        exact = torch.float64
    if _are_triangles_better(state) and ratio <= _MAX_TRIANGLE_RATIO:
        return Whitening(mean, triangles_of_samples(rows, regularization, exact))
    if rows.device.type == "cpu" and has_kernels():
        rows = rows.contiguous()
        factors = low_rank_factors(rows, mean, regularization, torch.float64, with_samples=False)
        return LowRankWhitening(mean, factors, regularization, rows)
    if ratio > _MAX_FLOAT32_RATIO:
        exact = torch.float64
    on_cpu = rows.device.type == "cpu"
    limit = _MAX_PRODUCT_BYTES if on_cpu else _MAX_PRODUCT_BYTES_ON_GPU
    is_small = rows.numel() * exact.itemsize <= limit
    factors = low_rank_factors(rows, mean, regularization, exact, with_samples=is_small)
    return LowRankWhitening(mean, factors, regularization, None if is_small else rows)


def check_scorable(state: Moments | Samples, regularization: float) -> None:
    """Raise what :func:`whitening_of` would raise; quickly where it surely would not.

    That is a LinAlgError; if samples are NaN or infinite, a ValueError. Of two samples or more.
    """
    if _ratio(state, regularization) <= _MAX_LOW_RANK_RATIO:
        return
    if not math.isfinite(state.spread):
        raise ValueError("Some embeddings of the training samples are NaN or infinite.")
    n_positions, n_features = state.mean.shape
    for block in large_blocks(n_positions, 8 * n_features**2, state.mean.device):
        if isinstance(state, Moments):
            part = Moments(state.count, state.mean[block], state.scatter[block])
            whitening_of(part, regularization, torch.float32)
        else:
            exact_triangles(state.rows[:, block], state.mean[block], regularization)


def whitening_factors(
    scatter: torch.Tensor, degrees_of_freedom: int, regularization: float, dtype: torch.dtype
) -> torch.Tensor:
    """Inverse Cholesky factors of ``scatter / degrees_of_freedom + regularization * I``.

    Scatters are lower triangles in float64; the factors lie as in :class:`Whitening`. They are
    computed in float64, and stay it if `dtype` has too few digits. A LinAlgError says that a
    covariance is not positive definite, or that float64 has too few digits for it.
    """
    factors = new_factors(len(scatter), triangle_rows(scatter.shape[1]), dtype, scatter)
    _write_inverse_factors(factors, scatter, degrees_of_freedom, regularization)
    variances = diagonals(scatter) / degrees_of_freedom
    if not _has_digits(factors, variances, regularization):
        return whitening_factors(scatter, degrees_of_freedom, regularization, torch.float64)
    return factors


def _has_digits(factors, variances, regularization):
    """Whether the dtype of factors has enough digits; raises if it is float64 and has not."""
    diagonal = variances + regularization
    is_packed = factors.ndim == 2
    scales = diagonals(factors) if is_packed else factors.diagonal(dim1=1, dim2=2)
    lost = diagonal * scales.double().square()
    if factors.dtype == torch.float64 or lost.isnan().any():
        check_digits(lost, regularization)
        return True
    smallest, largest = (value.item() for value in diagonal.aminmax())
    is_in_range = _suit_float32(smallest, largest, variances.max().item())
    return is_in_range and bool((lost <= _MAX_FLOAT32_DIGITS_LOST).all())


def _write_inverse_factors(factors, scatter, degrees_of_freedom, regularization):
    """Fill some of :func:`whitening_factors`; what has none raises, or gets a NaN diagonal."""
    n_positions, n_features = len(scatter), triangle_rows(scatter.shape[1])
    settings = degrees_of_freedom, float(regularization)
    if n_features <= _MAX_LOOP_FEATURES and scatter.device.type == "cpu":
        if factors.dtype != torch.bfloat16:
            if run_kernel("inverse_factors", n_positions, scatter, *settings, factors):
                return
        elif has_kernels():  # which round to no bfloat16
            for block in large_blocks(n_positions, 4 * factors.shape[1], factors.device):
                part = torch.empty_like(factors[block], dtype=torch.float32)
                _write_inverse_factors(part, scatter[block], *settings)
                factors[block] = part
            return

    def invert(block):
        covariance = symmetric_matrices(scatter[block]).div_(degrees_of_freedom)
        covariance.diagonal(dim1=1, dim2=2).add_(regularization)
        _write(factors, block, inverse_factors(cholesky(covariance, regularization)))

    each_block(invert, n_positions, 3 * 8 * n_features**2, scatter.device)


def exact_triangles(rows: torch.Tensor, mean: torch.Tensor, regularization: float) -> torch.Tensor:
    """As :func:`whitening_factors` of the samples' scatters, in float64, where these lose digits.

    With centred samples X and f degrees of freedom, ``[X / √f; √λ I] = Q R`` has the factor
    ``L = Rᵀ`` of the covariance: the regularisation keeps its digits beside variances of up to
    1e20 times it, whereas in sums of squares it keeps none beside those of 1e16 times it.
    """
    n_samples, n_positions, n_features = rows.shape
    factors = new_factors(n_positions, n_features, torch.float64, rows)
    ridge = torch.eye(n_features, dtype=torch.float64, device=rows.device) * regularization**0.5

    def factorise(block):
        centred = centred_samples(rows, mean, block) / (n_samples - 1) ** 0.5
        stacked = torch.cat([centred, ridge.expand(len(centred), -1, -1)], dim=1)
        upper = torch.linalg.qr(stacked, mode="r").R
        # Means are rounded, too.
        sizes = torch.linalg.vector_norm(upper, dim=1) + mean[block].abs()
        inverses = inverse_factors(upper.mT)
        check_digits(inverses.abs() @ sizes[:, :, None], regularization)
        _write(factors, block, inverses)

    n_bytes = 8 * n_features * (2 * n_samples + 4 * n_features)
    each_block(factorise, n_positions, n_bytes, rows.device)
    return factors


def triangles_of_samples(
    rows: torch.Tensor, regularization: float, dtype: torch.dtype
) -> torch.Tensor:
    """As :func:`whitening_factors` of the samples' scatters, of which few are held at a time."""
    n_samples, n_positions, n_features = rows.shape
    factors = new_factors(n_positions, n_features, dtype, rows)
    for block in large_blocks(n_positions, 8 * triangle_size(n_features), rows.device):
        scatter = Moments.of(rows[:, block]).scatter
        _write_inverse_factors(factors[block], scatter, n_samples - 1, regularization)
        if not _has_digits(factors[block], diagonals(scatter) / (n_samples - 1), regularization):
            return triangles_of_samples(rows, regularization, torch.float64)
    return factors


def low_rank_factors(
    rows: torch.Tensor,
    mean: torch.Tensor,
    regularization: float,
    dtype: torch.dtype,
    *,
    with_samples: bool,
) -> torch.Tensor:
    """``L⁻¹ X``, or ``L⁻¹``, of :class:`LowRankWhitening`, in `dtype`; up to ``L⁻¹`` in float64."""
    n_samples, n_positions, n_features = rows.shape
    if with_samples:
        shape = n_positions, n_samples, n_features
        factors = empty(shape, dtype, rows.device, in_file=is_in_file(rows))
    else:
        factors = new_factors(n_positions, n_samples, dtype, rows)
    ridge = regularization * (n_samples - 1)

    def invert(block):
        centred = centred_samples(rows, mean, block)
        inverses = inverse_factors(kernel_cholesky(centred, ridge, regularization))
        if with_samples:
            torch.bmm(inverses.to(dtype), centred.to(dtype), out=factors[block])
        else:
            _write(factors, block, inverses)

    each_block(invert, n_positions, 8 * n_samples * (n_features + 2 * n_samples), rows.device)
    return factors


def mahalanobis_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    factors: torch.Tensor,
) -> torch.Tensor:
    """Distances ``‖W (x - μ)‖``, of the embeddings' dtype; `factors` as in :class:`Whitening`."""
    n_samples, n_positions, n_features = embeddings.shape
    embeddings, mean = embeddings.contiguous(), mean.to(torch.float64)
    distances = embeddings.new_empty((n_samples, n_positions))
    number = np.dtype(np.float64 if factors.dtype == torch.float64 else np.float32)
    tensors = embeddings, mean, factors, distances
    if mean.shape == embeddings.shape[1:] and run_kernel(
        "mahalanobis", n_positions, *tensors, number
    ):
        return distances

    def measure(block):
        matrices = matrices_of(factors[block])
        difference = (embeddings[:, block] - mean[block]).to(matrices.dtype).permute(1, 2, 0)
        whitened = torch.bmm(matrices, difference)
        squared = whitened.to(torch.promote_types(embeddings.dtype, whitened.dtype)).square_()
        distances[:, block] = squared.sum(dim=1).sqrt_().T.to(distances.dtype)

    n_bytes = 8 * n_features * (n_samples + n_features)
    each_block(measure, n_positions, n_bytes, embeddings.device, threads=False)
    return distances


def low_rank_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    factors: torch.Tensor,
    regularization: float,
    samples: torch.Tensor | None = None,
) -> torch.Tensor:
    """Distances, of the embeddings' dtype; for the formula see :class:`LowRankWhitening`."""
    n_embeddings, n_positions, n_features = embeddings.shape
    embeddings = embeddings.contiguous()
    distances = embeddings.new_empty((n_embeddings, n_positions))
    if samples is not None and mean.shape == embeddings.shape[1:]:
        tensors = embeddings, mean, samples, factors
        settings = float(regularization), distances
        if run_kernel("low_rank_mahalanobis", n_positions, *tensors, *settings):
            return distances
    dtype = factors.dtype

    def measure(block):
        difference = centred_samples(embeddings, mean, block, dtype).mT
        if samples is None:
            projected = torch.bmm(factors[block], difference)
        else:
            products = torch.bmm(centred_samples(samples, mean, block, dtype), difference)
            projected = torch.bmm(matrices_of(factors[block]), products)
        squared = difference.square().sum(dim=1) - projected.square_().sum(dim=1)
        distances[:, block] = (squared / regularization).clamp_(min=0).sqrt().T

    n_rows = n_embeddings + (factors.shape[1] if samples is None else len(samples))
    # Samples are converted and centred block by block, which torch does on one core.
    is_threaded = samples is not None
    each_block(
        measure, n_positions, 8 * n_rows * n_features, embeddings.device, threads=is_threaded
    )
    return distances


def new_factors(n_positions: int, n: int, dtype: torch.dtype, beside: torch.Tensor):
    """Memory for the factors of a :class:`Whitening`, where a tensor lies that they are made of."""
    shape = (triangle_size(n),) if beside.device.type == "cpu" else (n, n)
    return empty((n_positions, *shape), dtype, beside.device, in_file=is_in_file(beside))


def _write(factors, block, matrices):
    """Write lower triangular matrices (n_block, n, n) into factors."""
    factors[block] = lower_triangles(matrices) if factors.ndim == 2 else matrices


def matrices_of(factors: torch.Tensor) -> torch.Tensor:
    """Factors of a :class:`Whitening` as matrices, on a CPU in float32 at the least."""
    if factors.ndim == 3:
        return factors
    return lower_matrices(factors).to(torch.promote_types(factors.dtype, torch.float32))


def _factors_on(factors, device):
    """Factors of a :class:`Whitening` as they lie on a device."""
    is_packed = factors.ndim == 2
    if is_packed == (device.type == "cpu"):
        return factors.to(device)
    n = triangle_rows(factors.shape[1]) if is_packed else factors.shape[1]
    there = new_factors(len(factors), n, factors.dtype, torch.empty(0, device=device))
    for block in large_blocks(len(factors), factors.element_size() * n**2, device):
        part = factors[block]
        there[block] = lower_matrices(part.to(device)) if is_packed else lower_triangles(part)
    return there


def _suit_float32(smallest, largest, spread):
    """Whether variances in this range can be float32, and the distances of samples, squared."""
    low, high = _FLOAT32_VARIANCES
    return low <= smallest and largest <= high and spread >= low * largest


def _ratio(state, regularization):
    """How many times more than the regularisation the samples vary, where they do most."""
    if regularization == 0:
        return math.inf
    # Rounded numbers far from zero vary by themselves.
    offset = state.mean.square().sum(dim=1).max().item()
    return max(state.spread, _ROUNDED_SHARE * offset) / regularization


def _are_triangles_better(samples):
    """Whether the factors of full rank, which are triangles, are faster than those of low rank."""
    # They are hardly larger then, and multiplied as they are, whereas those of low rank lie in a
    # difference that needs float64.
    n_samples, _, n_features = samples.rows.shape
    return (
        samples.limit is not None  # of who asks for low rank
        and samples.rows.device.type == "cpu"  # elsewhere a triangle takes a square
        and n_features <= _MAX_TRIANGLE_FEATURES
        and 3 * n_samples >= n_features
    )


def centred_samples(
    rows: torch.Tensor, mean: torch.Tensor, block: slice, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    """Samples of some positions minus their mean, of shape (n_block, n_samples, n_features).

    Subtracted in float64, which the mean is. A view of (n_samples, n_block, n_features), which is
    quicker to write than the other order, and which products take as it is.
    """
    centred = rows[:, block].to(torch.float64, copy=True).sub_(mean[block])
    return centred.to(dtype).transpose(0, 1)


def kernel_cholesky(
    centred: torch.Tensor,
    ridge: float,
    regularization: float,
    lift: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cholesky factors of ``X Xᵀ + ridge I``, with `lift` added to the eigenvalue of the ones."""
    if regularization == 0:  # centred samples depend on each other, whatever rounding makes of it
        raise not_positive_definite(regularization)
    kernel = gram_matrices(centred)
    kernel.diagonal(dim1=1, dim2=2).add_(ridge)
    if lift is not None:
        kernel += (lift / kernel.shape[1])[:, None, None]
    return cholesky(kernel, regularization)
