import numpy as np

from skpadim.plotting._colours import map_colours, outline, overlay


def lightness(colours):
    """How light a colour is printed in grey."""
    return colours.astype(float) @ [0.2126, 0.7152, 0.0722]


def test_a_higher_value_is_never_lighter_in_grey():
    scale = map_colours(np.linspace(0, 3, 301)[None], 1.0)[0]
    assert (np.diff(lightness(scale)) <= 0).all()
    assert lightness(scale)[0] > 240
    assert lightness(scale)[-1] < 30


def test_what_is_good_is_grey_and_what_is_not_has_a_colour():
    colours = map_colours(np.array([[0, 0.5, 1.0, 1.001, 2.0]]), 1.0)[0]
    spread = np.ptp(colours.astype(int), axis=1)
    assert (spread[:3] == 0).all()
    assert (spread[3:] > 60).all()


def test_what_is_not_inspected_is_hatched_and_nothing_else_is(rng):
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    anomaly_map = np.zeros((30, 40))
    anomaly_map[:, :20] = np.nan
    for drawn in (map_colours(anomaly_map, 1.0), overlay(np.full_like(image, 9), anomaly_map, 1.0)):
        colours, counts = np.unique(drawn[:, :20].reshape(-1, 3), axis=0, return_counts=True)
        assert len(colours) == 2  # stripes and what is between them
        assert np.ptp(lightness(colours)) > 40
        assert counts.min() > 0.2 * counts.sum()
        assert not (drawn[:, 20:, None] == colours).all(axis=3).any()
    np.testing.assert_array_equal(overlay(image, anomaly_map, 1.0)[:, 20:], image[:, 20:])


def test_an_overlay_leaves_good_places_as_they_are(rng):
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    anomaly_map = rng.uniform(0, 2, (4, 5))
    result = overlay(image, anomaly_map, 1.0, opacity=1.0)
    good = anomaly_map <= 1
    np.testing.assert_array_equal(result[good], image[good])
    np.testing.assert_array_equal(result[~good], map_colours(anomaly_map, 1.0)[~good])


def test_an_outline_is_the_edge_also_along_the_image_s():
    mask = np.ones((4, 5), bool)
    edge = outline(mask)
    assert edge.sum() == 20 - 2 * 3
    assert not edge[1:3, 1:4].any()
