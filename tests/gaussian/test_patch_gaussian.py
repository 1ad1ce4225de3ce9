"""PatchGaussian: the paper's formulas, merging, leave-one-out, and scikit-learn's own checks."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

from skpadim import PatchGaussian
from skpadim.calibration._conformal import conformal_offset
from skpadim.gaussian._linalg import lower_triangles
from skpadim.gaussian._mahalanobis import mahalanobis_distances, whitening_factors
from skpadim.gaussian._patch_gaussian import variances_in


@parametrize_with_checks(
    [
        PatchGaussian(),
        PatchGaussian(regularization=1.0),
        PatchGaussian(regularization="auto", sharing="image"),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def make_embeddings(n, grid=(3, 4), n_features=6, seed=0, dtype=np.float32):
    """Correlated features with a mean and a scale of their own at each position."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(99)
    mixing = fixed.normal(size=(*grid, n_features, n_features)) * fixed.uniform(0.1, 3)
    mean = fixed.normal(size=(*grid, n_features)) * 3
    white = rng.normal(size=(n, *grid, n_features))
    return (np.einsum("nhwd,hwde->nhwe", white, mixing) + mean).astype(dtype)


def make_scatter(n_positions, n_features):
    rows = np.random.default_rng(0).normal(size=(n_positions, 20, n_features))
    return rows.swapaxes(1, 2) @ rows


def reference_distances(train, test, regularization):
    """Section 3.2 and equation 2 of the paper, in float64, one position at a time."""
    train, test = train.astype(np.float64), test.astype(np.float64)
    distances = np.empty(test.shape[:3])
    for i in range(train.shape[1]):
        for j in range(train.shape[2]):
            x = train[:, i, j]
            mean = x.mean(axis=0)
            covariance = (x - mean).T @ (x - mean) / (len(x) - 1)
            covariance += regularization * np.eye(x.shape[1])
            inverse = np.linalg.inv(covariance)
            for k, sample in enumerate(test[:, i, j]):
                distances[k, i, j] = np.sqrt((sample - mean) @ inverse @ (sample - mean))
    return distances


@pytest.mark.parametrize("n_train", [2, 5, 50])  # fewer and more samples than features
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_distances_are_the_papers(n_train, dtype, tolerance):
    train, test = make_embeddings(n_train, dtype=dtype), make_embeddings(7, seed=1, dtype=dtype)
    distances = PatchGaussian().fit(train).mahalanobis(test)
    assert distances.dtype == dtype
    np.testing.assert_allclose(distances, reference_distances(train, test, 0.01), rtol=tolerance)


@pytest.mark.parametrize("n_samples", [4, 30])  # samples are kept, or scatters
@pytest.mark.parametrize("sharing", ["position", "neighbourhood", "image"])
def test_variances_are_the_diagonals_of_the_covariances(sharing, n_samples):
    gaussian = PatchGaussian(sharing=sharing, regularization=0.5).fit(make_embeddings(n_samples))
    expected = np.diagonal(gaussian.get_covariance(), axis1=-2, axis2=-1)
    np.testing.assert_allclose(variances_in(gaussian), expected)


def test_covariance_is_the_papers():
    train = make_embeddings(30, grid=(1, 2))
    covariance = PatchGaussian(regularization=0.5).fit(train).get_covariance()
    for position in range(2):
        expected = np.cov(train[:, 0, position].T.astype(np.float64)) + 0.5 * np.eye(6)
        np.testing.assert_allclose(covariance[0, position], expected, rtol=1e-10)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(6, 40),
    cuts=st.lists(st.integers(1, 39), max_size=5),
    order_seed=st.integers(0, 10**6),
    merge=st.booleans(),
)
def test_batches_order_and_merging_do_not_change_scores(n, cuts, order_seed, merge):
    train, test = make_embeddings(n), make_embeddings(4, seed=1)
    expected = PatchGaussian().fit(train).score_samples(test)
    shuffled = train[np.random.default_rng(order_seed).permutation(n)]
    batches = [b for b in np.split(shuffled, sorted({c for c in cuts if c < n})) if len(b)]
    if merge:
        gaussians = [PatchGaussian().partial_fit(batch) for batch in batches]
        gaussian = gaussians[0]
        for other in gaussians[1:]:
            gaussian.merge(other)
    else:
        gaussian = PatchGaussian()
        for batch in batches:
            gaussian.partial_fit(batch)
    assert gaussian.n_samples_seen_ == n
    np.testing.assert_allclose(gaussian.score_samples(test), expected, rtol=1e-5)


