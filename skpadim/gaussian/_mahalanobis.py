"""From moments or samples to factors of the covariances, and to Mahalanobis distances.

Free functions on torch tensors of any device, embeddings laid out as
``(n_samples, n_positions, n_features)``. Nothing here knows of images or networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from skpadim._large_tensors import empty
from skpadim._machine_code import is_readable, loops
from skpadim.gaussian._blocks import each_block, large_blocks
from skpadim.gaussian._moments import Moments, Samples
from skpadim.gaussian._small_matrices import (
    check_digits,
    cholesky,
    gram_matrices,
    inverse_factors,
    not_positive_definite,
)
from skpadim.gaussian._triangles import diagonals, symmetric_matrices, triangle_rows, triangle_size

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
# A factor is half zeros. On a CPU it is kept as strips of rows that end at the diagonal: one image
# at a time waits for the memory that factors are read from. Flat strips leave out more zeros, but
# torch's products of small matrices are slow, so for them there are at most so many, none lower
# than that.
_MAX_STRIPS = 8
_MIN_STRIP_ROWS = 32


@dataclass
class Whitening:
    """Factors of the covariances: ``d² = ‖W δ‖²`` with ``W = L⁻¹`` and ``L Lᵀ = Σ``.

    Attributes
    ----------
    mean : tensor of shape (n_positions, n_features), float64
        A mean rounded to float32 may be off by more than the features vary.
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
        Of the rows of W, without the columns that are zero in all rows of the strip; rows of zeros
        may follow. Their dtype is that of the products.
    """

    mean: torch.Tensor
    strips: list[torch.Tensor]

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (n_samples, n_positions) of embeddings (the paper's eq. 2)."""
        return mahalanobis_distances(embeddings, self.mean, self.strips)

    def to(self, device: torch.device) -> Whitening:
        """Return the same factors on another device."""
        return Whitening(self.mean.to(device), [strip.to(device) for strip in self.strips])

    def __getstate__(self):
        # Strips may share their memory, all of which would be pickled with each of them.
        return {**vars(self), "strips": [strip.clone() for strip in self.strips]}


