import pickle

import numpy as np
import pytest
from PIL import Image

from skpadim import ImageAligner
from skpadim.datasets import make_defects

N, SIZE = 16, 128
MOTION = ["dy", "dx", "angle"]


@pytest.fixture(scope="module")
def capsules():
    return make_defects(N, 0, part="capsule", image_size=2 * SIZE, random_state=0).data


@pytest.fixture(scope="module")
def moved(capsules, photograph, some_motions):
    rng = np.random.default_rng(0)
    motions = some_motions(N, rng, 12, 10)
    return photograph(capsules, motions, SIZE, rng.uniform(0.8, 1.2, N))


@pytest.fixture(scope="module")
def aligner(moved):
    return ImageAligner(image_size=SIZE).fit(moved)


def test_parts_are_brought_to_one_place(aligner, moved):
    assert aligner.sees_turns_
    assert aligner.alignment_["aligned"].all()
    assert aligner.alignment_["dy"].abs().max() > 5
    after = aligner.measure(aligner.transform(moved))
    assert after[["dy", "dx"]].abs().median().max() < 0.15
    assert after["angle"].abs().median() < 0.1


def test_the_reference_lies_where_most_parts_do(aligner):
    assert aligner.alignment_[["dy", "dx"]].median().abs().max() < 2
    assert aligner.alignment_["angle"].abs().median() < 10


def test_some_images_may_be_off(moved, aligner):
    other = make_defects(5, 0, part="transistor", image_size=SIZE, random_state=0).data
    mixed = np.concatenate([other, moved])
    with_others = ImageAligner(image_size=SIZE).fit(mixed)
    assert with_others.alignment_["aligned"].tolist() == [False] * 5 + [True] * N
    apart = with_others.alignment_[5:][MOTION].to_numpy() - aligner.alignment_[MOTION]
    assert apart.std().max() < 0.3


def test_images_that_cannot_be_aligned_are_told_and_left(aligner, moved):
    far = np.roll(moved[:2], 50, axis=1)
    assert not aligner.measure(far)["aligned"].any()
    with pytest.warns(UserWarning, match=r"2 images cannot be aligned \(0, 1\).*as they lie"):
        left = aligner.transform(far)
    np.testing.assert_array_equal(left, far)


def test_measures_are_those_of_the_fit_and_survive_pickling(aligner, moved):
    again = pickle.loads(pickle.dumps(aligner)).measure(moved)
    np.testing.assert_allclose(again[MOTION], aligner.alignment_[MOTION], atol=1e-3)
    assert ImageAligner(image_size=SIZE).fit(moved).digest == aligner.digest


def test_a_symmetric_part_is_not_turned():
    discs = make_defects(12, 0, part="bottle", image_size=SIZE, random_state=0).data
    shifted = np.roll(discs, 7, axis=2)
    aligner = ImageAligner(image_size=SIZE).fit(discs)
    assert not aligner.sees_turns_
    assert (aligner.measure(shifted)["angle"] == 0).all()
    moved = aligner.measure(shifted)[MOTION] - aligner.alignment_[MOTION]
    assert abs(moved["dx"].median() - 7) < 0.15
    assert abs(moved["dy"].median()) < 0.15


@pytest.fixture
def drawn(photograph, some_motions, rng):
    """Photographs of a shape, by the depth that places (x, y) from -0.5 to 0.5 have inside it."""

    def draw(depth, angle):
        y, x = (np.mgrid[:256, :256] + 0.5) / 256 - 0.5
        shape = np.clip(256 * depth(x, y) + 0.5, 0, 1)[..., None].repeat(3, -1)
        images = (40 + 150 * shape)[None].astype(np.uint8).repeat(12, 0)
        motions = some_motions(12, rng, 8, angle)
        noise = rng.normal(0, 4, (12, SIZE, SIZE, 3))
        moved = photograph(images, motions, SIZE) + noise
        return moved.clip(0, 255).round().astype(np.uint8), motions[:, 2].numpy()

    return draw


def hexagon(x, y):
    sector = np.pi / 3
    angle = (np.arctan2(y, x) + sector / 2) % sector - sector / 2
    return 0.3 - np.hypot(x, y) * np.cos(angle)


def test_a_hexagon_is_turned_to_the_next_corner(drawn):
    images, angles = drawn(hexagon, 60)
    aligner = ImageAligner(image_size=SIZE, max_angle=90).fit(images)
    table = aligner.alignment_
    assert table["aligned"].all()
    assert table["angle"].abs().max() < 33
    apart = (table["angle"] - angles).to_numpy()
    apart = (apart - apart[0] + 30) % 60 - 30  # of which nobody can see multiples
    assert np.abs(apart).max() < 1


@pytest.mark.parametrize(("motion", "angle"), [("translation", 0), ("rigid", 10)])
def test_a_bar_through_the_frame_is_refused(drawn, motion, angle):
    bar, _ = drawn(lambda x, y: 0.1 - np.abs(y) + 0 * x, angle)
    with pytest.raises(ValueError, match="runs through the whole frame"):
        ImageAligner(motion, image_size=SIZE).fit(bar)


@pytest.mark.parametrize(
    ("part", "message"),
    [("grid", "repeat themselves"), ("fabric", "repeat themselves"), ("wood", "no common picture")],
)
def test_textures_are_refused(part, message):
    images = make_defects(8, 0, part=part, image_size=SIZE, random_state=0).data
    with pytest.raises(ValueError, match=message):
        ImageAligner(image_size=SIZE).fit(images)


def test_most_images_must_align(moved):
    far = np.concatenate([moved[:5], np.roll(moved[5:8], 40, 1), np.roll(moved[8:], -40, 1)])
    with pytest.raises(ValueError, match=r"Only \d+ of 16 images can be aligned.*max_shift=0.05"):
        ImageAligner("translation", image_size=SIZE, max_shift=0.05).fit(far)
    with pytest.raises(ValueError, match="at least 3"):
        ImageAligner().fit(moved[:2])


def test_files_of_any_size_with_their_proportions(aligner, moved, tmp_path):
    for index in range(3):
        Image.fromarray(moved[index]).resize((256, 256)).save(tmp_path / f"{index}.png")
    as_files = aligner.measure(tmp_path)
    apart = (as_files[MOTION] - aligner.alignment_[MOTION])[:3].abs()
    assert apart.max().max() < 0.1
    assert as_files["aligned"].all()
    with pytest.raises(ValueError, match="^Image 0 is 200 pixels wide.*keep_aspect_ratio=True"):
        aligner.measure(np.zeros((1, 128, 200, 3), np.uint8))


def test_floats_stay_floats(aligner, moved):
    back = aligner.transform(moved[:2] / np.float32(255))
    assert back.dtype == np.float32
    assert np.abs(back * 255 - aligner.transform(moved[:2])).max() < 1
