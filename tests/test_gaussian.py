"""PatchGaussian: the paper's formulas, merging, and scikit-learn's own checks."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from skpadim import PatchGaussian


@parametrize_with_checks([PatchGaussian()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