@dataclass
class LowRankWhitening(Whitening):
    """Factors of covariances of few samples: ``d² = (‖δ‖² - ‖L⁻¹ X δ‖²) / λ``, exactly.

    With centred samples X (n x D), ``Σ = XᵀX / (n - 1) + λ I``. By the Woodbury identity
    ``Σ⁻¹ = (I - Xᵀ K⁻¹ X) / λ`` with ``K = X Xᵀ + λ (n - 1) I = L Lᵀ``.

    Attributes
    ----------
    mean : tensor of shape (n_positions, n_features), float64
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
        Of the rows of ``L⁻¹ X``, or of those of ``L⁻¹`` if there are `samples`, as those of a
        :class:`Whitening`.
    regularization : float
    samples : tensor of shape (n_samples, n_positions, n_features) or None
        Those of the state, not centred.
    """

    regularization: float
    samples: torch.Tensor | None

    def distances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Mahalanobis distances (n_samples, n_positions) of embeddings (the paper's eq. 2)."""
        return low_rank_distances(
            embeddings, self.mean, self.strips, self.regularization, self.samples
        )

    def to(self, device: torch.device) -> LowRankWhitening:
        """Return the same factors on another device."""
        there = super().to(device)
        samples = None if self.samples is None else self.samples.to(device)
        return LowRankWhitening(there.mean, there.strips, self.regularization, samples)


def whitening_of(
    state: Moments | Samples, regularization: float, dtype: torch.dtype
) -> Whitening | LowRankWhitening:
    """Factors that :meth:`distances` needs, for products in `dtype`.

    Parameters
    ----------
    state : Moments or Samples
        Of at least two samples, with no values that are NaN or infinite.
    regularization : float
        The paper's ε, added to the diagonal of the covariances, in the features' units squared.
    dtype : torch.dtype
        bfloat16 holds the factors of moments in half the memory of float32, and reads them in half
        the time; those of samples are float32 at the least.

    Returns
    -------
    whitening : Whitening or LowRankWhitening

    Raises
    ------
    numpy.linalg.LinAlgError
        If float64 has too few digits for a covariance.
    """
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    if isinstance(state, Moments):
        strips = whitening_strips(state.scatter, state.count - 1, regularization, dtype)
        if not _ratio(state, regularization) <= _MAX_LOW_RANK_RATIO:
            for strip in strips:  # rounding errors of the means
                sizes = state.mean[:, : strip.shape[2], None].abs()
                check_digits(strip.double().abs() @ sizes, regularization)
        return Whitening(state.mean, strips)
    rows, mean, ratio = state.rows, state.mean, _ratio(state, regularization)
    if not ratio <= _MAX_LOW_RANK_RATIO:
        return Whitening(mean, exact_triangles(rows, mean, regularization))
    if not _suit_float32(regularization, state.spread + regularization, state.spread):
        exact = torch.float64
    if _are_triangles_better(state) and ratio <= _MAX_TRIANGLE_RATIO:
        return Whitening(mean, triangles_of_samples(rows, regularization, exact))
    if _low_rank_loop_for(rows) is not None:
        strips = low_rank_strips(rows, mean, regularization, torch.float64, with_samples=False)
        return LowRankWhitening(mean, strips, regularization, rows)
    if ratio > _MAX_FLOAT32_RATIO:
        exact = torch.float64
    on_cpu = rows.device.type == "cpu"
    limit = _MAX_PRODUCT_BYTES if on_cpu else _MAX_PRODUCT_BYTES_ON_GPU
    is_small = rows.numel() * exact.itemsize <= limit
    strips = low_rank_strips(rows, mean, regularization, exact, with_samples=is_small)
    return LowRankWhitening(mean, strips, regularization, None if is_small else rows)


def check_scorable(state: Moments | Samples, regularization: float) -> None:
    """Raise what :func:`whitening_of` would raise; quickly where it surely would not.

    Parameters
    ----------
    state : Moments or Samples
        Of at least two samples.
    regularization : float

    Raises
    ------
    ValueError
        If samples are NaN or infinite.
    numpy.linalg.LinAlgError
        If float64 has too few digits for a covariance.
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


def whitening_strips(
    scatter: torch.Tensor, degrees_of_freedom: int, regularization: float, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Inverse Cholesky factors of ``scatter / degrees_of_freedom + regularization * I``.

    Parameters
    ----------
    scatter : tensor of shape (n_positions, n_features * (n_features + 1) / 2), float64
        Lower triangles.
    degrees_of_freedom : int
        ``n_samples - 1`` for the unbiased covariance.
    regularization : float
    dtype : torch.dtype
        Of the result, which is computed in float64, and stays it if another has too few digits.

    Returns
    -------
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
        See :class:`Whitening`.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a covariance is not positive definite, or float64 has too few digits for it.
    """
    n_positions = len(scatter)
    n_features = triangle_rows(scatter.shape[1])
    strips = _new_strips(n_positions, n_features, dtype, scatter.device)
    _write_inverse_factors(strips, scatter, degrees_of_freedom, regularization)
    variances = diagonals(scatter) / degrees_of_freedom
    if not _has_digits(strips, variances, regularization):
        return whitening_strips(scatter, degrees_of_freedom, regularization, torch.float64)
    return strips


def _has_digits(strips, variances, regularization):
    """Whether the dtype of factors has enough digits; raises if it is float64 and has not."""
    dtype, diagonal = strips[0].dtype, variances + regularization
    starts = [0, *(strip.shape[2] for strip in strips)]
    parts = (strip[:, :, start:] for start, strip in zip(starts, strips, strict=False))
    factors = torch.cat([part.diagonal(dim1=1, dim2=2) for part in parts], dim=1)
    lost = diagonal * factors.double().square()
    if dtype == torch.float64:
        check_digits(lost, regularization)
        return True
    smallest, largest = (value.item() for value in diagonal.aminmax())
    is_in_range = _suit_float32(smallest, largest, variances.max().item())
    return is_in_range and bool((lost <= _MAX_FLOAT32_DIGITS_LOST).all())


def _write_inverse_factors(strips, scatter, degrees_of_freedom, regularization):
    """Fill the strips of :func:`whitening_strips`, or of some of their positions."""
    loop = _whitening_loop_for(scatter, strips)
    if loop is not None:
        if not loop.invert(scatter, degrees_of_freedom, regularization, strips):
            raise not_positive_definite(regularization)
        return
    n_positions, n_features = len(scatter), triangle_rows(scatter.shape[1])

    def invert(block):
        covariance = symmetric_matrices(scatter[block]).div_(degrees_of_freedom)
        covariance.diagonal(dim1=1, dim2=2).add_(regularization)
        factors = cholesky(covariance, regularization)
        _write_rows(strips, block, inverse_factors(factors))

    each_block(invert, n_positions, 3 * 8 * n_features**2, scatter.device)


def exact_triangles(
    rows: torch.Tensor, mean: torch.Tensor, regularization: float
) -> list[torch.Tensor]:
    """As :func:`whitening_strips` of the samples' scatters, in float64, where these lose digits.

    With centred samples X and f degrees of freedom, ``[X / √f; √λ I] = Q R`` has the factor
    ``L = Rᵀ`` of the covariance: the regularisation keeps its digits beside variances of up to
    1e20 times it, whereas in sums of squares it keeps none beside those of 1e16 times it.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features), float64
    regularization : float

    Returns
    -------
    strips : list of tensors of shape (n_positions, n_rows, n_columns), float64

    Raises
    ------
    numpy.linalg.LinAlgError
        If float64 has too few digits for a covariance.
    """
    n_samples, n_positions, n_features = rows.shape
    strips = _strips_of_rows(n_positions, n_features, torch.float64, rows.device)
    ridge = torch.eye(n_features, dtype=torch.float64, device=rows.device) * regularization**0.5

    def factorise(block):
        centred = centred_samples(rows, mean, block) / (n_samples - 1) ** 0.5
        stacked = torch.cat([centred, ridge.expand(len(centred), -1, -1)], dim=1)
        upper = torch.linalg.qr(stacked, mode="r").R
        # Means are rounded, too.
        sizes = torch.linalg.vector_norm(upper, dim=1) + mean[block].abs()
        inverses = inverse_factors(upper.mT)
        check_digits(inverses.abs() @ sizes[:, :, None], regularization)
        _write_rows(strips, block, inverses)

    n_bytes = 8 * n_features * (2 * n_samples + 4 * n_features)
    each_block(factorise, n_positions, n_bytes, rows.device)
    return strips


def triangles_of_samples(
    rows: torch.Tensor, regularization: float, dtype: torch.dtype
) -> list[torch.Tensor]:
    """As :func:`whitening_strips` of the samples' scatters, of which few are held at a time.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_positions, n_features)
    regularization : float
    dtype : torch.dtype
        Of the result; float64 if it has too few digits.

    Returns
    -------
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
    """
    n_samples, n_positions, n_features = rows.shape
    strips = _new_strips(n_positions, n_features, dtype, rows.device)
    for block in large_blocks(n_positions, 8 * triangle_size(n_features), rows.device):
        scatter = Moments.of(rows[:, block]).scatter
        part = [strip[block] for strip in strips]
        _write_inverse_factors(part, scatter, n_samples - 1, regularization)
        if not _has_digits(part, diagonals(scatter) / (n_samples - 1), regularization):
            return triangles_of_samples(rows, regularization, torch.float64)
    return strips


def low_rank_strips(
    rows: torch.Tensor,
    mean: torch.Tensor,
    regularization: float,
    dtype: torch.dtype,
    *,
    with_samples: bool,
) -> list[torch.Tensor]:
    """Rows of ``L⁻¹ X``, or of ``L⁻¹``, of :class:`LowRankWhitening`.

    Parameters
    ----------
    rows : tensor of shape (n_samples, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features), float64
    regularization : float
    dtype : torch.dtype
        Of the result; the Gram matrices and their factors are float64.
    with_samples : bool
        Multiply by the centred samples X.

    Returns
    -------
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
    """
    n_samples, n_positions, n_features = rows.shape
    if with_samples:
        strips = [empty((n_positions, n_samples, n_features), dtype, rows.device)]
    else:
        strips = _strips_of_rows(n_positions, n_samples, dtype, rows.device)
    ridge = regularization * (n_samples - 1)

    def invert(block):
        centred = centred_samples(rows, mean, block)
        factors = kernel_cholesky(centred, ridge, regularization)
        inverses = inverse_factors(factors)
        if with_samples:
            torch.bmm(inverses.to(dtype), centred.to(dtype), out=strips[0][block])
        else:
            _write_rows(strips, block, inverses)

    each_block(invert, n_positions, 8 * n_samples * (n_features + 2 * n_samples), rows.device)
    return strips


def mahalanobis_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    strips: list[torch.Tensor],
) -> torch.Tensor:
    """Distances ``‖W (x - μ)‖`` of embeddings; for the parameters see :class:`Whitening`.

    Parameters
    ----------
    embeddings : tensor of shape (n_samples, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features)
    strips : list of tensors of shape (n_positions, n_rows, n_columns)

    Returns
    -------
    distances : tensor of shape (n_samples, n_positions), of the embeddings' dtype
        Not squared.
    """
    n_samples, n_positions, n_features = embeddings.shape
    if embeddings.stride(2) != 1:
        embeddings = embeddings.contiguous()
    mean, dtype = mean.to(torch.float64), strips[0].dtype
    loop = _loop_for(embeddings, mean, strips, dtype)
    if loop is not None:
        return loop.mahalanobis_distances(embeddings, mean, strips)
    distances = embeddings.new_empty((n_samples, n_positions))
    sums_dtype = torch.promote_types(embeddings.dtype, dtype)

    def measure(block):
        difference = (embeddings[:, block] - mean[block]).to(dtype).permute(1, 2, 0)
        squared = difference.new_zeros((len(difference), n_samples), dtype=sums_dtype)
        for strip in strips:
            whitened = torch.bmm(strip[block], difference[:, : strip.shape[2]])
            squared += whitened.to(sums_dtype).square_().sum(dim=1)
        distances[:, block] = squared.sqrt_().T.to(distances.dtype)

    each_block(measure, n_positions, 8 * n_samples * n_features, embeddings.device, threads=False)
    return distances


