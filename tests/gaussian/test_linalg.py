"""Products, factors and triangles of many small matrices, beside NumPy's of one at a time."""

import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from skpadim.gaussian._linalg import (
    blas_threads,
    cholesky,
    gram_matrices,
    inverse_factors,
    lower_matrices,
    lower_triangles,
    symmetric_matrices,
    triangle_rows,
    triangle_size,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif("not torch.cuda.is_available()"))]


def make_rows(n_matrices, n_rows, n_columns):
    return np.random.default_rng(0).normal(size=(n_matrices, n_rows, n_columns))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (4, 7, 5), (2, 40, 100)])
def test_gram_matrices_are_products_with_the_transposed(shape, device):
    rows = make_rows(*shape)
    expected = np.stack([one @ one.T for one in rows])
    tensor = torch.from_numpy(rows).to(device)
    np.testing.assert_allclose(gram_matrices(tensor).cpu(), expected, rtol=1e-12, atol=1e-12)
    # As views whose rows are not one after the other, too, or whose columns are.
    swapped = tensor.transpose(0, 1).contiguous().transpose(0, 1)
    np.testing.assert_allclose(gram_matrices(swapped).cpu(), expected, rtol=1e-12, atol=1e-12)
    turned = gram_matrices(tensor.mT.contiguous().mT)
    np.testing.assert_allclose(turned.cpu(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_factors_and_their_inverses_are_numpys(device):
    matrices = np.stack([one @ one.T for one in make_rows(3, 6, 20)])
    expected = np.linalg.cholesky(matrices)
    # Of the upper triangles nothing is read.
    tensor = torch.from_numpy(np.tril(matrices) + np.triu(np.full((6, 6), 9.0), 1)).to(device)
    factors = cholesky(tensor, 0.01)
    np.testing.assert_allclose(factors.cpu(), expected, rtol=1e-12)
    np.testing.assert_allclose(
        inverse_factors(factors).cpu(), np.linalg.inv(expected), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("device", DEVICES)
def test_one_matrix_without_a_factor_is_an_error_that_says_what_to_do(device):
    matrices = torch.eye(4, dtype=torch.float64, device=device).repeat(3, 1, 1)
    matrices[1, 2, 2] = -1
    with pytest.raises(np.linalg.LinAlgError, match=r"regularization=0\.5.*larger"):
        cholesky(matrices, 0.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [1, 2, 5, 33])
def test_triangles_hold_all_of_symmetric_matrices(n, device):
    matrices = np.stack([one @ one.T for one in make_rows(4, n, n)])
    triangles = lower_triangles(torch.from_numpy(matrices).to(device))
    assert triangles.shape == (4, triangle_size(n))
    assert triangle_rows(triangle_size(n)) == n
    np.testing.assert_array_equal(triangles[2].cpu(), matrices[2][np.tril_indices(n)])
    np.testing.assert_array_equal(symmetric_matrices(triangles).cpu(), matrices)
    np.testing.assert_array_equal(lower_matrices(triangles).cpu(), np.tril(matrices))
    halves = triangles.to(torch.bfloat16)
    assert torch.equal(symmetric_matrices(halves), symmetric_matrices(triangles).to(halves.dtype))


@pytest.fixture
def two_blas_threads():
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.usefixtures("two_blas_threads")
def test_a_lower_limit_of_the_users_stays():
    def openblas_threads():
        return {i["num_threads"] for i in threadpool_info() if i["internal_api"] == "openblas"}

    with threadpool_limits(1, user_api="blas"), blas_threads(2):
        assert openblas_threads() <= {1}


@pytest.mark.usefixtures("two_blas_threads")
def test_the_limit_on_threads_is_lifted_whoever_else_sets_it():
    def openblas_threads():
        return [
            library["num_threads"]
            for library in threadpool_info()
            if library.get("threading_layer") == "pthreads" and "numpy" in library["filepath"]
        ]

    before = openblas_threads()
    if before in ([], [1]):
        pytest.skip("NumPy has no OpenBLAS with threads of its own here")
    inside, leave = threading.Event(), threading.Event()

    def other():
        with blas_threads(1):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with blas_threads(1):
        assert openblas_threads() == [1]
        with blas_threads(1):
            pass
        thread.start()
        assert inside.wait(10)
        assert openblas_threads() == [1]
    leave.set()
    thread.join()
    assert openblas_threads() == before
    with pytest.raises(ZeroDivisionError), blas_threads(1):
        raise ZeroDivisionError
    assert openblas_threads() == before
