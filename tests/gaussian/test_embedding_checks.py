"""Embeddings of any container give the same Gaussians, or are refused in words."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from skpadim import PatchGaussian


@pytest.fixture
def embeddings():
    return np.random.default_rng(0).normal(size=(8, 2, 2, 3))


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a.astype(">f8"),
        lambda a: a.astype(np.longdouble),
        lambda a: a.astype(object),
        lambda a: a.tolist(),
        lambda a: np.flip(np.flip(a).copy()),
        lambda a: np.ma.array(a),
        lambda a: [torch.from_numpy(one) for one in a],
        lambda a: torch.from_numpy(a).requires_grad_(),
    ],
)
def test_embeddings_of_any_container_give_the_same_scores(embeddings, convert):
    expected = PatchGaussian().fit(embeddings).score_samples(embeddings)
    for X, known in ((embeddings, expected), (embeddings[:, 0, 0], None)):
        known = PatchGaussian().fit(X).score_samples(X) if known is None else known
        found = PatchGaussian().fit(convert(X)).score_samples(convert(X))
        np.testing.assert_allclose(found, known, rtol=1e-12)


def test_a_table_of_nullable_numbers_is_as_good_as_an_array(embeddings):
    plain = embeddings[:, 0, 0]
    table = pd.DataFrame(plain, columns=list("abc")).astype("Float64")
    np.testing.assert_array_equal(
        PatchGaussian().fit(table).score_samples(table),
        PatchGaussian().fit(plain).score_samples(plain),
    )


@pytest.mark.parametrize(
    ("convert", "error", "message"),
    [
        (lambda a: np.ma.masked_greater(a, 1), ValueError, "X is a masked array, and .* masked"),
        (lambda a: torch.from_numpy(a).to_sparse(), TypeError, r"X is a sparse tensor.*to_dense"),
        (lambda a: torch.from_numpy(a).to("meta"), TypeError, "X is on torch's meta device"),
        (
            lambda a: scipy.sparse.csr_array(a.reshape(8, -1)),
            TypeError,
            r"X is sparse.*X.toarray\(\)",
        ),
    ],
)
def test_embeddings_that_would_be_misread_are_refused(embeddings, convert, error, message):
    fitted = PatchGaussian().fit(embeddings)
    for call in (PatchGaussian().fit, PatchGaussian().partial_fit, fitted.score_samples):
        with pytest.raises(error, match=message):
            call(convert(embeddings))