def low_rank_distances(
    embeddings: torch.Tensor,
    mean: torch.Tensor,
    strips: list[torch.Tensor],
    regularization: float,
    samples: torch.Tensor | None = None,
) -> torch.Tensor:
    """Distances of embeddings; for the parameters see :class:`LowRankWhitening`.

    Parameters
    ----------
    embeddings : tensor of shape (n_embeddings, n_positions, n_features)
    mean : tensor of shape (n_positions, n_features), float64
    strips : list of tensors of shape (n_positions, n_rows, n_columns)
    regularization : float
    samples : tensor of shape (n_samples, n_positions, n_features), default=None

    Returns
    -------
    distances : tensor of shape (n_embeddings, n_positions), of the embeddings' dtype
    """
    n_embeddings, n_positions, n_features = embeddings.shape
    if embeddings.stride(2) != 1:
        embeddings = embeddings.contiguous()
    if samples is not None and _are_taken(embeddings, mean, strips, samples):
        loop = _low_rank_loop_for(samples)
        if loop is not None:
            return loop.low_rank_distances(embeddings, mean, samples, strips, regularization)
    distances = embeddings.new_empty((n_embeddings, n_positions))
    dtype = strips[0].dtype

    def measure(block):
        difference = centred_samples(embeddings, mean, block, dtype).mT
        products = difference
        if samples is not None:
            products = torch.bmm(centred_samples(samples, mean, block, dtype), difference)
        squared = difference.square().sum(dim=1)
        for strip in strips:
            projected = torch.bmm(strip[block], products[:, : strip.shape[2]])
            squared -= projected.square_().sum(dim=1)
        distances[:, block] = (squared / regularization).clamp_(min=0).sqrt().T

    n_rows = n_embeddings + sum(strip.shape[1] for strip in strips)
    # Samples are converted and centred block by block, which torch does on one core.
    is_threaded = samples is not None
    each_block(
        measure, n_positions, 8 * n_rows * n_features, embeddings.device, threads=is_threaded
    )
    return distances