def test_moments_stand_a_large_offset():
    # Sums of raw squares would lose every digit of the variance here.
    train = make_embeddings(40, dtype=np.float64)
    test = make_embeddings(3, seed=1, dtype=np.float64)
    expected = PatchGaussian().fit(train).mahalanobis(test)
    shifted = PatchGaussian()
    for batch in np.split(train + 1e6, 8):
        shifted.partial_fit(batch)
    np.testing.assert_allclose(shifted.mahalanobis(test + 1e6), expected, rtol=1e-6)


@pytest.mark.parametrize("way", ["compiled_kernels", "plain_kernels"])
@pytest.mark.parametrize("solver", ["auto", "full", "low_rank"])
@pytest.mark.parametrize(("n", "n_features"), [(3, 1), (5, 40), (30, 40), (60, 20)])
@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_features_far_from_zero_keep_their_digits(offset, n, n_features, solver, way, request):
    request.getfixturevalue(way)
    embeddings = make_embeddings(n + 21, (1, 2), n_features, dtype=np.float64)
    train, test = np.split((embeddings + offset).astype(np.float32), [n])
    expected = reference_distances(train, test, 0.01)
    gaussian = PatchGaussian(solver=solver, calibration="leave_one_out", contamination=0.5)
    gaussian.fit(train)
    for count in (1, 20):  # one image is measured in another way than many
        distances = gaussian.mahalanobis(test[:count])
        np.testing.assert_allclose(distances, expected[:count], rtol=1e-5)
    left_out = [
        reference_distances(np.delete(train, i, axis=0), train[i : i + 1], 0.01).max()
        for i in range(n)
    ]
    np.testing.assert_allclose(gaussian.training_scores_, -np.array(left_out), rtol=1e-5)
    parts = PatchGaussian(solver=solver).partial_fit(train[:2])
    parts.merge(PatchGaussian(solver=solver).partial_fit(train[2:]))
    np.testing.assert_allclose(parts.mahalanobis(test), expected, rtol=1e-5)
    if n > 10:
        groups = np.arange(n) // 3
        gaussian.fit(train, groups=groups)
        left_out = [
            reference_distances(train[groups != groups[i]], train[i : i + 1], 0.01).max()
            for i in range(n)
        ]
        np.testing.assert_allclose(gaussian.training_scores_, -np.array(left_out), rtol=1e-5)


def test_many_positions_are_worked_through_in_blocks(monkeypatch):
    train, test = make_embeddings(20), make_embeddings(3, seed=1)
    expected = PatchGaussian().fit(train).mahalanobis(test)
    monkeypatch.setattr("skpadim.gaussian._linalg._BLOCK_BYTES", 5000)
    np.testing.assert_allclose(PatchGaussian().fit(train).mahalanobis(test), expected, rtol=1e-6)


@pytest.mark.parametrize("n", [3, 5, 30])
def test_leave_one_out_scores_are_those_of_real_refits(n):
    train = make_embeddings(n, dtype=np.float64)
    closed_form = PatchGaussian(calibration="leave_one_out", contamination=0.4).fit(train)
    for index in range(n):
        refit = PatchGaussian(calibration=None).fit(np.delete(train, index, axis=0))
        expected = refit.score_samples(train[index : index + 1])
        np.testing.assert_allclose(closed_form.training_scores_[index], expected, rtol=1e-8)


@pytest.mark.parametrize("scale", [10, 1000])
def test_leave_one_out_keeps_its_digits_with_few_samples_of_many_features(scale):
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(20, 100)) * scale).astype(np.float32)
    closed_form = PatchGaussian(calibration="leave_one_out", contamination=0.1).fit(train)
    for index in (0, 11):
        refit = PatchGaussian(calibration=None).fit(
            np.delete(train, index, axis=0).astype(np.float64)
        )
        expected = refit.score_samples(train[index : index + 1].astype(np.float64))
        np.testing.assert_allclose(closed_form.training_scores_[index], expected, rtol=1e-4)


def test_scores_that_are_not_finite_set_no_threshold():
    with pytest.raises(ValueError, match="2 of 3 scores are NaN or infinite.*regularization"):
        conformal_offset(np.array([-1.0, np.nan, np.inf]), 0.5)


