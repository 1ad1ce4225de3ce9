import numpy as np
import pytest

from skpadim import PadimDetector
from skpadim.metrics import aupro_score, evaluate, pro_curve
from skpadim.plotting import ProCurveDisplay

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def pairs(rng):
    masks = np.zeros((6, 32, 32), bool)
    masks[3:, 4:9, 5:20] = True
    masks[4, 20:30, 20:30] = True
    return masks, rng.normal(size=masks.shape) + 1.5 * masks


def test_the_line_is_the_curve_up_to_the_limit(pairs):
    display = ProCurveDisplay.from_predictions(*pairs, max_fpr=0.2)
    fpr, pro, _ = pro_curve(*pairs)
    np.testing.assert_array_equal(display.fpr, fpr)
    np.testing.assert_array_equal(display.pro, pro)
    x, y = display.line_.get_data()
    assert x[-1] == 0.2
    assert display.ax_.get_xlim() == (0, 0.2)
    assert {*zip(x[:-1], y[:-1], strict=True)} <= {*zip(fpr, pro, strict=True)}
    assert y[-1] == np.interp(0.2, fpr, pro)
    # The area under what is drawn is that in the legend.
    area = np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / 0.2
    assert area == pytest.approx(aupro_score(*pairs, max_fpr=0.2), abs=2e-3)
    assert display.aupro == aupro_score(*pairs, max_fpr=0.2)


def test_the_legend_has_names_and_areas(pairs):
    display = ProCurveDisplay.from_predictions(*pairs, name="mine", plot_chance_level=True)
    other = ProCurveDisplay.from_predictions(pairs[0], -pairs[1], ax=display.ax_)
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == [
        f"mine (AUPRO = {display.aupro:.2f})",
        "chance",
        f"AUPRO = {other.aupro:.2f}",
    ]
    assert display.chance_level_.get_data()[1].tolist() == [0, 0.3]
    assert "up to 0.3" in display.ax_.get_xlabel()
    assert display.ax_.get_ylabel() == "Per-region overlap"


def test_curves_of_one_axes_are_told_apart_in_grey_and_may_be_styled(pairs):
    first = ProCurveDisplay.from_predictions(*pairs)
    second = ProCurveDisplay.from_predictions(*pairs, ax=first.ax_)
    assert second.figure_ is first.figure_
    assert first.line_.get_linestyle() != second.line_.get_linestyle()
    third = ProCurveDisplay.from_predictions(*pairs, ax=first.ax_, linestyle="-", color="red")
    assert third.line_.get_linestyle() == "-"
    assert third.line_.get_color() == "red"


def test_an_estimator_s_curve_is_that_of_evaluate(detector, parts):
    X, y, masks = (each[20:] for each in (parts.data, parts.target, parts.masks))
    display = ProCurveDisplay.from_estimator(detector, X, masks)
    assert display.aupro == evaluate(detector, X, y, masks)["aupro_0.3"]
    assert display.line_.get_label() == f"PadimDetector (AUPRO = {display.aupro:.2f})"
    exact = ProCurveDisplay.from_estimator(detector, X, masks, exact=True, name="exact")
    assert exact.aupro == evaluate(detector, X, y, masks, exact=True)["aupro_0.3"]


def test_what_is_not_inspected_is_in_no_curve(good, parts):
    roi = np.zeros((64, 64), bool)
    roi[8:56, 8:56] = True
    detector = PadimDetector("filter_bank", image_size=64, crop_size=None, roi=roi, random_state=0)
    detector.fit(good[:20])
    X, y, masks = (each[20:] for each in (parts.data, parts.target, parts.masks))
    display = ProCurveDisplay.from_estimator(detector, X, masks)
    assert display.aupro == evaluate(detector, X, y, masks)["aupro_0.3"]


def test_a_curve_of_many_points_is_drawn_with_few():
    steps = np.linspace(0, 1, 200_001)
    display = ProCurveDisplay(steps, np.sqrt(steps)).plot()
    assert len(display.line_.get_xdata()) < 2500
    x, y = display.line_.get_data()
    np.testing.assert_allclose(y, np.sqrt(x), atol=1e-6)
    assert np.diff(x).max() < 1e-3
    assert display.ax_.get_legend() is None


def test_a_limit_out_of_range_is_refused(pairs, detector, parts):
    with pytest.raises(ValueError, match="max_fpr=0 must be"):
        ProCurveDisplay.from_predictions(*pairs, max_fpr=0)
    with pytest.raises(ValueError, match="max_fpr=2 must be"):
        ProCurveDisplay.from_estimator(detector, parts.data, parts.masks, max_fpr=2)
