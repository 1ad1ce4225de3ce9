"""Images of one's own, in folders and files of any names."""

import os
import shutil

import numpy as np
import pytest

from skpadim.datasets import load_folder, load_mvtec_ad, read_masks
from skpadim.metrics import evaluate


@pytest.fixture
def shots(tmp_path, painter):
    """10 good and 2 + 2 defective images, and their masks."""
    root = tmp_path / "shots"
    for index in range(10):
        painter.image(root / "good" / f"{index}.bmp")
    for kind in ("dent", "scratch"):
        for index in range(2):
            mask = painter.defect()
            painter.image(root / "bad" / kind / f"{index}.JPG", mask)
            painter.mask(root / "truth" / kind / f"{index}_mask.png", mask)
    (root / "good" / "Thumbs.db").touch()
    (root / "good" / ".hidden.png").touch()
    return root


def test_folders_give_splits_kinds_and_masks(shots, make_detector):
    everything = load_folder("good", "bad", masks="truth", root=shots)
    assert everything.frame["split"].tolist() == ["train"] * 8 + ["test"] * 6
    assert everything.kinds.tolist()[-4:] == ["dent", "dent", "scratch", "scratch"]
    train = load_folder("good", "bad", masks="truth", root=shots, subset="train")
    test = load_folder("good", "bad", masks="truth", root=shots, subset="test")
    assert not set(train.data) & set(test.data)
    assert [*train.data, *test.data] == everything.data.tolist()
    assert "test, scratch: 2" in test.DESCR
    assert test.masks.isna().tolist() == [True] * 2 + [False] * 4
    detector = make_detector(n_features=20, calibration=None).fit(train.data)
    row = evaluate(detector, test.data, test.target, test.masks)
    assert row["pixel_roc_auc"] > 0.9
    for path, mask in zip(test.masks, read_masks(test.masks), strict=True):
        assert (path is None) == (mask is None)


def test_patterns_lists_and_absolute_paths_do_the_same(shots, monkeypatch):
    expected = load_folder("good", "bad", masks="truth", root=shots).frame
    forms = [
        ("good/*.bmp", "bad/**/*.JPG", "truth/*/*", shots),
        (["good"], ["bad/dent", "bad/scratch/*"], [shots / "truth"], str(shots)),
        (sorted((shots / "good").glob("*.bmp")), shots / "bad", str(shots / "truth"), None),
    ]
    for good, bad, masks, root in forms:
        assert load_folder(good, bad, masks=masks, root=root).frame.equals(expected)
    monkeypatch.chdir(shots)
    found = load_folder("good", "bad", masks="truth")
    assert found.frame["kind"].equals(expected["kind"])
    assert found.data[0].startswith("good")


def test_good_images_are_enough(shots):
    parts = load_folder(shots / "good", test_size=0)
    assert parts.target.tolist() == [1] * 10
    assert set(parts.frame["split"]) == {"train"}
    X, y = load_folder(shots / "good", subset="test", test_size=0.3, return_X_y=True)
    assert len(X) == len(y) == 3
    other = load_folder(shots / "good", subset="test", test_size=0.3, random_state=1)
    assert set(other.data) != set(X)
    parts = load_folder("good/[0-6].bmp", good_test="good/[7-9].bmp", root=shots)
    assert parts.frame["split"].tolist() == ["train"] * 7 + ["test"] * 3
    assert load_folder("good", "bad", root=shots).masks.isna().all()


def test_the_kind_is_never_good_for_a_defective_image(shots, painter):
    painter.image(shots / "bad" / "good" / "9.png")
    kinds = load_folder("good", "bad", root=shots).kinds
    assert kinds.tolist()[-5:] == ["dent"] * 2 + ["defective"] + ["scratch"] * 2


def test_masks_of_classes_are_read_with_a_threshold(shots, painter):
    mask = painter.defect()
    painter.mask(shots / "classes" / "0.png", mask, value=2)
    given = {"masks": "classes", "root": shots, "subset": "test", "test_size": 0}
    (found,) = load_folder("good", "bad/dent/0.JPG", mask_threshold=0, **given).masks
    np.testing.assert_array_equal(np.asarray(found), mask)
    (found,) = load_folder("good", "bad/dent/0.JPG", mask_threshold=2, **given).masks
    assert not np.asarray(found).any()


def test_brackets_in_the_name_of_the_root_are_no_pattern(shots):
    root = shots.rename(shots.parent / "shots [1]")
    assert len(load_folder("good/*.bmp", root=root).data) == 10


def test_images_may_be_called_masks(tmp_path, painter):
    for name in ("0_mask", "1_mask"):
        mask = painter.defect()
        painter.image(tmp_path / "bad" / f"{name}.png", mask)
        painter.mask(tmp_path / "truth" / f"{name}{'_mask' if name == '0_mask' else ''}.png", mask)
    painter.image(tmp_path / "good" / "0.png")
    parts = load_folder("good", "bad", masks="truth", root=tmp_path, test_size=0)
    names = [os.path.basename(path) for path in parts.masks[1:]]
    assert names == ["0_mask_mask.png", "1_mask.png"]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("face face_mask", "face_mask face_mask_mask"),
        ("face face_mask", "face face_mask"),
        ("face face_mask", "face face_mask_mask"),
        ("a a_mask a_mask_mask", "a_mask a_mask_mask a_mask_mask_mask"),
        ("a a_mask a_mask_mask", "a a_mask a_mask_mask"),
        ("face_mask nose_mask", "face_mask nose_mask_mask"),
    ],
)
def test_each_mask_belongs_to_one_image(tmp_path, painter, images, masks):
    images, masks = images.split(), masks.split()
    painter.image(tmp_path / "part/train/good/0.png")
    painter.image(tmp_path / "part/test/good/0.png")
    for image, mask in zip(images, masks, strict=True):
        defect = painter.defect()
        painter.image(tmp_path / "part/test/bad" / f"{image}.png", defect)
        painter.mask(tmp_path / "part/ground_truth/bad" / f"{mask}.png", defect)
    loaded = [
        load_folder("train", "test/bad", masks="ground_truth", root=tmp_path / "part", test_size=0),
        load_mvtec_ad(tmp_path, "part"),
    ]
    for parts in loaded:
        bad = parts.frame[parts.frame["target"] == -1]
        found = {os.path.basename(row.path): os.path.basename(row.mask) for row in bad.itertuples()}
        assert found == {f"{i}.png": f"{m}.png" for i, m in zip(images, masks, strict=True)}


