"""regularization="auto" is scikit-learn's OAS, of one position and on average over many."""

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS

from skpadim import PatchGaussian
from skpadim.gaussian._moments import Moments
from skpadim.gaussian._shrinkage import chosen_regularization, oas_shares


def make_embeddings(n, grid=(3, 4), n_features=6, scale=1.0):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(n_features, n_features))
    return scale * (rng.normal(size=(n, *grid, n_features)) @ mixing) + 1


@pytest.mark.parametrize("n", [5, 30])
def test_the_number_is_that_of_the_formula(n):
    embeddings, d = make_embeddings(n, grid=(1, 1))[:, 0, 0], 6
    covariance = np.cov(embeddings, rowvar=False)
    trace, squares = np.trace(covariance), np.trace(covariance @ covariance)
    share = ((1 - 2 / d) * squares + trace**2) / ((n + 1 - 2 / d) * (squares - trace**2 / d))
    gaussian = PatchGaussian(regularization="auto").fit(embeddings)
    expected = (1 - share) * covariance + share * trace / d * np.eye(d)
    np.testing.assert_allclose((1 - share) * gaussian.get_covariance(), expected, rtol=1e-10)
    expected = covariance + gaussian.regularization_ * np.eye(d)
    np.testing.assert_allclose(gaussian.get_covariance(), expected, rtol=1e-10)


def test_shares_are_those_of_scikit_learn_but_for_what_it_omits():
    embeddings = make_embeddings(20, grid=(1, 1), n_features=200)[:, 0, 0]
    share, _ = oas_shares(Moments.of(torch.from_numpy(embeddings)[:, None]))
    # Of the article's formula it leaves out terms of 2 / D.
    np.testing.assert_allclose(share.item(), OAS().fit(embeddings).shrinkage_, rtol=0.02)


@pytest.mark.parametrize("sharing", ["position", "neighbourhood", "image"])
@pytest.mark.parametrize("n", [4, 20])
def test_the_same_number_is_chosen_in_whatever_way_samples_come(sharing, n):
    embeddings = make_embeddings(n)
    parameters = {"regularization": "auto", "sharing": sharing, "contamination": 0.3}
    whole = PatchGaussian(**parameters, calibration="leave_one_out").fit(embeddings)
    for solver in ("auto", "full"):
        parts = PatchGaussian(**parameters, solver=solver).partial_fit(embeddings[:1])
        parts.partial_fit(embeddings[1:3])
        parts.merge(PatchGaussian(**parameters).partial_fit(embeddings[3:]))
        np.testing.assert_allclose(parts.regularization_, whole.regularization_, rtol=1e-10)
    plain = PatchGaussian(regularization=whole.regularization_, sharing=sharing)
    plain.set_params(calibration="leave_one_out", contamination=0.3).fit(embeddings)
    np.testing.assert_array_equal(plain.training_scores_, whole.training_scores_)
    assert plain.regularization_ == plain.regularization == whole.regularization_


def test_the_unit_of_the_features_does_not_change_scores():
    embeddings = make_embeddings(9)
    for scale in (1e-6, 1e6):
        one, other = (
            PatchGaussian(regularization="auto").fit(factor * embeddings) for factor in (1, scale)
        )
        np.testing.assert_allclose(
            one.mahalanobis(embeddings), other.mahalanobis(scale * embeddings), rtol=1e-9
        )


def test_positions_without_variance_have_no_say():
    embeddings = make_embeddings(9, grid=(1, 2))
    alone = PatchGaussian(regularization="auto").fit(embeddings[:, :, :1]).regularization_
    embeddings[:, :, 1] = 7
    both = PatchGaussian(regularization="auto").fit(embeddings).regularization_
    np.testing.assert_allclose(both, alone, rtol=1e-12)
    with pytest.raises(ValueError, match="larger regularization"):
        PatchGaussian(regularization="auto").fit(np.ones((9, 2, 2, 3)))


def test_variances_that_are_all_alike_give_a_finite_number():
    moments = Moments.of(torch.from_numpy(np.vstack([np.eye(3), -np.eye(3)]))[:, None])
    assert 0 < chosen_regularization("auto", moments, "position", np.ones((1, 1), bool)) < np.inf


def test_a_model_of_one_sample_chooses_when_there_are_more():
    embeddings = make_embeddings(6)
    gaussian = PatchGaussian(regularization="auto").partial_fit(embeddings[:1])
    with pytest.raises(ValueError, match="n_samples=1"):
        gaussian.score_samples(embeddings)
    with pytest.raises(AttributeError, match="partial_fit more"):
        gaussian.get_covariance()
    gaussian.partial_fit(embeddings[1:])
    expected = PatchGaussian(regularization="auto").fit(embeddings)
    np.testing.assert_allclose(
        gaussian.score_samples(embeddings), expected.score_samples(embeddings), rtol=1e-10
    )


def test_the_number_that_is_set_after_a_fit_is_used():
    embeddings = make_embeddings(9)
    gaussian = PatchGaussian(regularization="auto").fit(embeddings)
    chosen = gaussian.regularization_
    expected = PatchGaussian(regularization=1.0).fit(embeddings).mahalanobis(embeddings)
    gaussian.set_params(regularization=1.0)
    np.testing.assert_array_equal(gaussian.mahalanobis(embeddings), expected)
    assert gaussian.regularization_ == 1.0
    other = PatchGaussian(regularization=1.0).fit(embeddings).set_params(regularization="auto")
    np.testing.assert_allclose(other.regularization_, chosen, rtol=1e-12)
