import numpy as np
import pytest
import torch
from PIL import Image

from skpadim.plotting import AnomalyMapDisplay
from skpadim.plotting._colours import map_colours, overlay

plt = pytest.importorskip("matplotlib.pyplot")
show = AnomalyMapDisplay.from_predictions


def titles(display):
    return [axes.get_title() for axes in display.axes_.flat if axes.images]


@pytest.fixture
def made(rng):
    """Five images of another shape than squares, and their maps, of which three go above 1."""
    images = rng.integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    maps = rng.uniform(0, 0.5, (5, 20, 30))
    for index, peak in ((1, 1.5), (3, 3.0), (4, 1.2)):
        maps[index, 5:9, 10:20] = peak
    return images, maps


def test_the_worst_come_first_and_no_more_than_asked_for(made):
    display = show(*made, threshold=1.0, max_images=3, n_columns=2)
    assert display.axes_.shape == (2, 2)
    assert titles(display) == [
        "image 3\n3: anomalous",
        "image 1\n1.5: anomalous",
        "image 4\n1.2: anomalous",
    ]
    assert not display.axes_[1, 1].axison
    np.testing.assert_allclose(display.scores, [-3, -1.5, -1.2])


def test_an_estimator_s_images_are_those_of_the_lowest_scores(detector, parts):
    scores = detector.score_samples(parts.data)
    worst = np.argsort(scores)[:5]
    display = AnomalyMapDisplay.from_estimator(detector, parts.data, max_images=5, kind="map")
    np.testing.assert_array_equal(display.scores, scores[worst])
    assert display.names == [f"image {index}" for index in worst]
    assert display.threshold == -detector.offset_
    maps = detector.anomaly_map(parts.data[worst], size="original")
    for artist, anomaly_map in zip(display.images_, maps, strict=True):
        np.testing.assert_array_equal(artist.get_array(), anomaly_map)


def test_files_are_shown_in_their_own_proportions_and_what_is_cropped_is_left_out(
    make_detector, folder, tmp_path
):
    detector = make_detector(crop_size=48).fit(folder)
    wide = tmp_path / "a_rather_long_name_of_a_wide_part.png"
    Image.open(folder / "part_030.png").resize((80, 40)).save(wide)
    small = tmp_path / "$x^2$.png"
    Image.open(folder / "part_031.png").resize((30, 40)).save(small)
    display = AnomalyMapDisplay.from_estimator(detector, [wide, small], kind="map")
    shapes = {name: image.shape for name, image in zip(display.names, display.images, strict=True)}
    assert shapes == {wide.name: (40, 80, 3), small.name: (40, 30, 3)}
    wide_map = display.anomaly_maps[display.names.index(wide.name)]
    (expected,) = detector.anomaly_map([wide], size="original")
    np.testing.assert_array_equal(wide_map, expected)
    assert np.isnan(wide_map[0]).all()
    shown = "".join(titles(display))
    assert "…name_of_a_wide_part.png" in shown
    assert "$x^2$.png" in shown
    display.figure_.canvas.draw()  # no formula is made of the name


def test_an_overlay_has_colours_above_the_threshold_only(made):
    images, maps = made
    display = show(images, maps, threshold=1.0, opacity=0.5)
    np.testing.assert_array_equal(
        display.images_[0].get_array(), overlay(images[3], maps[3], 1.0, 0.5)
    )
    np.testing.assert_array_equal(display.images_[-1].get_array(), display.images[-1])


def test_all_images_have_one_scale_which_the_colour_bar_shows(made):
    display = show(*made, threshold=1.0, kind="map")
    assert {artist.get_clim() for artist in display.images_} == {(0, 2.0)}
    assert display.colorbar_.mappable.get_clim() == (0, 2.0)
    marks = [text.get_text() for text in display.colorbar_.ax.get_yticklabels()]
    assert marks == ["0", "threshold\n1", "2"]
    assert len(show(*made, threshold=1.0, colorbar=False).figure_.axes) == 8


def test_outlines_of_the_decision_and_of_the_truth(made):
    images, maps = made
    masks = [None] * 5
    masks[3] = np.zeros((20, 30), bool)
    masks[3][0:4, 0:6] = True  # along the edge
    display = show(images, maps, threshold=1.0, masks=masks)
    (truth,) = display.truth_contours_[0].get_paths()
    np.testing.assert_array_equal(truth.get_extents().extents, [-0.5, -0.5, 5.5, 3.5])
    (decision,) = display.decision_contours_[0].get_paths()
    np.testing.assert_array_equal(decision.get_extents().extents, [9.5, 4.5, 19.5, 8.5])
    assert [contour is None for contour in display.truth_contours_] == [False] + [True] * 4
    assert [contour is None for contour in display.decision_contours_] == [False] * 3 + [True] * 2
    lines = display.axes_[-1, 0].get_legend().get_lines()
    assert [line.get_label() for line in lines] == ["flagged", "truth"]
    assert lines[0].get_linestyle() != lines[1].get_linestyle()
    # Contours do not widen the axes.
    assert display.axes_[0, 0].get_xlim() == (-0.5, 29.5)
    assert display.axes_[0, 0].get_ylim() == (19.5, -0.5)


