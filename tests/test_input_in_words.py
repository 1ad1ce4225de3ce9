"""What a detector looks at, in the words of `skpadim info` and of the report."""

import numpy as np
import pytest

from skpadim._input_in_words import input_in_words, inspected_in_words


@pytest.fixture
def aligning(good, make_detector):
    """Fitted on parts of which some lie lower, and one cannot be aligned."""
    moved = [np.roll(image, index % 5, axis=0) for index, image in enumerate(good)]
    detector = make_detector(align="rigid", crop_size=48)
    with pytest.warns(UserWarning, match="1 image cannot be aligned"):
        return detector.fit([*moved, np.roll(good[0], 32, axis=1)])


def test_alignment_is_told(aligning):
    told, table = input_in_words(aligning), aligning.aligner_.alignment_
    assert told["alignment"].startswith("rigid, no turns are looked for")  # a disc
    lowest, highest = (table["dy"][:24].agg(name) for name in ("min", "max"))
    where = told["training parts lay at"]
    assert where.startswith(f"dy {lowest:.1f} to {highest:.1f}, dx ")
    assert where.endswith("pixels, 1 of 25 images could not be aligned and are left out")
    assert told["least peak"].startswith(f"{aligning.aligner_.min_peak_:.2f}, below")
    aligning.aligner_.sees_turns_ = True
    told = input_in_words(aligning)
    assert told["alignment"] == "rigid, turns are looked for"
    assert "turned by 0.0° to 0.0°" in told["training parts lay at"]


def test_the_part_that_is_inspected_is_told(aligning):
    assert inspected_in_words(aligning) == "the middle, 48 x 48"
    aligning.roi_ = None
    assert inspected_in_words(aligning) == "the middle, 48 x 48"
    aligning.roi_ = np.arange(48 * 48).reshape(48, 48) % 4 == 0
    assert inspected_in_words(aligning) == "the region of interest, 25 % of the middle, 48 x 48"
    assert "tiles" not in input_in_words(aligning)
    aligning.tile_size = 512
    assert "tile_size=512" in input_in_words(aligning)["tiles"]
