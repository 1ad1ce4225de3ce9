import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skpadim import PatchEmbedder, PatchGaussian
from skpadim.plotting import PatchGaussianDisplay

plt = pytest.importorskip("matplotlib.pyplot")
show = PatchGaussianDisplay.from_estimator


@pytest.fixture
def gaussian(rng):
    embeddings = rng.normal(size=(40, 5, 6, 4))
    embeddings[:, 3, 1] *= 4
    return PatchGaussian().fit(embeddings)


def test_the_map_is_the_root_of_the_mean_variance(gaussian):
    display = show(gaussian)
    variances = np.diagonal(gaussian.get_covariance(), axis1=-2, axis2=-1)
    np.testing.assert_allclose(display.image_.get_array(), np.sqrt(variances.mean(axis=-1)))
    assert display.position == (3, 1)  # where it is largest
    assert display.axes_[1].get_title() == "expected at row 3, column 1"


def test_the_profile_is_mean_and_standard_deviation_at_the_position(gaussian):
    display = show(gaussian, position=(0, 5))
    np.testing.assert_array_equal(display.line_.get_ydata(), gaussian.location_[0, 5])
    sd = np.sqrt(np.diagonal(gaussian.get_covariance()[0, 5]))
    (band,) = display.band_.get_paths()
    low, high = band.get_extents().intervaly
    assert low == pytest.approx((gaussian.location_[0, 5] - sd).min())
    assert high == pytest.approx((gaussian.location_[0, 5] + sd).max())
    mean = gaussian.location_.mean(axis=(0, 1))
    np.testing.assert_allclose(display.overall_line_.get_ydata(), mean)


def test_detectors_and_pipelines_show_the_gaussians_that_they_hold(detector, good):
    display = show(detector)
    assert display.spread.shape == detector.embedder_.grid_
    embedder = PatchEmbedder("filter_bank", image_size=64, random_state=0)
    pipeline = make_pipeline(embedder, PatchGaussian()).fit(good[:20])
    figure, axes = plt.subplots(1, 2)
    other = show(pipeline, ax=axes)
    assert other.figure_ is figure
    np.testing.assert_allclose(other.spread, display.spread, rtol=1e-4)


def test_plain_features_and_places_off_the_grid_are_refused(gaussian, rng):
    with pytest.raises(ValueError, match="plain features have no positions"):
        show(PatchGaussian().fit(rng.normal(size=(20, 3))))
    with pytest.raises(ValueError, match=r"position=\(5, 0\) must be .* which is 5 x 6"):
        show(gaussian, position=(5, 0))


def test_positions_without_a_gaussian_are_hatched(rng):
    location, variances = rng.normal(size=(4, 5, 3)), rng.uniform(1, 2, size=(4, 5, 3))
    location[:, :2] = variances[:, :2] = np.nan
    display = PatchGaussianDisplay(location, variances).plot()
    assert display.position[1] >= 2
    assert np.isnan(display.image_.get_array().filled(np.nan)[:, :2]).all()
    assert np.isfinite(display.overall_line_.get_ydata()).all()
    assert display.axes_[0].get_title() == "hatched: not inspected"
