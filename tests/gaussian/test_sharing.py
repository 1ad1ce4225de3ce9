"""Gaussians that positions share, against fits to the embeddings pooled by hand."""

import pickle

import numpy as np
import pytest
import torch

from skpadim import PatchGaussian
from skpadim.gaussian._sharing import (
    moments_without,
    neighbourhoods,
    patch_moments,
    shared_training_distances,
    state_to_share,
    training_measure,
)

REGULARIZATION = 0.01
GRID = (4, 5)
SHARED = pytest.mark.parametrize("sharing", ["neighbourhood", "image"])


def make_embeddings(n, grid=GRID, n_features=6, dtype=np.float64, seed=0):
    """Features that depend on each other, around means that drift over the grid."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features))
    drift = np.linspace(3, 5, int(np.prod(grid))).reshape(*grid, 1)
    return (rng.normal(size=(n, *grid, n_features)) @ mixing + drift).astype(dtype)


def pool(embeddings, sharing, row, column):
    """All embeddings that the Gaussian at a position is fitted to."""
    if sharing == "neighbourhood":
        rows, columns = (slice(max(index - 1, 0), index + 2) for index in (row, column))
        embeddings = embeddings[:, rows, columns]
    return embeddings.reshape(-1, embeddings.shape[-1]).astype(np.float64)


def refit_distances(train, new, sharing, regularization=REGULARIZATION):
    """Equations 1 and 2 of the paper, one position at a time."""
    distances = np.empty(new.shape[:3])
    for row, column in np.ndindex(new.shape[1:3]):
        pooled = pool(train, sharing, row, column)
        covariance = np.cov(pooled, rowvar=False) + regularization * np.eye(pooled.shape[1])
        delta = new[:, row, column] - pooled.mean(axis=0)
        squared = (delta * np.linalg.solve(covariance, delta.T).T).sum(axis=1)
        distances[:, row, column] = np.sqrt(squared)
    return distances


def left_out_distances(embeddings, groups, sharing):
    distances = np.empty(embeddings.shape[:3])
    for group in np.unique(groups):
        inside = groups == group
        distances[inside] = refit_distances(embeddings[~inside], embeddings[inside], sharing)
    return distances


def training_distances_of(embeddings, sharing, solver="auto", groups=None, device="cpu"):
    rows = torch.from_numpy(embeddings).flatten(1, 2).to(device)
    grid = embeddings.shape[1:3]
    state = state_to_share(rows, sharing, solver, copy=False)
    distances = shared_training_distances(
        state, rows, sharing, np.ones(grid, bool), REGULARIZATION, "leave_one_out", groups
    )
    return distances.numpy(force=True).reshape(-1, *grid)


@SHARED
@pytest.mark.parametrize("solver", ["auto", "full"])
@pytest.mark.parametrize("n", [1, 3, 20])
def test_distances_are_those_of_fits_to_pooled_embeddings(sharing, solver, n):
    train, new = make_embeddings(n), make_embeddings(4, seed=1)
    gaussian = PatchGaussian(sharing=sharing, solver=solver, calibration=None).fit(train)
    expected = refit_distances(train, new, sharing)
    np.testing.assert_allclose(gaussian.mahalanobis(new), expected, rtol=1e-10)
    assert gaussian.n_samples_seen_ == n


@SHARED
@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (3, 2)])
def test_small_grids_have_fewer_neighbours(sharing, grid):
    train = make_embeddings(8, grid)
    parameters = {"sharing": sharing, "calibration": "leave_one_out", "contamination": 0.3}
    gaussian = PatchGaussian(**parameters).fit(train)
    expected = refit_distances(train, train, sharing)
    np.testing.assert_allclose(gaussian.mahalanobis(train), expected, rtol=1e-10)
    expected = left_out_distances(train, np.arange(8), sharing)
    np.testing.assert_allclose(-gaussian.training_scores_, expected.max(axis=(1, 2)), rtol=1e-10)


def test_every_position_comes_once_and_before_its_neighbours():
    found = np.concatenate([positions for positions, _ in neighbourhoods(np.ones(GRID, bool))])
    assert sorted(found) == list(range(20))
    for positions, near in neighbourhoods(np.ones(GRID, bool)):
        np.testing.assert_array_equal(near[:, 0], positions)
        assert near.shape[1] in (4, 6, 9)


@SHARED
@pytest.mark.parametrize("solver", ["auto", "full"])
@pytest.mark.parametrize("n", [2, 5, 20])
def test_left_out_images_are_scored_as_by_real_refits(sharing, solver, n):
    embeddings = make_embeddings(n)
    expected = left_out_distances(embeddings, np.arange(n), sharing)
    found = training_distances_of(embeddings, sharing, solver)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@SHARED
@pytest.mark.parametrize("solver", ["auto", "full"])
@pytest.mark.parametrize("groups", [[0, 1, 1], [2, 0, 1, 0, 1, 0, 3, 3], np.arange(24) // 3])
def test_left_out_groups_are_scored_as_by_real_refits(sharing, solver, groups):
    groups = np.asarray(groups)
    embeddings = make_embeddings(len(groups))
    expected = left_out_distances(embeddings, groups, sharing)
    found = training_distances_of(embeddings, sharing, solver, groups)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@SHARED
def test_leave_one_out_keeps_its_digits_in_float32(sharing):
    embeddings = make_embeddings(12, n_features=30, dtype=np.float32)
    expected = left_out_distances(embeddings, np.arange(12), sharing)
    found = training_distances_of(embeddings, sharing)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@SHARED
@pytest.mark.parametrize("calibration", ["leave_one_out", "training"])
def test_batches_and_blocks_do_not_change_training_distances(sharing, calibration, monkeypatch):
    rows = torch.from_numpy(make_embeddings(9)).flatten(1, 2)
    state = state_to_share(rows, sharing, "full", copy=False)
    groups = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5])
    settings = sharing, np.ones(GRID, bool), REGULARIZATION, calibration
    expected = shared_training_distances(state, rows, *settings, groups)
    monkeypatch.setattr("skpadim.gaussian._linalg._LARGE_BLOCK_BYTES", 5_000)
    measure = pickle.loads(pickle.dumps(training_measure(state, *settings, rows.dtype)))
    for part in (slice(0, 4), slice(4, 9), slice(0, 9)):
        found = measure.distances(rows[part], groups[part])
        torch.testing.assert_close(found, expected[part], rtol=1e-12, atol=0)


def test_moments_of_a_part_are_taken_out_again():
    rows = torch.from_numpy(make_embeddings(7, n_features=4)).flatten(1, 2) + 1e3
    rest = moments_without(patch_moments(rows), patch_moments(rows[:5]))
    expected = patch_moments(rows[5:])
    assert rest.count == expected.count
    torch.testing.assert_close(rest.mean, expected.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(rest.scatter, expected.scatter, rtol=1e-11, atol=1e-9)


@SHARED
@pytest.mark.parametrize("n", [5, 14])
def test_partial_fits_and_merging_do_not_change_scores(sharing, n):
    train, new = make_embeddings(n), make_embeddings(3, seed=1)
    expected = PatchGaussian(sharing=sharing, calibration=None).fit(train)
    in_parts = PatchGaussian(sharing=sharing).partial_fit(train[:1])
    in_parts.score_samples(new)  # of a single image
    in_parts.partial_fit(train[1:3])
    merged = in_parts.merge(PatchGaussian(sharing=sharing, calibration=None).fit(train[3:]))
    assert merged.n_samples_seen_ == n
    np.testing.assert_allclose(merged.mahalanobis(new), expected.mahalanobis(new), rtol=1e-10)
    np.testing.assert_allclose(merged.location_, expected.location_, rtol=1e-13)


@SHARED
@pytest.mark.parametrize("n", [4, 14])
def test_mean_and_covariance_are_those_of_the_pool(sharing, n):
    train = make_embeddings(n)
    gaussian = PatchGaussian(sharing=sharing, calibration=None).fit(train)
    covariance = gaussian.get_covariance()
    assert covariance.shape == (*GRID, 6, 6)
    for row, column in ((0, 0), (0, 2), (2, 4), (2, 3)):
        pooled = pool(train, sharing, row, column)
        expected = np.cov(pooled, rowvar=False) + REGULARIZATION * np.eye(6)
        np.testing.assert_allclose(covariance[row, column], expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(gaussian.location_[row, column], pooled.mean(axis=0), rtol=1e-13)


@SHARED
@pytest.mark.parametrize("n", [4, 14])
def test_a_pickled_model_goes_on_as_before(sharing, n):
    train, new = make_embeddings(n), make_embeddings(3, seed=1)
    gaussian = PatchGaussian(sharing=sharing).fit(train)
    copy = pickle.loads(pickle.dumps(gaussian))
    np.testing.assert_array_equal(copy.score_samples(new), gaussian.score_samples(new))
    np.testing.assert_array_equal(copy.predict(new), gaussian.predict(new))
    one, other = (each.partial_fit(new).mahalanobis(train) for each in (copy, gaussian))
    np.testing.assert_array_equal(one, other)


def test_one_gaussian_for_all_takes_no_memory_for_each_position():
    gaussian = PatchGaussian(sharing="image").fit(make_embeddings(8, (30, 30)))
    assert gaussian._scatter.shape == (1, 21)
    assert gaussian.location_.base is not None
    assert gaussian.get_covariance().base is not None


def test_textures_of_few_patches_are_scored_with_few_features_left_over():
    train, new = make_embeddings(1, (2, 2), n_features=30), make_embeddings(2, (2, 2), 30, seed=1)
    for sharing in ("neighbourhood", "image"):
        gaussian = PatchGaussian(sharing=sharing, calibration=None).fit(train)
        expected = refit_distances(train, new, sharing)
        np.testing.assert_allclose(gaussian.mahalanobis(new), expected, rtol=1e-8)


@SHARED
def test_one_image_is_enough_but_for_leaving_it_out(sharing):
    train = make_embeddings(1)
    fitted = PatchGaussian(sharing=sharing, calibration="training").fit(train)
    assert fitted.predict(train).tolist() == [1]
    leave_one_out = PatchGaussian(sharing=sharing, calibration="leave_one_out")
    with pytest.raises(ValueError, match=r"at least 2 .* found 1: .*calibration=None.*calibrate"):
        leave_one_out.fit(train)
    with pytest.raises(ValueError, match="minimum of 2|n_samples=1"):
        PatchGaussian(calibration=None).fit(train)
    with pytest.warns(UserWarning, match="2 good images are too few"):
        leave_one_out.fit(make_embeddings(2))


@SHARED
def test_plain_features_have_one_position(sharing):
    plain = make_embeddings(12)[:, 0, 0]
    fitted = PatchGaussian(sharing=sharing, solver="low_rank").fit(plain)
    expected = PatchGaussian(solver="low_rank").fit(plain)
    np.testing.assert_array_equal(fitted.score_samples(plain), expected.score_samples(plain))
    with pytest.raises(ValueError, match="minimum of 2|n_samples=1"):
        PatchGaussian(sharing=sharing, calibration=None).fit(plain[:1])


def test_what_is_shared_cannot_change_after_a_fit():
    embeddings = make_embeddings(9)
    fitted = PatchGaussian(sharing="neighbourhood").fit(embeddings)
    fitted.score_samples(embeddings)
    fitted.set_params(sharing="image")
    for call in (fitted.score_samples, fitted.partial_fit):
        with pytest.raises(ValueError, match="was fitted with sharing='neighbourhood': fit it"):
            call(embeddings)
    with pytest.raises(ValueError, match="sharing='neighbourhood', the other with 'position'"):
        PatchGaussian(sharing="neighbourhood").fit(embeddings).merge(
            PatchGaussian().fit(embeddings)
        )
    assert fitted.fit(embeddings).location_.strides[:2] == (0, 0)


@SHARED
def test_low_rank_has_nothing_to_share(sharing):
    with pytest.raises(ValueError, match="solver='auto'"):
        PatchGaussian(sharing=sharing, solver="low_rank").fit(make_embeddings(5))


@SHARED
def test_without_regularization_too_few_embeddings_are_an_error(sharing):
    few = make_embeddings(1, (2, 3), n_features=9)
    with pytest.raises(ValueError, match="larger regularization"):
        PatchGaussian(sharing=sharing, regularization=0, calibration=None).fit(few)
    with pytest.raises(ValueError, match="larger regularization"):
        PatchGaussian(sharing=sharing, regularization=0).partial_fit(few).score_samples(few)


@SHARED
def test_leave_one_out_flags_the_share_of_new_images_asked_for(sharing):
    parameters = {"sharing": sharing, "contamination": 0.1, "calibration": "leave_one_out"}
    flagged = []
    for seed in range(5):
        train, new = np.split(make_embeddings(340, n_features=20, seed=seed), [40])
        flagged.append(PatchGaussian(**parameters).fit(train).predict(new) == -1)
    assert 0.04 < np.mean(flagged) < 0.16


@SHARED
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_cpus_distances(sharing):
    train, new = make_embeddings(12), make_embeddings(4, seed=1)
    gaussian = PatchGaussian(sharing=sharing, calibration="leave_one_out")
    expected = gaussian.fit(train).mahalanobis(new)
    scores = gaussian.training_scores_
    found = gaussian.fit(torch.from_numpy(train).cuda()).mahalanobis(torch.from_numpy(new).cuda())
    np.testing.assert_allclose(found.cpu(), expected, rtol=1e-8)
    np.testing.assert_allclose(gaussian.training_scores_, scores, rtol=1e-8)
