"""Tests with compiled loops and without."""

from contextlib import contextmanager

import pytest

from skpadim.gaussian import _linalg


@pytest.fixture
def compiled_kernels():
    """Skip where there are none."""
    if not _linalg.has_kernels():
        pytest.skip("needs Numba")


@pytest.fixture
def plain_kernels_within(monkeypatch):
    """Within a block there are no compiled loops."""

    @contextmanager
    def within():
        with monkeypatch.context() as patch:
            patch.setattr(_linalg, "_kernels", lambda: None)
            yield

    return within


@pytest.fixture
def plain_kernels(plain_kernels_within):
    """There are no compiled loops."""
    with plain_kernels_within():
        yield