def test_arrays_of_a_fitted_model_are_never_changed_in_place():
    gaussian = PatchGaussian().fit(make_embeddings(10))
    arrays = [value for value in vars(gaussian).values() if isinstance(value, np.ndarray)]
    before = [array.copy() for array in arrays]
    shallow = copy.copy(gaussian)
    gaussian.partial_fit(make_embeddings(10, seed=1) + 5)
    gaussian.merge(PatchGaussian().fit(make_embeddings(10, seed=2)))
    for array, copied in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copied)
    test = make_embeddings(3, seed=3)
    fresh = PatchGaussian().fit(make_embeddings(10))
    np.testing.assert_array_equal(shallow.score_samples(test), fresh.score_samples(test))


def test_a_fit_that_only_warns_as_an_error_changes_nothing():
    gaussian = PatchGaussian(calibration="leave_one_out").fit(make_embeddings(30))
    before = pickle.dumps(gaussian)
    with pytest.raises(UserWarning, match="too few"):  # warnings are errors in these tests
        gaussian.fit(make_embeddings(10))
    with pytest.raises(UserWarning, match="too few"):
        gaussian.calibrate(make_embeddings(10, seed=1))
    with pytest.raises(UserWarning, match="has learned from 30 of the 30"):
        gaussian.calibrate(make_embeddings(30))
    assert pickle.dumps(gaussian) == before


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, pd.DataFrame])
@pytest.mark.parametrize("n", [10, 50])  # fewer and more samples than features
@pytest.mark.parametrize("solver", ["auto", "full", "low_rank"])
@pytest.mark.parametrize("calibration", ["training", "leave_one_out"])
def test_a_fitted_model_owns_its_arrays(calibration, solver, n, kind):
    def learn(change):
        given = [make_embeddings(n, (1, 1), 20, seed)[:, 0, 0] for seed in range(3)]
        y, groups = np.ones(n), np.arange(n) // 2
        fitted = PatchGaussian(solver=solver, calibration=calibration, contamination=0.5)
        fitted.fit(kind(given[0]), y, groups=groups).calibrate(kind(given[2]), groups=groups)
        in_parts = PatchGaussian(solver=solver).partial_fit(kind(given[0]))
        in_parts.merge(PatchGaussian(solver=solver).partial_fit(kind(given[1])))
        unchanged = [make_embeddings(n, (1, 1), 20, seed)[:, 0, 0] for seed in range(3)]
        np.testing.assert_array_equal(given, unchanged)
        assert (y == 1).all()
        assert (groups == np.arange(n) // 2).all()
        begun = PatchGaussian(solver=solver).partial_fit(kind(given[0]))
        for array in (*given, y, groups):
            array[...] = array * change
        return fitted, in_parts, begun

    new = make_embeddings(5, (1, 1), 20, seed=9)[:, 0, 0]
    for model, expected in zip(learn(0), learn(1), strict=True):
        assert pickle.dumps(model) == pickle.dumps(expected)
        np.testing.assert_array_equal(model.score_samples(new), expected.score_samples(new))
        model.partial_fit(new)
    np.testing.assert_array_equal(new, make_embeddings(5, (1, 1), 20, seed=9)[:, 0, 0])


def test_half_precision_flipped_and_nested_input():
    train = make_embeddings(20)
    expected = PatchGaussian().fit(train).score_samples(train)
    tensor = torch.from_numpy(train)
    from_half = PatchGaussian().fit(tensor.half()).score_samples(tensor.half())
    np.testing.assert_allclose(from_half.numpy(), expected, rtol=0.05)
    with_gradient = PatchGaussian().fit(tensor.clone().requires_grad_()).score_samples(tensor)
    np.testing.assert_array_equal(with_gradient.numpy(), expected)
    flipped = PatchGaussian().fit(train[..., ::-1]).score_samples(train[..., ::-1])
    np.testing.assert_allclose(flipped, expected, rtol=1e-4)
    nested = PatchGaussian().fit(train.astype(np.float64).tolist())
    assert nested.n_features_in_ == 6


def test_names_of_features_do_not_outlive_their_data():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    gaussian = PatchGaussian().fit(frame).fit(make_embeddings(10))
    assert not hasattr(gaussian, "feature_names_in_")
    assert gaussian.n_features_in_ == 6


def test_training_contamination_is_the_share_of_the_training_set():
    train = make_embeddings(200)
    labels = PatchGaussian(contamination=0.1).fit_predict(train)
    assert (labels == -1).sum() == 20


def test_leave_one_out_flags_the_share_of_new_samples_asked_for():
    # 40 samples of 20 features: under the training scores nearly all new ones would be flagged.
    rng = np.random.default_rng(0)
    flagged = {"training": [], "leave_one_out": []}
    for _ in range(30):
        train, new = rng.normal(size=(40, 20)), rng.normal(size=(200, 20))
        for calibration, shares in flagged.items():
            gaussian = PatchGaussian(calibration=calibration, contamination=0.1).fit(train)
            shares.append((gaussian.predict(new) == -1).mean())
    assert 0.05 < np.mean(flagged["leave_one_out"]) < 0.12
    assert np.mean(flagged["training"]) > 0.5


def test_calibrate_sets_the_threshold_after_partial_fit():
    gaussian = PatchGaussian(contamination=0.1).fit(make_embeddings(30))
    assert hasattr(gaussian, "offset_")
    gaussian.partial_fit(make_embeddings(30, seed=1))
    with pytest.raises(AttributeError, match="has no threshold.*Call calibrate"):
        gaussian.predict(make_embeddings(3))
    new = make_embeddings(100, seed=2)
    labels = gaussian.calibrate(new).predict(new)
    assert 5 <= (labels == -1).sum() <= 10


def test_signs_are_scikit_learns():
    train, far = make_embeddings(50), make_embeddings(1, seed=1) + 100
    gaussian = PatchGaussian().fit(train)
    assert gaussian.score_samples(far)[0] < gaussian.score_samples(train).min()
    assert gaussian.decision_function(far)[0] < 0
    assert gaussian.predict(far)[0] == -1
    assert gaussian.mahalanobis(far).min() >= 0


def test_tensors_give_tensors_and_equal_values():
    train, test = make_embeddings(20), make_embeddings(5, seed=1)
    gaussian = PatchGaussian().fit(train)
    from_tensors = PatchGaussian().fit(torch.from_numpy(train))
    distances = from_tensors.mahalanobis(torch.from_numpy(test))
    assert isinstance(distances, torch.Tensor)
    np.testing.assert_array_equal(distances.numpy(), gaussian.mahalanobis(test))
    scores = from_tensors.score_samples(torch.from_numpy(test))
    np.testing.assert_array_equal(scores.numpy(), gaussian.score_samples(test))
    np.testing.assert_array_equal(
        from_tensors.predict(torch.from_numpy(test)), gaussian.predict(test)
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_cpus_distances():
    train, test = make_embeddings(20), make_embeddings(5, seed=1)
    expected = PatchGaussian().fit(train).mahalanobis(test)
    on_gpu = PatchGaussian().fit(torch.from_numpy(train).cuda())
    assert isinstance(on_gpu.location_, np.ndarray)
    distances = on_gpu.mahalanobis(torch.from_numpy(test).cuda())
    assert distances.device.type == "cuda"
    np.testing.assert_allclose(distances.cpu().numpy(), expected, rtol=1e-4)


def test_pickle_keeps_scores_bit_for_bit_and_one_triangle():
    train, test = make_embeddings(20, n_features=30), make_embeddings(5, seed=1, n_features=30)
    gaussian = PatchGaussian(solver="full").fit(train)
    expected = gaussian.score_samples(test)
    dumped = pickle.dumps(gaussian)
    whole = gaussian.get_covariance().nbytes
    assert len(dumped) < 0.6 * whole
    held = [value.nbytes for value in vars(gaussian).values() if isinstance(value, np.ndarray)]
    assert sum(held) < 0.6 * whole
    for again in (pickle.loads(dumped), copy.deepcopy(gaussian)):
        np.testing.assert_array_equal(again.score_samples(test), expected)
        np.testing.assert_array_equal(again.get_covariance(), gaussian.get_covariance())
        again.partial_fit(train)


def test_data_frame_columns_are_remembered():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=["a", "b"])
    gaussian = PatchGaussian().fit(frame)
    assert gaussian.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names"):
        gaussian.predict(frame.rename(columns={"b": "c"}))


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((5, 3, 4)), "3 dimensions.*must be"),
        (make_embeddings(1), "1 sample"),
        (np.full((5, 2, 2, 3), np.nan), "NaN"),
        (torch.full((5, 2, 2, 3), torch.inf), "NaN or infinite"),
        (torch.zeros((1, 2, 2, 3)), "n_samples=1; at least 2"),
        (torch.zeros(()), "0 dimensions.*must be"),
        (np.zeros((5, 0, 2, 3)), "no features or positions"),
        (torch.zeros((5, 2, 2, 0)), "no features or positions"),
    ],
)
def test_bad_embeddings_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        PatchGaussian().fit(X)


