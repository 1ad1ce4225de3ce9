"""Distances of training samples without themselves, or their group, against real refits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim.calibration._training_samples import rows_by_group_size
from skpadim.gaussian import _leave_one_out as _leave_out
from skpadim.gaussian._leave_one_out import (
    TrainingDistances,
    check_enough_samples,
    low_rank_training_distances,
)
from skpadim.gaussian._moments import Moments, Samples

REGULARIZATION = 0.01


def make_embeddings(n, n_positions=3, n_features=6, scale=1.0, dtype=np.float64, seed=0):
    """Features that depend on each other, around a mean, with groups of near-copies among them."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_positions, n_features, n_features))
    embeddings = np.einsum("npd,pde->npe", rng.normal(size=(n, n_positions, n_features)), mixing)
    return ((embeddings + 3) * scale).astype(dtype)


def refit_distances(embeddings, groups, regularization=REGULARIZATION):
    """Equations 1 and 2 of the paper, fitted anew without each group, one position at a time."""
    embeddings = embeddings.astype(np.float64)
    distances = np.empty(embeddings.shape[:2])
    for group in np.unique(groups):
        inside = groups == group
        for position in range(embeddings.shape[1]):
            rest = embeddings[~inside, position]
            covariance = np.atleast_2d(np.cov(rest, rowvar=False))
            covariance += regularization * np.eye(rest.shape[1])
            delta = embeddings[inside, position] - rest.mean(axis=0)
            squared = (delta * np.linalg.solve(covariance, delta.T).T).sum(axis=1)
            distances[inside, position] = np.sqrt(squared)
    return distances


def full_distances(embeddings, groups, batches=None):
    """From moments, all samples at once or in the given batches of them."""
    rows = torch.from_numpy(embeddings)
    measure = TrainingDistances(Moments.of(rows), REGULARIZATION, "leave_one_out", rows.dtype)
    if batches is None:
        return measure.distances(rows, groups).numpy()
    distances = np.empty(embeddings.shape[:2])
    for batch in batches:
        distances[batch] = measure.distances(rows[batch], groups[batch]).numpy()
    return distances


def low_rank_distances(embeddings, groups):
    samples = Samples(torch.from_numpy(embeddings), None)
    return low_rank_training_distances(samples, REGULARIZATION, True, groups).numpy()


SOLVERS = pytest.mark.parametrize("distances_of", [full_distances, low_rank_distances])


@st.composite
def samples_in_groups(draw):
    """Embeddings of fewer or more samples than features, and groups with two samples to spare."""
    n = draw(st.integers(3, 30))
    codes = draw(st.lists(st.integers(0, draw(st.integers(1, n - 1))), min_size=n, max_size=n))
    _, groups, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if counts.max() > n - 2:
        groups[: n - counts.max() + 2] = np.arange(len(counts), n + 2 - counts.max() + len(counts))
        _, groups = np.unique(groups, return_inverse=True)
    shape = {"n_positions": draw(st.integers(1, 3)), "n_features": draw(st.integers(1, 15))}
    return make_embeddings(n, **shape, seed=draw(st.integers(0, 99))), groups


@SOLVERS
@settings(deadline=None, max_examples=60)
@given(case=samples_in_groups())
def test_left_out_groups_are_scored_as_by_real_refits(distances_of, case):
    embeddings, groups = case
    expected = refit_distances(embeddings, groups)
    distances = distances_of(embeddings, groups)
    # Those near zero are a difference of larger numbers.
    np.testing.assert_allclose(distances, expected, rtol=1e-8, atol=1e-9)


@SOLVERS
@pytest.mark.parametrize("n", [3, 8, 25])
def test_groups_of_one_are_leave_one_out(distances_of, n):
    embeddings = make_embeddings(n)
    np.testing.assert_array_equal(
        distances_of(embeddings, np.arange(n)[::-1].copy()), distances_of(embeddings, None)
    )
    expected = refit_distances(embeddings, np.arange(n))
    np.testing.assert_allclose(distances_of(embeddings, None), expected, rtol=1e-8)


@SOLVERS
@pytest.mark.parametrize("n", [10, 40])
def test_copies_of_an_image_in_its_group_do_not_vouch_for_it(distances_of, n):
    embeddings = make_embeddings(n, n_features=20)
    embeddings[1] = embeddings[2] = embeddings[0]
    groups = np.maximum(np.arange(n), 2)
    distances = distances_of(embeddings, groups)
    np.testing.assert_allclose(distances, refit_distances(embeddings, groups), rtol=1e-8)
    np.testing.assert_allclose(distances[:2], distances[2][None].repeat(2, axis=0), rtol=1e-8)
    assert (distances[0] > 1.5 * distances_of(embeddings, None)[0]).all()


@SOLVERS
@pytest.mark.parametrize("n", [5, 30])
def test_the_largest_group_may_leave_two_samples(distances_of, n):
    embeddings = make_embeddings(n)
    groups = np.minimum(np.arange(n), 2)
    np.testing.assert_allclose(
        distances_of(embeddings, groups), refit_distances(embeddings, groups), rtol=1e-8
    )


@SOLVERS
@pytest.mark.parametrize("scale", [0.01, 1, 30])
@pytest.mark.parametrize("n", [30, 90])
def test_groups_keep_their_digits_in_float32(distances_of, scale, n):
    embeddings = make_embeddings(n, n_features=60, scale=scale, dtype=np.float32)
    groups = np.arange(n) // 4
    distances = distances_of(embeddings, groups)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, refit_distances(embeddings, groups), rtol=1e-4)


