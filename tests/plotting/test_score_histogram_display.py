import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skpadim import PatchGaussian
from skpadim.plotting import ScoreHistogramDisplay

plt = pytest.importorskip("matplotlib.pyplot")
show = ScoreHistogramDisplay.from_predictions


def texts(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def heights(bars):
    """Heights of the steps of a filled histogram."""
    (outline,) = bars
    _, y = outline.get_xy().T
    return y[1 : len(y) // 2 : 2]


def test_bars_are_shares_of_each_kind(rng):
    y = np.repeat([1, -1], [30, 10])
    scores = np.r_[rng.normal(0, 1, 30), rng.normal(-5, 1, 10)]
    edges = np.linspace(-9, 4, 14)
    display = show(y, scores, calibration_scores=rng.normal(0, 1, 100), bins=edges)
    assert list(display.bars_) == ["good", "defective", "left out"]
    for kind, values in (("good", scores[:30]), ("defective", scores[30:])):
        expected = np.histogram(values, edges)[0] / len(values)
        np.testing.assert_allclose(heights(display.bars_[kind]), expected)
    assert display.threshold_line_ is None
    assert texts(display) == ["30 good", "10 defective", "100 left out"]


def test_the_legend_counts_what_the_threshold_flags():
    display = show([0, 0, 0, 1, 1], [-1, -2, -4, -5, -2], threshold=-3)  # 1 is defective
    assert texts(display) == [
        "3 good (1 flagged)",
        "2 defective (1 flagged)",
        "threshold \N{MINUS SIGN}3",
    ]
    assert display.threshold_line_.get_xdata() == [-3, -3]


def test_an_estimator_s_scores_threshold_and_left_out_scores_are_shown(detector, parts):
    display = ScoreHistogramDisplay.from_estimator(detector, parts.data[20:], parts.target[20:])
    np.testing.assert_array_equal(display.scores, detector.score_samples(parts.data[20:]))
    assert display.calibration_scores is detector.calibration_scores_
    assert display.threshold_line_.get_xdata()[0] == detector.offset_
    n_found = (detector.predict(parts.data[24:]) == -1).sum()
    assert texts(display)[1] == f"9 defective ({n_found} flagged)"
    assert texts(display)[2].startswith("20 left out (")


def test_without_labels_images_are_new_and_a_pipeline_ends_in_the_detector(rng):
    pipeline = make_pipeline(StandardScaler(), PatchGaussian(calibration="leave_one_out"))
    pipeline.fit(rng.normal(size=(60, 3)))
    display = ScoreHistogramDisplay.from_estimator(pipeline, rng.normal(size=(10, 3)))
    assert list(display.bars_) == ["new", "left out"]
    assert display.threshold == pipeline[-1].offset_
    figure, axes = plt.subplots()
    pipeline[-1].set_params(calibration=None).fit(rng.normal(size=(60, 3)))
    display = ScoreHistogramDisplay.from_estimator(pipeline, rng.normal(size=(10, 3)), ax=axes)
    assert display.figure_ is figure
    assert texts(display) == ["10 new"]


def test_kinds_are_told_apart_in_grey(rng):
    display = show([1, 1, -1, -1], [0, 1, -1, -2], calibration_scores=[0.5, 1], threshold=-0.5)
    good, defective, left_out = (
        display.bars_[kind][0] for kind in ("good", "defective", "left out")
    )
    lightness = [
        np.dot(bar.get_facecolor()[:3], [0.2126, 0.7152, 0.0722]) for bar in (good, defective)
    ]
    assert lightness[0] - lightness[1] > 0.15
    assert (good.get_hatch(), defective.get_hatch()) == (None, "///")
    assert not left_out.get_fill()
    assert left_out.get_linestyle() != good.get_linestyle()


def test_labels_of_another_number_are_refused():
    with pytest.raises(ValueError, match="y has 2 labels for 3 images"):
        show([1, -1], [0.0, 1.0, 2.0])


def test_the_legend_covers_nothing():
    _, axes = plt.subplots(2, figsize=(7, 6), sharey=True, layout="constrained")
    for ax, scores in zip(axes, ([-1, -2, -9], [-1, -1, -9]), strict=True):
        display = show([1, 1, -1], scores, calibration_scores=[-1, -2], threshold=-3, ax=ax)
        display.figure_.canvas.draw()
        legend = ax.get_legend().get_window_extent()
        bars = [bar.get_window_extent() for outline in display.bars_.values() for bar in outline]
        for drawn in (*bars, display.threshold_line_.get_window_extent()):
            assert drawn.y1 < legend.y0