def test_integer_tensors_are_refused():
    with pytest.raises(TypeError, match="must be a tensor of floats"):
        PatchGaussian().fit(torch.zeros((5, 2, 2, 3), dtype=torch.int64))


def test_another_grid_is_refused():
    gaussian = PatchGaussian().fit(make_embeddings(10))
    with pytest.raises(ValueError, match=r"shape \(4, 3, 6\).*fitted with \(3, 4, 6\)"):
        gaussian.score_samples(make_embeddings(3, grid=(4, 3)))
    with pytest.raises(ValueError, match="4 x 3 positions with 6 features"):
        gaussian.merge(PatchGaussian().fit(make_embeddings(3, grid=(4, 3))))


@pytest.mark.parametrize("solver", ["auto", "full", "low_rank"])
@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("scale", [1e101, 1e160, 1e300, 1e-101, 1e-160])
def test_values_whose_squares_float64_has_no_place_for_are_refused(scale, n, solver):
    gaussian = PatchGaussian(solver=solver, calibration=None).fit(make_embeddings(n))
    before = pickle.dumps(gaussian)
    X = make_embeddings(n, dtype=np.float64)
    X *= scale / abs(X).max()
    for samples in (X, torch.from_numpy(X)):
        for call in (
            PatchGaussian(solver=solver).fit,
            PatchGaussian(solver=solver).partial_fit,
            gaussian.partial_fit,
            gaussian.score_samples,
            gaussian.calibrate,
        ):
            what = "Divide" if scale > 1 else "Multiply"
            with pytest.raises(ValueError, match=f"absolute values of up to 1e.*{what} all"):
                call(samples)
    assert pickle.dumps(gaussian) == before


