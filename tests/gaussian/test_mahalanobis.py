"""Compiled factors and distances equal those of libraries."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim.gaussian import _mahalanobis
from skpadim.gaussian._linalg import symmetric_matrices
from skpadim.gaussian._mahalanobis import (
    LowRankWhitening,
    Whitening,
    low_rank_factors,
    mahalanobis_distances,
    matrices_of,
    whitening_factors,
    whitening_of,
)
from skpadim.gaussian._moments import Samples


@pytest.fixture(params=["compiled", "plain"], autouse=True)
def way(request):
    """Both ways to compute, the first where it can be had."""
    request.getfixturevalue(f"{request.param}_kernels")


DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def make_scatter(n_positions, n_features):
    """Lower triangles of ``A Aᵀ`` with random A."""
    generator = torch.Generator().manual_seed(n_features)
    shape = (n_positions, n_features, n_features + 3)
    rows = torch.randn(shape, generator=generator, dtype=torch.float64)
    row, column = torch.tril_indices(n_features, n_features)
    return (rows @ rows.mT)[:, row, column]


def make_whitening(n_positions, n_features, dtype=torch.float32):
    scatter = make_scatter(n_positions, n_features)
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(n_positions, n_features, generator=generator, dtype=torch.float64)
    return Whitening(mean, whitening_factors(scatter, 10, 0.01, dtype))


def make_embeddings(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@settings(max_examples=40, deadline=None)
@given(
    n_positions=st.integers(1, 30),
    n_features=st.integers(1, 80),
    dtype=st.sampled_from(DTYPES),
)
def test_factors_are_those_of_the_inverse(n_positions, n_features, dtype):
    scatter = make_scatter(n_positions, n_features)
    factors = whitening_factors(scatter, 10, 0.01, dtype)
    assert factors.dtype == dtype
    factors = matrices_of(factors).double()
    covariance = symmetric_matrices(scatter) / 10
    covariance += 0.01 * torch.eye(n_features, dtype=torch.float64)
    expected = torch.linalg.inv(torch.linalg.cholesky(covariance))
    bound = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-8}[dtype]
    torch.testing.assert_close(factors, expected, rtol=0, atol=bound * float(expected.abs().max()))
    assert not factors.triu(1).any()


@pytest.mark.parametrize("number", [-1.0, 0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("position", [0, 69])
def test_a_covariance_without_a_factor_raises(position, number):
    scatter = make_scatter(70, 9)
    scatter[position, -1] = number
    with pytest.raises(np.linalg.LinAlgError, match="regularization"):
        whitening_factors(scatter, 10, 0.0, torch.float32)


def reference_distances(embeddings, whitening):
    """Equation 2 of the paper, position by position, with the factors in float64."""
    differences = embeddings.double() - whitening.mean
    factors = matrices_of(whitening.factors).double()
    return torch.einsum("prc,npc->npr", factors, differences).norm(dim=2)


@settings(max_examples=50, deadline=None)
@given(
    n_samples=st.integers(1, 110),
    n_positions=st.integers(1, 70),
    n_features=st.integers(1, 80),
    dtype=st.sampled_from(DTYPES),
)
def test_distances_are_those_in_float64(n_samples, n_positions, n_features, dtype):
    whitening = make_whitening(n_positions, n_features, dtype)
    embeddings = make_embeddings(n_samples, n_positions, n_features)
    assert_distances(whitening, embeddings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_features", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("n_samples", [1, 8, 9, 33])
def test_distances_of_odd_sizes(n_samples, n_features, dtype):
    whitening = make_whitening(3, n_features, dtype)
    embeddings = make_embeddings(n_samples, 3, n_features)
    assert_distances(whitening, embeddings)
    assert_distances(whitening, embeddings.double())


def assert_distances(whitening, embeddings):
    distances = whitening.distances(embeddings)
    assert distances.dtype == embeddings.dtype
    expected = reference_distances(embeddings, whitening)
    torch.testing.assert_close(distances.double(), expected, rtol=2e-6, atol=0)


def test_factors_in_bfloat16_lose_nothing_more_far_from_zero():
    whitening = make_whitening(5, 30, torch.bfloat16)
    embeddings = (make_embeddings(4, 5, 30).double() + 1e6).float()
    whitening.mean += 1e6
    assert_distances(whitening, embeddings)


@pytest.mark.parametrize("n_threads", [1, 2, 5])
@pytest.mark.parametrize("is_low_rank", [False, True])
def test_a_sample_is_measured_alike_in_any_company(is_low_rank, n_threads, threads):
    whitening = make_low_rank(21, 70, 37) if is_low_rank else make_whitening(70, 37)
    embeddings = make_embeddings(60, 70, 37)
    threads(n_threads)
    together = whitening.distances(embeddings)
    alone = torch.cat([whitening.distances(embeddings[i : i + 1]) for i in range(60)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


def test_compiled_distances_equal_torchs(plain_kernels_within):
    whitening = make_whitening(70, 100)
    embeddings = make_embeddings(7, 70, 100)
    found = whitening.distances(embeddings)
    with plain_kernels_within():
        torch.testing.assert_close(whitening.distances(embeddings), found, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda embeddings: embeddings.mT.contiguous().mT,
        lambda embeddings: embeddings.transpose(0, 1).contiguous().transpose(0, 1),
        lambda embeddings: torch.nn.functional.pad(embeddings, (3, 2))[:, :, 3:-2],
        lambda embeddings: embeddings.expand(3, -1, -1),
        lambda embeddings: embeddings[:0],
        torch._neg_view,
    ],
    ids=["features apart", "positions first", "part", "repeated", "none", "negated view"],
)
def test_any_layout_of_embeddings_will_do(change):
    whitening = make_whitening(20, 30)
    embeddings = change(make_embeddings(1, 20, 30))
    assert_distances(whitening, embeddings)


def test_tensors_without_memory_are_no_trouble():
    whitening = make_whitening(4, 5)
    distances = whitening.distances(torch._efficientzerotensor((2, 4, 5)))
    torch.testing.assert_close(distances, whitening.distances(torch.zeros(2, 4, 5)))


def test_no_degrees_of_freedom_are_no_success():
    with pytest.raises(np.linalg.LinAlgError):
        whitening_factors(make_scatter(3, 4), 0, 0.01, torch.float32)


def test_gradients_pass():
    whitening = make_whitening(4, 5)
    embeddings = make_embeddings(2, 4, 5).requires_grad_()
    distances = mahalanobis_distances(embeddings, whitening.mean, whitening.factors)
    assert distances.requires_grad


def test_pickled_factors_are_as_large_as_they_are():
    whitening = make_whitening(20, 100)
    pickled = pickle.dumps(whitening)
    n_numbers = whitening.factors.numel() + 2 * whitening.mean.numel()
    assert len(pickled) < 4 * n_numbers + 5000
    embeddings = make_embeddings(3, 20, 100)
    restored = pickle.loads(pickled)
    assert torch.equal(restored.distances(embeddings), whitening.distances(embeddings))


def make_low_rank(n_samples, n_positions, n_features, scale=1.0):
    generator = torch.Generator().manual_seed(n_features)
    rows = 3 + scale * torch.randn(n_samples, n_positions, n_features, generator=generator)
    mean = rows.double().mean(dim=0)
    factors = low_rank_factors(rows, mean, 0.01, torch.float64, with_samples=False)
    return LowRankWhitening(mean, factors, 0.01, rows)


def solved_distances(embeddings, whitening):
    """Equation 2 of the paper, by solving with the covariances."""
    rows = (whitening.samples.double() - whitening.mean).transpose(0, 1)
    covariance = rows.mT @ rows / (rows.shape[1] - 1)
    covariance += whitening.regularization * torch.eye(rows.shape[2])
    differences = (embeddings.double() - whitening.mean).permute(1, 2, 0)
    solved = torch.from_numpy(np.linalg.solve(covariance.numpy(), differences.numpy()))
    return (differences * solved).sum(dim=1).sqrt().T


@settings(max_examples=60, deadline=None)
@given(
    n_embeddings=st.integers(1, 40),
    n_positions=st.integers(1, 40),
    n_features=st.integers(1, 60),
    n_samples=st.integers(2, 80),
    scale=st.sampled_from([0.1, 1, 30]),
)
def test_low_rank_distances_are_the_solutions(
    n_embeddings, n_positions, n_features, n_samples, scale
):
    whitening = make_low_rank(n_samples, n_positions, n_features, scale)
    embeddings = 3 + scale * make_embeddings(n_embeddings, n_positions, n_features)
    distances = whitening.distances(embeddings)
    assert distances.dtype == torch.float32
    expected = solved_distances(embeddings, whitening)
    torch.testing.assert_close(distances.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n_features", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize("n_samples", [2, 5, 8])
@pytest.mark.parametrize("n_embeddings", [1, 8, 9, 33])
def test_low_rank_distances_of_odd_sizes(n_embeddings, n_samples, n_features):
    whitening = make_low_rank(n_samples, 3, n_features)
    embeddings = make_embeddings(n_embeddings, 3, n_features)
    expected = solved_distances(embeddings, whitening)
    torch.testing.assert_close(
        whitening.distances(embeddings).double(), expected, rtol=1e-6, atol=0
    )


def test_compiled_low_rank_distances_equal_torchs(plain_kernels_within):
    whitening = make_low_rank(70, 20, 300)
    embeddings = make_embeddings(7, 20, 300)
    found = whitening.distances(embeddings)
    with plain_kernels_within():
        torch.testing.assert_close(whitening.distances(embeddings), found, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.mT.contiguous().mT,
        lambda rows: rows.transpose(0, 1).contiguous().transpose(0, 1),
        lambda rows: torch.nn.functional.pad(rows, (3, 2))[:, :, 3:-2],
        lambda rows: rows.double(),
    ],
    ids=["features apart", "positions first", "part", "float64"],
)
def test_any_layout_will_do_at_low_rank(change):
    whitening = make_low_rank(9, 20, 30)
    embeddings = make_embeddings(3, 20, 30)
    expected = solved_distances(embeddings, whitening)
    distances = whitening.distances(change(embeddings))
    torch.testing.assert_close(distances.double(), expected, rtol=2e-6, atol=0)
    whitening.samples = change(whitening.samples)
    distances = whitening.distances(embeddings)
    torch.testing.assert_close(distances.double(), expected, rtol=2e-6, atol=0)


def test_samples_that_are_equal_leave_no_distance_between_them():
    rows = torch.ones(2, 3, 400)
    whitening = whitening_of(Samples(rows, None), 0.01, torch.float32)
    assert not whitening.distances(rows).any()
    assert whitening.distances(torch.full_like(rows, torch.nan)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("n_samples", "n_features", "limit", "scale", "is_low_rank"),
    [
        (99, 100, 100, 1, False),
        (34, 100, 100, 1, False),
        (2, 6, 6, 1, False),
        (86, 256, 256, 1, False),
        (33, 100, 100, 1, True),  # too few
        (99, 257, 257, 1, True),  # too many features
        (99, 100, None, 1, True),  # asked for
        (99, 100, 100, 300, True),  # float32 would not do
    ],
)
def test_small_triangles_are_taken_for_low_ranks(
    n_samples, n_features, limit, scale, is_low_rank, dtype
):
    rows = scale * make_embeddings(n_samples, 5, n_features)
    samples = Samples(rows, limit)
    whitening = whitening_of(samples, 0.01, dtype)
    assert isinstance(whitening, LowRankWhitening) == is_low_rank
    # Also where the factors of moments are held in bfloat16.
    expected = solved_distances(rows + 1, LowRankWhitening(samples.mean, None, 0.01, rows))
    distances = whitening.distances(rows + 1)
    torch.testing.assert_close(distances.double(), expected, rtol=1e-6, atol=0)


def test_triangles_of_samples_are_made_a_few_positions_at_a_time(monkeypatch):
    rows = make_embeddings(40, 70, 50)
    expected = whitening_of(Samples(rows, 50), 0.01, torch.float32)
    sizes = []
    moments_of = _mahalanobis.Moments.of
    monkeypatch.setattr(
        _mahalanobis.Moments, "of", lambda part: sizes.append(part.shape[1]) or moments_of(part)
    )
    monkeypatch.setattr("skpadim.gaussian._linalg._LARGE_BLOCK_BYTES", 2**18)
    whitening = whitening_of(Samples(rows, 50), 0.01, torch.float32)
    assert sum(sizes) == 70
    assert max(sizes) < 30
    assert torch.equal(whitening.factors, expected.factors)


def test_inference_mode_and_features_apart_go_together():
    whitening = make_low_rank(9, 200, 300)
    embeddings = make_embeddings(3, 200, 300)
    expected = whitening.distances(embeddings)
    with torch.inference_mode():
        apart = embeddings.mT.contiguous().mT
        torch.testing.assert_close(whitening.distances(apart), expected, rtol=1e-6, atol=0)
        exact = whitening.distances(apart.double())
    torch.testing.assert_close(exact.float(), expected, rtol=1e-6, atol=0)