@SOLVERS
@pytest.mark.parametrize(("n", "n_features"), [(5, 2), (6, 12), (12, 3)])
def test_groups_far_from_zero_keep_their_digits_where_little_is_left(distances_of, n, n_features):
    embeddings = make_embeddings(n, n_features=n_features, scale=10) + 1e6
    groups = np.maximum(np.arange(n), n // 2)  # one of about half of the samples
    near = refit_distances(embeddings - embeddings[0], groups)  # exact differences
    np.testing.assert_allclose(distances_of(embeddings, groups), near, rtol=1e-9, atol=1e-9)


@SOLVERS
def test_blocks_of_positions_do_not_change_distances(distances_of, monkeypatch):
    embeddings, groups = make_embeddings(12, n_positions=40), np.arange(12) // 3
    groups[0] = 9
    expected = distances_of(embeddings, groups)
    monkeypatch.setattr("skpadim.gaussian._linalg._BLOCK_BYTES", 20_000)
    monkeypatch.setattr("skpadim.gaussian._linalg._LARGE_BLOCK_BYTES", 20_000)
    np.testing.assert_allclose(distances_of(embeddings, groups), expected, rtol=1e-12)


def test_batches_of_whole_groups_do_not_change_distances():
    embeddings = make_embeddings(30)
    groups = np.repeat(np.arange(12), [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4])
    expected = full_distances(embeddings, groups)
    for cuts in ([1, 8, 19], [4, 13], [2, 10, 22]):
        batches = np.split(np.arange(30), cuts)
        np.testing.assert_allclose(
            full_distances(embeddings, groups, batches), expected, rtol=1e-12
        )


def test_batches_sorted_by_group_size_need_one_factorisation_a_size(monkeypatch):
    embeddings, groups = make_embeddings(24), np.repeat(np.arange(12), [1, 3] * 6)
    built = []

    def count(scatter, degrees_of_freedom, *arguments):
        built.append(degrees_of_freedom)
        return whitening_factors(scatter, degrees_of_freedom, *arguments)

    whitening_factors = _leave_out.whitening_factors
    monkeypatch.setattr(_leave_out, "whitening_factors", count)
    rows = np.concatenate(list(rows_by_group_size(groups).values()))
    full_distances(embeddings, groups, np.split(rows, [3, 9, 15]))
    assert built == [22, 20]


def test_all_samples_at_once_need_the_factors_of_few_positions(monkeypatch):
    embeddings, groups = make_embeddings(20, n_positions=50), np.arange(20) // 2
    largest = []

    def measure(scatter, *arguments):
        largest.append(len(scatter))
        return whitening_factors(scatter, *arguments)

    whitening_factors = _leave_out.whitening_factors
    monkeypatch.setattr(_leave_out, "whitening_factors", measure)
    monkeypatch.setattr("skpadim.gaussian._linalg._LARGE_BLOCK_BYTES", 5_000)
    full_distances(embeddings, groups)
    assert max(largest) < 10


@SOLVERS
def test_without_regularization_too_few_samples_left_is_an_error(distances_of, monkeypatch):
    monkeypatch.setattr(f"{__name__}.REGULARIZATION", 0)
    groups = np.repeat([0, 1], [6, 2])
    with pytest.raises(np.linalg.LinAlgError, match="larger regularization"):
        distances_of(make_embeddings(8), groups)


@pytest.mark.parametrize("size", [1, 2])
def test_samples_alone_in_a_direction_keep_their_digits_or_are_refused(size):
    embeddings = make_embeddings(12, n_positions=1, n_features=3)
    groups = np.r_[np.zeros(size, dtype=int), np.arange(1, 13 - size)]
    for value in (1e2, 1e8):
        embeddings[:, :, 2] = np.where(groups == 0, value, 0)[:, None]
        if value == 1e2:
            distances = full_distances(embeddings, groups)
            np.testing.assert_allclose(distances, refit_distances(embeddings, groups), rtol=1e-6)
        else:
            with pytest.raises(ValueError, match="as far as float64 can tell"):
                full_distances(embeddings, groups)


def test_too_few_samples_to_leave_out_are_refused():
    check_enough_samples(4, "leave_one_out", np.array([0, 0, 1, 1]))
    check_enough_samples(3, "training", np.zeros(3, dtype=int))
    with pytest.raises(ValueError, match="needs at least 3 training samples, found 2"):
        check_enough_samples(2, "leave_one_out")
    groups, labels = np.array([0, 1, 1, 1]), np.array(["left", "right"])
    with pytest.raises(ValueError, match="group 'right' has 3 of the 4.*at least 2 that are left"):
        check_enough_samples(4, "leave_one_out", groups, labels)
    with pytest.raises(ValueError, match="one label for all 4 .*'left'.*at least two groups"):
        check_enough_samples(4, "leave_one_out", np.zeros(4, dtype=int), labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("n", [10, 40])
def test_gpu_gives_the_cpus_distances_of_groups(n):
    embeddings, groups = make_embeddings(n, n_features=20), np.arange(n) // 3
    rows = torch.from_numpy(embeddings).cuda()
    measure = TrainingDistances(Moments.of(rows), REGULARIZATION, "leave_one_out", rows.dtype)
    expected = refit_distances(embeddings, groups)
    np.testing.assert_allclose(measure.distances(rows, groups).cpu(), expected, rtol=1e-8)
    some = measure.distances(rows[:6], groups[:6])
    np.testing.assert_allclose(some.cpu(), expected[:6], rtol=1e-8)
    low = low_rank_training_distances(Samples(rows, None), REGULARIZATION, True, groups)
    np.testing.assert_allclose(low.cpu(), expected, rtol=1e-8)