def test_a_mask_of_an_image_that_is_not_there_is_nobody_elses(tmp_path, painter):
    painter.image(tmp_path / "part/train/good/0.png")
    for name in ("face_mask", "face_mask_mask"):
        painter.mask(tmp_path / "part/ground_truth/bad" / f"{name}.png", painter.defect())
    painter.image(tmp_path / "part/test/bad/face_mask.png")
    parts = load_mvtec_ad(tmp_path, "part", subset="test")
    assert parts.masks[0].endswith("face_mask_mask.png")


@pytest.mark.parametrize(
    ("images", "masks", "error", "message"),
    [
        ("0.png 0.bmp", "0_mask.png", ValueError, "0_mask.png"),
        ("0.png", "0_mask.png 0.bmp", ValueError, "0.bmp"),
        ("face.png face_mask.png", "face_mask.png", FileNotFoundError, "face_mask.png has no mask"),
        (
            "face.png face_mask.png",
            "face.png face_mask.png face_mask_mask.png",
            ValueError,
            "bad/face.png",
        ),
    ],
)
def test_masks_that_names_do_not_tell_apart_are_refused(
    tmp_path, painter, images, masks, error, message
):
    painter.image(tmp_path / "part/train/good/0.png")
    for image in images.split():
        painter.image(tmp_path / "part/test/bad" / image)
    for mask in masks.split():
        painter.mask(tmp_path / "part/ground_truth/bad" / mask, painter.defect())
    with pytest.raises(error, match=message):
        load_mvtec_ad(tmp_path, "part")
    with pytest.raises(error, match=message):
        load_folder("train", "test/bad", masks="ground_truth", root=tmp_path / "part", test_size=0)


def test_folders_without_permission_are_named(shots, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError, match="good cannot be read: this user has no permission"):
        load_folder("good", root=shots)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"good": "nowhere"}, FileNotFoundError, "good: .*nowhere does not exist"),
        (
            {"good": "good/*.png"},
            ValueError,
            "good: the pattern .*png matches no images, files end",
        ),
        ({"good": "good/*.db"}, ValueError, "It matches 1 others, as .*Thumbs.db"),
        ({"good": "empty"}, ValueError, "empty has no images"),
        (
            {"good": []},
            TypeError,
            r"good must be a path, a pattern, or a list of these; found \[\]",
        ),
        ({"good": None}, TypeError, "good must be a path.*found None"),
        ({"good": [3]}, TypeError, r"good has a int \(3\), no path"),
        (
            {"good": "**/*.*", "defective": "bad"},
            ValueError,
            "bad/dent/0.JPG is matched by both good and defective, and so are 3 others",
        ),
        ({"good_test": "good/1.bmp"}, ValueError, "1.bmp is matched by both good and good_test"),
        ({"defective": "*/*/*", "masks": "truth"}, ValueError, "by both defective and masks"),
        ({"masks": "truth"}, ValueError, "masks are given and defective images are not"),
        (
            {"defective": "bad", "masks": "truth/dent"},
            ValueError,
            "belong together by their names, and so does .*there are 4 defective images and 2 mas",
        ),
        (
            {"defective": "bad/dent", "masks": "truth/dent/0*"},
            FileNotFoundError,
            "1.JPG has no mask: .*1_mask or 1,.*2 defective images and 1 masks",
        ),
        (
            {"defective": "bad/dent/0.JPG", "masks": "truth/dent"},
            ValueError,
            "1 of `masks` belong to no defective image, the first .*1_mask.png",
        ),
        ({"test_size": 1}, ValueError, r"test_size=1 must be a share in \[0, 1\)"),
        ({"random_state": None}, ValueError, "random_state=None must be an int"),
        ({"good": "good/1.bmp"}, ValueError, "good has one image.*test_size=0"),
        ({"subset": "test", "test_size": 0}, ValueError, "subset='test' has no images: give"),
        ({"subset": "valid"}, ValueError, "subset='valid' must be 'train', 'test' or 'all'"),
        ({"mask_threshold": "0"}, ValueError, "mask_threshold='0' must be an int"),
    ],
)
def test_bad_input_is_refused(shots, given, error, message):
    (shots / "empty").mkdir()
    with pytest.raises(error, match=message):
        load_folder(**{"good": "good", "root": shots, **given})


def test_ambiguous_masks_are_refused(shots):
    shutil.copytree(shots / "truth", shots / "copies")
    with pytest.raises(ValueError, match="each image must have one mask of its own"):
        load_folder("good", "bad", masks=["truth", "copies"], root=shots)