def _new_strips(n_positions, n_features, dtype, device):
    """Memory for the strips of :class:`Whitening`."""
    loop = _loop(dtype, device)
    if loop is not None:  # those of a position one after the other, each column by column
        height = loop.ROWS
        widths = [min(start + height, n_features) for start in range(0, n_features, height)]
        memory = empty((n_positions, height * sum(widths)), dtype)
        parts = memory.split([height * width for width in widths], dim=1)
        return [part.unflatten(1, (-1, height)).mT for part in parts]
    return _strips_of_rows(n_positions, n_features, dtype, device)


def _strips_of_rows(n_positions, n_features, dtype, device):
    """Memory for strips, row by row."""
    # A GPU's kernels want one strip that has all rows.
    n_strips = min(_MAX_STRIPS, n_features // _MIN_STRIP_ROWS) if device.type == "cpu" else 1
    height = -(-n_features // max(1, n_strips))
    stops = [min(start + height, n_features) for start in range(0, n_features, height)]
    heights = [height] * (len(stops) - 1) + [n_features - height * (len(stops) - 1)]
    return [
        empty((n_positions, n_rows, stop), dtype, device)
        for n_rows, stop in zip(heights, stops, strict=True)
    ]


def _write_rows(strips, block, factors):
    """Write lower triangular matrices (n_block, n_features, n_features) into strips."""
    start = 0
    for strip in strips:
        stop = strip.shape[2]
        strip[block, : stop - start] = factors[:, start:stop, :stop]
        strip[block, stop - start :] = 0
        start = stop


def _suit_float32(smallest, largest, spread):
    """Whether variances in this range can be float32, and the distances of samples, squared."""
    low, high = _FLOAT32_VARIANCES
    return low <= smallest and largest <= high and spread >= low * largest


def _ratio(state, regularization):
    """How many times more than the regularisation the samples vary, where they do most.

    Or would, if they lay closer to zero: rounded numbers far from it vary by themselves.
    """
    if regularization == 0:
        return math.inf
    offset = state.mean.square().sum(dim=1).max().item()
    return max(state.spread, _ROUNDED_SHARE * offset) / regularization


def _are_triangles_better(samples):
    """Whether the factors of full rank, which are triangles, are faster than those of low rank.

    They are hardly larger then, and multiplied as they are, whereas those of low rank lie in a
    difference that needs float64.
    """
    n_samples, _, n_features = samples.rows.shape
    return (
        samples.limit is not None  # of who asks for low rank
        and samples.rows.device.type == "cpu"  # elsewhere a triangle takes a square
        and n_features <= _MAX_TRIANGLE_FEATURES
        and 3 * n_samples >= n_features
    )


def _low_rank_loop_for(samples):
    """Compiled distances from the samples, or None where those are not such as it takes."""
    if not is_readable(samples, torch.float32) or samples.stride(2) != 1:
        return None
    return loops("skpadim.gaussian._low_rank_loop", torch.float32)


def _are_taken(embeddings, mean, strips, samples):
    """Whether tensors are such as the compiled distances from the samples take."""
    return (
        is_readable(embeddings, torch.float32)
        and is_readable(mean, torch.float64)
        and embeddings.numel() > 0
        and embeddings.stride(2) == 1
        and mean.is_contiguous()
        and mean.shape == embeddings.shape[1:] == samples.shape[1:]
        and sum(strip.shape[1] for strip in strips) == len(samples)
        and all(
            is_readable(strip, torch.float64)
            and len(strip) == len(mean)
            and strip.shape[2] <= len(samples)
            and strip.stride(2) == 1
            for strip in strips
        )
    )


def _loop(dtype, device):
    """Compiled distances for strips of a dtype, or None."""
    return loops("skpadim.gaussian._mahalanobis_loop", dtype) if device.type == "cpu" else None


def _whitening_loop_for(scatter, strips):
    """Compiled factorisation, or None where the tensors are not such as it takes."""
    if not is_readable(scatter, torch.float64) or not scatter.is_contiguous():
        return None
    loop = loops("skpadim.gaussian._whitening_loop", strips[0].dtype)
    is_taken = (
        loop is not None
        and strips[-1].shape[2] <= loop.MAX_FEATURES
        and all(_lies_in_columns(strip, loop.ROWS) for strip in strips)
    )
    return loop if is_taken else None


def _lies_in_columns(strip, n_rows):
    return strip.shape[1] == n_rows and strip.stride()[1:] == (1, n_rows)


def _loop_for(embeddings, mean, strips, dtype):
    """Compiled distances, or None where the tensors are not such as they take."""
    loop = _loop(dtype, embeddings.device)
    is_taken = (
        loop is not None
        and is_readable(embeddings, torch.float32)
        and is_readable(mean, torch.float64)
        and embeddings.numel() > 0
        and embeddings.stride(2) == 1
        and mean.is_contiguous()
        and mean.shape == embeddings.shape[1:]
        and all(_is_taken(strip, embeddings, dtype, loop) for strip in strips)
    )
    return loop if is_taken else None


def _is_taken(strip, embeddings, dtype, loop):
    return (
        is_readable(strip, dtype)
        and len(strip) == embeddings.shape[1]
        and strip.shape[2] <= embeddings.shape[2]
        and _lies_in_columns(strip, loop.ROWS)
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


def mean_squared_norms(centred: torch.Tensor) -> torch.Tensor:
    """Mean square distance of the samples of each position to their mean, (n_block,)."""
    return torch.linalg.vector_norm(centred, dim=2).square().mean(dim=1)


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