@pytest.mark.parametrize("solver", ["auto", "full", "low_rank"])
@pytest.mark.parametrize("calibration", ["training", "leave_one_out"])
@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        (1e-25, np.float32),
        (1e19, np.float32),
        (1e36, np.float32),
        (1e-80, np.float64),
        (1e90, np.float64),
    ],
)
def test_scores_do_not_depend_on_the_unit_of_the_features(scale, dtype, calibration, solver):
    # The regularization is in this unit, squared.
    train, test = make_embeddings(30, (1, 2)), make_embeddings(5, (1, 2), seed=1)
    scale = float(2.0 ** np.round(np.log2(scale)))  # so that only exponents change
    options = {"solver": solver, "calibration": calibration, "contamination": 0.4}
    expected = PatchGaussian(regularization=1e-3, **options).fit(train.astype(float))
    gaussian = PatchGaussian(regularization=1e-3 * scale**2, **options)
    gaussian.fit(train.astype(dtype) * dtype(scale))
    distances = gaussian.mahalanobis(test.astype(dtype) * dtype(scale))
    np.testing.assert_allclose(distances, expected.mahalanobis(test.astype(float)), rtol=1e-5)
    np.testing.assert_allclose(gaussian.training_scores_, expected.training_scores_, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_that_hardly_vary_keep_their_distances(dtype):
    scale = 1e-25 if dtype == np.float32 else 1e-90
    for n in (5, 40):  # of distances to the mean in units of the root of the regularization
        train = make_embeddings(n, (1, 1)).astype(dtype) * dtype(scale)
        test = make_embeddings(4, (1, 1), seed=1).astype(dtype) * dtype(scale)
        gaussian = PatchGaussian(calibration="leave_one_out", contamination=0.4).fit(train)
        exact, rows = test[:, 0, 0].astype(float), train[:, 0, 0].astype(float)
        expected = np.linalg.norm(exact / scale - rows.mean(axis=0) / scale, axis=1) * scale / 0.1
        np.testing.assert_allclose(gaussian.mahalanobis(test)[:, 0, 0], expected, rtol=1e-5)
        rest = (rows.sum(axis=0) - rows) / (n - 1)
        left_out = np.linalg.norm(rows / scale - rest / scale, axis=1) * scale / 0.1
        np.testing.assert_allclose(gaussian.training_scores_, -left_out, rtol=1e-5)


def test_distances_that_float32_has_no_place_for_are_an_error():
    gaussian = PatchGaussian().fit(make_embeddings(40))
    far = gaussian.mahalanobis(np.full((1, 3, 4, 6), 1e25, np.float32))
    exact = gaussian.mahalanobis(np.full((1, 3, 4, 6), float(np.float32(1e25))))
    np.testing.assert_allclose(far, exact, rtol=1e-5)
    constant = PatchGaussian(regularization=1e-12).fit(np.zeros((40, 3, 4, 6), np.float32))
    with pytest.raises(ValueError, match=r"overflow torch\.float32.*divide all features"):
        constant.score_samples(np.full((1, 3, 4, 6), 3e38, np.float32))


@pytest.mark.parametrize("solver", ["auto", "full", "low_rank"])
@pytest.mark.parametrize(("n", "n_features"), [(8, 30), (30, 8), (9, 8)])
@pytest.mark.parametrize("ratio", [1e6, 1e10, 1e12, 1e14, 1e18])
@pytest.mark.parametrize("calibration", ["training", "leave_one_out"])
def test_a_small_regularization_is_used_to_the_last_digit_or_refused(
    calibration, ratio, n, n_features, solver
):
    rng = np.random.default_rng(0)
    train, new = rng.normal(size=(n, n_features)), rng.normal(size=(5, n_features))
    regularization = 1 / ratio
    options = {"solver": solver, "regularization": regularization, "contamination": 0.4}
    gaussian = PatchGaussian(calibration=calibration, **options)
    # Sums of squares lose it first.
    if n <= n_features and ratio > (1e9 if solver == "full" else 1e17):
        with pytest.raises(ValueError, match="as far as float64 can tell"):
            gaussian.fit(train)
        in_parts = PatchGaussian(calibration=calibration, **options).partial_fit(train)
        with pytest.raises(ValueError, match=r"n_samples=8.*More samples \(partial_fit\)"):
            in_parts.score_samples(new)
        return
    gaussian.fit(train)
    expected = exact_distances(train, np.concatenate([new, train]), regularization)
    distances = gaussian.mahalanobis(np.concatenate([new, train]))
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    if calibration == "training":
        np.testing.assert_allclose(-gaussian.training_scores_, expected[5:], rtol=1e-5)
    else:
        for index in (0, n - 1):
            rest = np.delete(train, index, axis=0)
            left_out = exact_distances(rest, train[index : index + 1], regularization)
            np.testing.assert_allclose(-gaussian.training_scores_[index], left_out[0], rtol=1e-5)


def exact_distances(train, test, regularization):
    """By the singular values of the centred samples, so without a sum of squares to lose in."""
    mean = train.mean(axis=0)
    _, values, directions = np.linalg.svd(train - mean, full_matrices=True)
    variances = np.zeros(len(mean))
    # Centring leaves nothing in one more direction.
    rank = min(len(train) - 1, len(mean))
    variances[:rank] = values[:rank] ** 2 / (len(train) - 1)
    return np.sqrt((((test - mean) @ directions.T) ** 2 / (variances + regularization)).sum(axis=1))


@pytest.mark.parametrize("solver", ["auto", "full", "low_rank"])
@pytest.mark.parametrize("calibration", [None, "training", "leave_one_out"])
@pytest.mark.parametrize("n", [3, 40])
@pytest.mark.parametrize("kind", ["zeros", "one value", "copies", "one of them constant"])
def test_what_cannot_be_scored_is_not_fitted(kind, n, calibration, solver):
    X = np.random.default_rng(0).normal(size=(n, 4))
    if kind == "zeros":
        X[:] = 0
    elif kind == "one value":
        X[:] = 0.1
    elif kind == "copies":
        X[:, 3] = X[:, 0] / 3
    else:
        X[:, 2] = 1e6
    options = {"regularization": 0.0, "solver": solver, "calibration": calibration}
    with pytest.raises(ValueError, match="Use a larger regularization"):
        PatchGaussian(**options).fit(X)
    gaussian = PatchGaussian(**options).partial_fit(X)
    gaussian.merge(PatchGaussian(**options).partial_fit(X))
    for call in (gaussian.score_samples, gaussian.mahalanobis, gaussian.calibrate):
        with pytest.raises(ValueError, match=f"cannot be scored.*n_samples={2 * n}") as raised:
            call(X + 1)
        assert not isinstance(raised.value, np.linalg.LinAlgError)
    with pytest.raises(ValueError, match="cannot be scored"):
        PatchGaussian(calibration=None).fit(X).set_params(regularization=0).score_samples(X)
    assert np.isfinite(gaussian.set_params(regularization=0.1).score_samples(X)).all()


def test_one_sample_has_no_distances_yet():
    gaussian = PatchGaussian().partial_fit(make_embeddings(1))
    with pytest.raises(ValueError, match="n_samples=1"):
        gaussian.score_samples(make_embeddings(2))
    gaussian.partial_fit(make_embeddings(1, seed=1)).score_samples(make_embeddings(2))


def test_leave_one_out_of_two_samples_is_refused():
    with pytest.raises(ValueError, match="needs at least 3 training samples, found 2"):
        PatchGaussian(calibration="leave_one_out").fit(make_embeddings(2))


def test_a_singular_covariance_says_what_to_do():
    with pytest.raises(np.linalg.LinAlgError, match="larger regularization"):
        PatchGaussian(regularization=0).fit(make_embeddings(3))


@pytest.mark.parametrize(
    "parameters", [{"regularization": -1}, {"contamination": 0.6}, {"calibration": "guess"}]
)
def test_parameters_are_checked(parameters):
    (name,) = parameters
    with pytest.raises(ValueError, match=f"'{name}' parameter of PatchGaussian must be"):
        PatchGaussian(**parameters).fit(make_embeddings(5))


def test_a_fit_that_raises_leaves_the_estimator_as_it_was():
    gaussian = PatchGaussian().fit(make_embeddings(10))
    before = pickle.dumps(gaussian)
    for call in (gaussian.fit, gaussian.partial_fit):
        with pytest.raises(ValueError, match="NaN"):
            call(np.full((5, 3, 4, 6), np.nan))
        assert pickle.dumps(gaussian) == before


def test_samples_labelled_anomalous_are_left_out(rng):
    X = rng.normal(size=(30, 4))
    y = np.where(np.arange(30) % 5 == 0, -1, 1)
    expected = PatchGaussian().fit(X[y == 1])
    gaussian = PatchGaussian().fit(X, y)
    np.testing.assert_array_equal(gaussian.location_, expected.location_)
    assert gaussian.offset_ == expected.offset_
    parts = PatchGaussian().partial_fit(X[:10], y[:10]).partial_fit(X[10:], y[10:])
    np.testing.assert_allclose(parts.get_covariance(), expected.get_covariance())
    # Other targets, which a pipeline may hand on, play no part.
    everything = PatchGaussian().fit(X)
    ignored = PatchGaussian().fit(X, np.arange(30.0))
    np.testing.assert_array_equal(ignored.location_, everything.location_)


@given(
    n=st.integers(3, 30), n_features=st.integers(1, 20), scale=st.sampled_from([0.1, 1, 30]),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@settings(deadline=None, max_examples=30)
def test_low_rank_and_full_give_the_same_distances(n, n_features, scale, dtype):
    train = make_embeddings(n, (2, 2), n_features, dtype=dtype) * dtype(scale)
    test = make_embeddings(4, (2, 2), n_features, seed=1, dtype=dtype) * dtype(scale)
    for calibration in ("training", "leave_one_out"):
        full, low = (
            PatchGaussian(solver=solver, calibration=calibration, contamination=0.4).fit(train)
            for solver in ("full", "low_rank")
        )
        tolerance = 1e-4 if dtype == np.float32 else 1e-7
        np.testing.assert_allclose(low.mahalanobis(test), full.mahalanobis(test), rtol=tolerance)
        np.testing.assert_allclose(low.training_scores_, full.training_scores_, rtol=tolerance)
        got, want = low.get_covariance(), full.get_covariance()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * scale)


def test_samples_are_kept_until_they_outnumber_the_features():
    train = make_embeddings(12, n_features=6)
    gaussian = PatchGaussian()
    for count in range(1, 13):
        gaussian.partial_fit(train[count - 1 : count])
        assert hasattr(gaussian, "samples_") == (count <= 6)
        assert hasattr(gaussian, "_scatter") == (count > 6)
        if count > 1:
            expected = PatchGaussian(solver="full").fit(train[:count])
            test = make_embeddings(3, seed=1, n_features=6)
            np.testing.assert_allclose(
                gaussian.mahalanobis(test), expected.mahalanobis(test), rtol=1e-4
            )


@pytest.mark.parametrize("counts", [(2, 3), (3, 20), (20, 3), (20, 21)])
def test_states_of_both_kinds_merge(counts):
    train = make_embeddings(sum(counts), dtype=np.float64)
    test = make_embeddings(3, seed=1, dtype=np.float64)
    first, second = PatchGaussian().fit(train[: counts[0]]), PatchGaussian().fit(train[counts[0] :])
    before = first.mahalanobis(test)
    merged = copy.deepcopy(first).merge(second)
    expected = PatchGaussian(solver="full").fit(train).mahalanobis(test)
    np.testing.assert_allclose(merged.mahalanobis(test), expected, rtol=1e-9)
    np.testing.assert_array_equal(first.mahalanobis(test), before)


def test_large_products_with_the_samples_are_not_kept(plain_kernels, monkeypatch):
    train, test = make_embeddings(5, n_features=50), make_embeddings(4, n_features=50, seed=1)
    kept = PatchGaussian(calibration=None).fit(train)
    expected = kept.mahalanobis(test)
    assert kept._whitening(torch.device("cpu"), torch.float32).samples is None
    monkeypatch.setattr("skpadim.gaussian._mahalanobis._MAX_PRODUCT_BYTES", 1)
    gaussian = PatchGaussian(calibration=None).fit(train)
    np.testing.assert_allclose(gaussian.mahalanobis(test), expected, rtol=1e-5)
    whitening = gaussian._whitening(torch.device("cpu"), torch.float32)
    assert np.shares_memory(whitening.samples.numpy(), gaussian.samples_)
    assert whitening.factors.shape == (12, 15)


def test_low_rank_pickles_keep_scores_bit_for_bit():
    train, test = make_embeddings(4), make_embeddings(5, seed=1)
    gaussian = PatchGaussian().fit(train)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(gaussian)).score_samples(test), gaussian.score_samples(test)
    )