def test_with_labels_titles_tell_what_was_missed(made):
    made[1][0, 0, 0] = 0.9
    display = show(*made, threshold=1.0, y=[-1, -1, 1, 1, 1])
    verdicts = [title.split(": ")[1] for title in titles(display)]
    assert verdicts == ["false alarm", "found", "false alarm", "missed", "good"]
    weights = [axes.title.get_fontweight() for axes in display.axes_.flat if axes.images]
    assert weights == ["bold"] * 3 + ["normal"] * 2


def test_a_detector_without_a_threshold_has_maps_but_no_verdicts(make_detector, good, parts):
    detector = make_detector(calibration=None).fit(good[:10])
    display = AnomalyMapDisplay.from_estimator(detector, parts.data[-4:], parts.target[-4:])
    assert display.threshold is None
    assert display.decision_contours_ == [None] * 4
    assert all(title.endswith(": defective") for title in titles(display))
    # Where the map is highest the image is covered by the darkest colour.
    image, shown = (
        each.astype(int) for each in (display.images[0], display.images_[0].get_array())
    )
    peak = np.unravel_index(np.nanargmax(display.anomaly_maps[0]), image.shape[:2])
    darkest = map_colours(np.array([[2.0]]), 1.0)[0, 0]
    np.testing.assert_allclose(shown[peak], 0.4 * image[peak] + 0.6 * darkest, atol=1)
    highest = max(np.nanmax(anomaly_map) for anomaly_map in display.anomaly_maps)
    display.plot(kind="map")
    assert {artist.get_clim() for artist in display.images_} == {(0, highest)}


def test_regions_have_their_p_values(detector, parts):
    display = AnomalyMapDisplay.from_estimator(detector, parts.data, max_images=6)
    for index, axes in enumerate(display.axes_.flat[:6]):
        X = parts.data[int(display.names[index].removeprefix("image ")), None]
        expected = detector.anomalous_regions(X).nlargest(3, "peak")["p_value"]
        written = [text.get_text() for text in axes.texts]
        assert written == [f"p = {p_value:.2g}" for p_value in expected]
        for text in axes.texts:
            assert 0 <= text.get_position()[0] <= 64
            assert 0 <= text.get_position()[1] <= 64
    assert display.axes_[0, 0].texts


@pytest.mark.parametrize("kind", ["overlay", "map"])
@pytest.mark.parametrize("threshold", [1.0, None])
def test_what_is_not_inspected_is_hatched_and_in_the_legend(made, kind, threshold):
    images, maps = made
    seen = show(images, maps, threshold=threshold, kind=kind)
    labels = [] if threshold is None else ["flagged"]
    legend = seen.axes_[-1, 0].get_legend()
    assert labels == ([] if legend is None else [text.get_text() for text in legend.get_texts()])
    maps[1, :, :8] = maps[2] = np.nan  # of the third nothing is inspected
    display = show(images, maps, threshold=threshold, kind=kind)
    texts = display.axes_[-1, 0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == [*labels, "not inspected"]
    assert titles(display)[0].startswith("image 2\nnot inspected")
    assert threshold is None or titles(display)[0].endswith("anomalous")
    shown = display.images_[display.names.index("image 1")].get_array()
    if kind == "overlay":
        changed = (shown != images[1]).any(axis=2)
        assert changed[:, :8].all()
        assert threshold is None or not changed[:, 20:].any()
    display.figure_.canvas.draw()


def test_a_peak_between_pixels_is_shown(rng):
    anomaly_map = np.zeros((40, 40))
    anomaly_map[21, 21] = 2.0
    display = show(np.zeros((1, 10, 10), np.uint8), [anomaly_map], threshold=1.0)
    assert display.decision_contours_[0] is not None
    assert display.anomaly_maps[0].max() == 2.0


def test_large_images_and_floats_and_tensors_are_shown():
    images = torch.rand(1, 3, 1000, 2048, generator=torch.Generator().manual_seed(0))
    mask = np.zeros((1000, 2048), bool)
    mask[:500] = True
    display = show(images, [np.ones((8, 16))], masks=[mask])
    assert display.images[0].shape == (500, 1024, 3)
    assert display.images[0].dtype == np.uint8
    assert display.masks[0].mean() == 0.5
    assert display.anomaly_maps[0].shape == (500, 1024)


def test_axes_of_the_caller_s_are_used(made):
    figure, axes = plt.subplots(1, 2, layout="constrained")
    display = show(*made, threshold=1.0, ax=axes[0], max_images=4, n_columns=2)
    assert display.figure_ is figure
    assert display.axes_.shape == (2, 2)
    assert not axes[1].images
    display = show(*made, threshold=1.0, ax=axes[1], max_images=1)
    assert display.axes_[0, 0] is axes[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, "threshold=-1.0 must be above 0"),
        ({"kind": "both"}, "kind='both' must be 'overlay' or 'map'"),
        ({"max_images": 0}, "max_images=0 must be at least 1"),
        ({"masks": [None]}, "masks has length 1 and there are 5 images"),
        ({"y": [1]}, "y has 1 labels for 5 images"),
    ],
)
def test_errors_name_the_parameter(made, options, message):
    with pytest.raises(ValueError, match=message):
        show(*made, **options)


def test_an_estimator_without_maps_is_refused(good):
    from sklearn.svm import OneClassSVM

    with pytest.raises(TypeError, match="OneClassSVM has no iter_anomaly_maps"):
        AnomalyMapDisplay.from_estimator(OneClassSVM(), good)
