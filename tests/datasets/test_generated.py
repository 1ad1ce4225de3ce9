"""Generated parts, in memory and as files."""

from functools import cache

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from skpadim.datasets import _generated, make_defects, save_defects
from skpadim.datasets._defects import PARTS

SMALL = {"n_train": 3, "n_good": 2, "n_defective": 3, "image_size": 32, "random_state": 0}
PAIRS = [(part, kind) for part, kinds in PARTS.items() for kind in kinds]


@cache
def good_parts(n, **options):
    return make_defects(n, 0, **options).data.astype(float)


@pytest.mark.parametrize("part", PARTS)
def test_same_seed_same_images(part):
    first = make_defects(2, 3, part=part, image_size=48, random_state=3)
    again = make_defects(2, 3, part=part, image_size=48, random_state=3)
    other = make_defects(2, 3, part=part, image_size=48, random_state=4)
    np.testing.assert_array_equal(first.data, again.data)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert not np.array_equal(first.data, other.data)


@pytest.mark.parametrize("part", PARTS)
def test_an_image_depends_on_the_seed_and_its_own_number_alone(part):
    many = make_defects(7, 0, part=part, image_size=32, random_state=0)
    few = make_defects(3, 0, part=part, image_size=32, n_views=2, random_state=0)
    np.testing.assert_array_equal(many.data[:3], few.data[::2])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("image_size", [32, 256])
def test_every_kind_has_a_mask(part, image_size):
    kinds = PARTS[part]
    parts = make_defects(1, len(kinds), part=part, image_size=image_size, random_state=0)
    assert not parts.masks[0].any()
    shares = parts.masks[1:].mean(axis=(1, 2))
    assert ((shares > 0) & (shares < 0.2)).all()
    assert parts.kinds.tolist() == ["good", *kinds]
    assert parts.target.tolist() == [1] + [-1] * len(kinds)
    assert parts.data.dtype == np.uint8
    assert parts.data.shape == (1 + len(kinds), image_size, image_size, 3)


@pytest.mark.parametrize("difficulty", [0, 1])
@pytest.mark.parametrize(("part", "kind"), PAIRS)
def test_masks_cover_what_the_defect_changed_and_no_defect_is_empty(part, kind, difficulty):
    # The same parts under the same light and noise, without a defect and with one.
    n, options = 4, {"part": part, "image_size": 128, "random_state": 5}
    good = good_parts(n, **options)
    bad = make_defects(0, n, defects=kind, difficulty=difficulty, **options)
    change = np.abs(bad.data - good).max(axis=-1)
    for difference, mask in zip(change, bad.masks, strict=True):
        assert difference[mask].max() >= 4
        assert difference[~binary_dilation(mask, iterations=3)].max() <= 8
        rows, columns = np.nonzero(mask)
        inspected = (np.abs(np.stack([rows, columns]) - 63.5) < 7 / 16 * 128).all(axis=0)
        assert inspected.mean() > 0.9


@pytest.mark.parametrize(("part", "kind"), PAIRS)
def test_difficulty_shrinks_defects_and_leaves_good_parts_alone(part, kind):
    # The first of each is good.
    changes, options = [], {"part": part, "image_size": 96, "random_state": 0}
    good = good_parts(7, **options)
    for difficulty in (0, 0.5, 1):
        parts = make_defects(1, 6, defects=kind, difficulty=difficulty, **options)
        assert np.array_equal(parts.data[0], good[0])
        changes.append(np.abs(parts.data[1:] - good[1:]).mean())
    assert (np.diff(changes) < 0).all()
    assert changes[-1] < changes[0] / 2


@pytest.mark.parametrize("part", PARTS)
def test_good_parts_differ_from_one_another(part):
    parts = make_defects(4, 0, part=part, image_size=64, random_state=0)
    differences = np.abs(parts.data[1:].astype(float) - parts.data[:1]).mean(axis=(1, 2, 3))
    assert (differences > 3).all()