@pytest.mark.parametrize("solver", ["auto", "low_rank"])
def test_too_few_samples_without_regularization_is_an_error(solver):
    with pytest.raises(np.linalg.LinAlgError, match="Use a larger regularization"):
        PatchGaussian(regularization=0, solver=solver).fit(make_embeddings(4))


def test_low_rank_keeps_its_digits_where_features_are_large():
    train, test = make_embeddings(5) * 300, make_embeddings(7, seed=1) * 300
    distances = PatchGaussian().fit(train).mahalanobis(test)
    np.testing.assert_allclose(distances, reference_distances(train, test, 0.01), rtol=1e-4)


def test_leave_one_out_keeps_its_digits_where_samples_barely_outnumber_features():
    train = make_embeddings(8, (1, 2), n_features=6) * 100
    gaussian = PatchGaussian(calibration="leave_one_out", contamination=0.2, solver="full")
    scores = gaussian.fit(train).training_scores_
    for index in range(8):
        rest = np.delete(train, index, axis=0)
        distances = reference_distances(rest, train[index : index + 1], 0.01)
        np.testing.assert_allclose(scores[index], -distances.max(), rtol=1e-4)


@pytest.mark.parametrize("way", ["compiled_kernels", "plain_kernels"])
@pytest.mark.parametrize("n_features", [1, 31, 64, 100, 263])
def test_distances_are_solutions_for_any_number_of_features(n_features, way, request):
    request.getfixturevalue(way)
    scatter = make_scatter(3, n_features)
    triangles = lower_triangles(torch.from_numpy(scatter))
    factors = whitening_factors(triangles, 9, 0.1, torch.float32)
    embeddings = torch.randn(4, 3, n_features, generator=torch.Generator().manual_seed(0))
    mean = torch.full((3, n_features), 0.5)
    covariance = scatter / 9 + 0.1 * np.eye(n_features)
    difference = (embeddings - mean).double().numpy()[..., None]
    squared = difference.swapaxes(-1, -2) @ np.linalg.solve(covariance, difference)
    np.testing.assert_allclose(
        mahalanobis_distances(embeddings, mean, factors), np.sqrt(squared[..., 0, 0]), rtol=1e-5
    )
