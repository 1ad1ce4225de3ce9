"""Displays beside pictures of them that somebody has looked at.

`python tests/plotting/test_pictures.py` draws these anew, into pictures/: look at them, too.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter

from skpadim.plotting import (
    AnomalyMapDisplay,
    PatchGaussianDisplay,
    ProCurveDisplay,
    ScoreHistogramDisplay,
)

plt = pytest.importorskip("matplotlib.pyplot")
PICTURES = Path(__file__).parent / "pictures"
# Mean difference of pixels, of 255: another version of matplotlib makes half of it.
TOLERANCE = 1.0


def made(shift=0):
    """Three bright parts with a spot each, their maps, and masks of the spots."""
    rows, columns = np.mgrid[:60, :80]
    images, maps, masks = [], [], []
    for index, size in enumerate((4, 9, 13)):
        spot = np.hypot(rows - 30, columns - 20 - 20 * index) < size
        part = np.hypot((rows - 30) / 26, (columns - 40) / 36) < 1
        grey = gaussian_filter(60.0 + 150 * part - 70 * spot, 1)
        images.append(np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))
        maps.append(np.roll(gaussian_filter(spot * 1.0, 4), shift, axis=1) * 3 + 0.1)
        masks.append(spot)
    return images, maps, masks


def draw_maps(kind, threshold=1.0, shift=0, **options):
    images, maps, masks = made(shift)
    return AnomalyMapDisplay.from_predictions(
        images, maps, threshold=threshold, masks=masks, kind=kind, **options
    )


def draw_histogram():
    rng = np.random.default_rng(0)
    y, scores = np.repeat([1, -1], [60, 20]), np.r_[rng.normal(-4, 1, 60), rng.normal(-9, 2, 20)]
    return ScoreHistogramDisplay.from_predictions(
        y, scores, calibration_scores=rng.normal(-4, 1, 80), threshold=-6
    )


def draw_curve():
    _, maps, masks = made()
    first = ProCurveDisplay.from_predictions(masks, maps, plot_chance_level=True)
    noise = np.random.default_rng(0).normal(0, 0.5, (3, 60, 80))
    ProCurveDisplay.from_predictions(masks, list(maps + noise), ax=first.ax_)
    return first


def draw_gaussian():
    rows, columns, features = np.mgrid[:8, :10, :12]
    location = np.sin(rows / 2 + features) + np.cos(columns / 3)
    variances = 0.1 + ((rows - 3) ** 2 + (columns - 6) ** 2)[..., :1] / 40 + features / 40
    return PatchGaussianDisplay(location, variances + 0 * location, position=(2, 3)).plot()


DISPLAYS = {
    "overlay": lambda: draw_maps("overlay"),
    "map": lambda: draw_maps("map"),
    "no_threshold": lambda: draw_maps("overlay", threshold=None),
    "histogram": draw_histogram,
    "pro_curve": draw_curve,
    "patch_gaussian": draw_gaussian,
}


def pixels(display):
    """A display's figure, small and without what depends on fonts."""
    figure = display.figure_
    for axes in figure.axes:
        axes.set(title="", xlabel="", ylabel="", xticks=[], yticks=[])
        if axes.get_legend():
            axes.get_legend().remove()
    file = BytesIO()
    figure.savefig(file, format="png", dpi=120)
    # Made smaller here: versions of matplotlib round places and resample images differently.
    return Image.open(file).convert("RGB").reduce(3)


def difference(picture, name):
    expected = Image.open(PICTURES / f"{name}.png").convert("RGB")
    assert picture.size == expected.size
    # Smoothed, since lines may lie half a pixel aside.
    got, wanted = (
        uniform_filter(np.asarray(each, float), (3, 3, 0)) for each in (picture, expected)
    )
    return np.abs(got - wanted).mean()


@pytest.mark.parametrize("name", DISPLAYS)
def test_a_display_looks_as_it_did(name):
    assert difference(pixels(DISPLAYS[name]()), name) < TOLERANCE


@pytest.mark.parametrize(
    "wrong",
    [{"shift": 3}, {"threshold": 1.6}, {"opacity": 0.0}, {"kind": "map"}],
    ids=str,
)
def test_a_wrong_overlay_is_seen(wrong):
    assert difference(pixels(draw_maps(**{"kind": "overlay", **wrong})), "overlay") > TOLERANCE


def test_in_grey_what_is_anomalous_is_darker_than_all_that_is_good():
    display = draw_maps("map")
    for artist, anomaly_map in zip(display.images_, display.anomaly_maps, strict=True):
        colours = artist.cmap(artist.norm(anomaly_map))[..., :3]
        grey = colours @ [0.2126, 0.7152, 0.0722]
        if (anomaly_map > 1).any():
            assert grey[anomaly_map > 1].max() < grey[anomaly_map < 1].min()


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for name, draw in DISPLAYS.items():
        pixels(draw()).save(PICTURES / f"{name}.png", optimize=True)
