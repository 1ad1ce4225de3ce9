"""Means and scatters are those of the samples, however these come."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skpadim.gaussian._linalg import symmetric_matrices
from skpadim.gaussian._moments import Moments


def make_samples(*shape):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 5


def assert_moments(moments, samples):
    """Against NumPy in float64, position by position."""
    rows = samples.double().numpy()
    assert moments.count == len(rows)
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-13)
    scatters = symmetric_matrices(moments.scatter)
    for position in range(rows.shape[1]):
        centred = rows[:, position] - rows[:, position].mean(axis=0)
        expected = centred.T @ centred
        np.testing.assert_allclose(scatters[position], expected, atol=1e-13 * 9 * len(rows) * 5)


@pytest.fixture(params=["compiled", "plain"], autouse=True)
def way(request):
    """Both ways to add a batch, the first where it can be had."""
    request.getfixturevalue(f"{request.param}_kernels")


@settings(max_examples=40, deadline=None)
@given(
    n_samples=st.integers(1, 150),
    n_positions=st.integers(1, 40),
    n_features=st.integers(1, 50),
)
def test_moments_of_a_batch(n_samples, n_positions, n_features):
    samples = make_samples(n_samples, n_positions, n_features)
    assert_moments(Moments.of(samples), samples)


@pytest.mark.parametrize("n_features", [1, 2, 3, 5, 7, 100, 256, 300])
def test_moments_of_batches_and_of_merged_parts(n_features):
    samples = make_samples(90, 3, n_features)
    moments = Moments.of(samples[:20])
    for batch in samples[20:60].split(17):
        moments.update(batch)
    moments.update(samples[:0])
    assert_moments(moments.merge(Moments.of(samples[60:])), samples)


@pytest.mark.parametrize(
    "change",
    [
        lambda samples: samples.mT.contiguous().mT,
        lambda samples: samples.transpose(0, 1).contiguous().transpose(0, 1),
        lambda samples: torch.nn.functional.pad(samples, (3, 2))[:, :, 3:-2],
        lambda samples: samples[::3],
        lambda samples: samples.double(),
        torch._neg_view,
    ],
    ids=["features apart", "positions first", "part", "every third", "float64", "negated view"],
)
def test_any_layout_of_samples_will_do(change):
    samples = change(make_samples(30, 4, 9))
    assert_moments(Moments.of(samples), samples)


def test_the_number_of_threads_changes_nothing(threads):
    samples = make_samples(80, 70, 20)
    found = []
    for n_threads in (1, 2, 5):
        threads(n_threads)
        found.append(Moments.of(samples[:50]).update(samples[50:]))
    assert all(torch.equal(found[0].scatter, other.scatter) for other in found)
    assert all(torch.equal(found[0].mean, other.mean) for other in found)


def test_not_a_number_stays_with_its_position():
    samples = make_samples(20, 3, 30)
    samples[4, 1, 7] = torch.nan
    moments = Moments.of(samples)
    assert moments.mean[1, 7].isnan()
    assert moments.mean.isnan().sum() == 1
    assert moments.scatter[[0, 2]].isfinite().all()