def test_views_are_photographs_of_one_part():
    parts = make_defects(3, 2, part="leather", n_views=3, image_size=64, random_state=0)
    assert parts.groups.tolist() == np.repeat(range(5), 3).tolist()
    assert parts.kinds.tolist() == ["good"] * 9 + ["scratch"] * 3 + ["hole"] * 3
    assert parts.masks[9:].any(axis=(1, 2)).all()
    # Each leather's own colour outlasts the light: views differ, parts differ more.
    tint = parts.data.mean(axis=(1, 2))
    tint = np.log(tint[:, 0] / tint[:, 2]).reshape(5, 3)
    assert (tint.std(axis=1) > 0).all()
    assert not np.array_equal(parts.data[0], parts.data[1])
    assert tint.std(axis=1).mean() < tint.mean(axis=1).std()


def test_defects_can_be_chosen():
    assert set(make_defects(0, 2, defects="dent", image_size=32, random_state=0).kinds) == {"dent"}
    kinds = make_defects(0, 3, defects=["spot", "dent"], image_size=32, random_state=0).kinds
    assert kinds.tolist() == ["spot", "dent", "spot"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"part": "screw"}, "part='screw' must be one of 'disc', 'bottle'"),
        ({"part": ["disc"]}, r"part=\['disc'\] must be one of"),
        (
            {"defects": "bent"},
            r"defects=\['bent'\]: a part of kind 'disc' can have 'scratch'",
        ),
        ({"part": "wood", "defects": ["crack", "dent"]}, "'wood' can have 'scratch', 'hole'"),
        ({"defects": []}, "give one, several or 'all'"),
        ({"difficulty": 1.5}, "difficulty=1.5 must be a number from 0"),
        ({"difficulty": "hard"}, "difficulty='hard' must be a number from 0"),
        ({"n_views": 0}, "n_views=0 must be an integer of 1 or more"),
        ({"image_size": 16}, "image_size=16 must be an integer of 32 or more"),
        ({"n_good": -1}, "n_good=-1 must be an integer of 0 or more"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_defects(**{"n_good": 1, "n_defective": 1, **parameters})


def test_the_files_are_the_images_in_mvtecs_layout(tmp_path):
    folder = save_defects(tmp_path / "new", "boards", part="wood", **SMALL)
    assert folder == tmp_path / "new" / "boards"
    assert [path.name for path in folder.parent.iterdir()] == ["boards"]
    parts = make_defects(5, 3, part="wood", image_size=32, random_state=0)
    train = [f"train/good/00{i}.png" for i in range(3)]
    good = [f"test/good/00{i}.png" for i in range(2)]
    kinds = ["scratch", "hole", "crack"]
    names = train + good + [f"test/{kind}/000.png" for kind in kinds]
    for name, pixels in zip(names, parts.data, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / name)), pixels)
    masks = [f"ground_truth/{kind}/000_mask.png" for kind in kinds]
    for name, mask in zip(masks, parts.masks[5:], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / name)), mask * 255)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert files == {*names, *masks}


def test_nothing_is_overwritten(tmp_path):
    save_defects(tmp_path, **SMALL)
    with pytest.raises(FileExistsError, match="disc exists and is not overwritten: delete it"):
        save_defects(tmp_path, **SMALL)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="disk full"):
        save_defects(tmp_path, **SMALL)
    with pytest.raises(ValueError, match="'disc' can have"):
        save_defects(tmp_path / "new" / "root", defects="bent", **SMALL)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_told_before_parts_are_drawn(tmp_path, monkeypatch):
    def draw(*_, **__):
        raise AssertionError("work was started")

    monkeypatch.setattr(_generated, "make_defects", draw)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        save_defects(tmp_path / "file", **SMALL)
    with pytest.raises(OSError, match="cannot be written .File name too long"):
        save_defects(tmp_path, "x" * 256, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
