"""What is said of roots, categories and files that are not what they should be."""

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from skpadim.datasets import (
    load_btad,
    load_mvtec_ad,
    load_mvtec_ad_2,
    load_mvtec_loco,
    load_visa,
    read_masks,
)
from skpadim.datasets._catalogue import DATASETS, find_categories
from skpadim.metrics import evaluate


@pytest.fixture
def root(make_mvtec_ad):
    return make_mvtec_ad(categories=["bottle", "cable"])


def both_ways(root):
    """A loader and the catalogue, which must say the same of a root."""
    return [
        lambda: load_mvtec_ad(root, "bottle"),
        lambda: find_categories(DATASETS["mvtec_ad"], root),
    ]


def test_a_misspelt_category_is_corrected(root):
    with pytest.raises(FileNotFoundError, match="no category 'botle'. Did you mean 'bottle'") as e:
        load_mvtec_ad(root, "botle")
    assert "Its categories are 'bottle', 'cable'." in str(e.value)
    with pytest.raises(FileNotFoundError, match="Did you mean 'bottle'"):
        load_mvtec_ad(root, "Bottles")
    with pytest.raises(FileNotFoundError, match="no category 'xyz'. Its categories are"):
        load_mvtec_ad(root, "xyz")


def test_a_category_given_as_root_is_told(root):
    for call in both_ways(root / "bottle"):
        with pytest.raises(FileNotFoundError, match="is a category of MVTec AD itself") as error:
            call()
        assert f"root={str(root)!r}, and category='bottle'" in str(error.value)
    for call in both_ways(root / "bottle" / "test"):
        with pytest.raises(FileNotFoundError, match="lies inside of a category"):
            call()


def test_a_root_one_level_too_high_is_told(root):
    for call in both_ways(root.parent):
        with pytest.raises(FileNotFoundError, match="its folder 'mvtec_ad' has") as error:
            call()
        assert f"give root={str(root)!r}" in str(error.value)


def test_a_root_of_something_else_says_what_was_sought_and_found(tmp_path):
    for name in ("photos", "papers", ".cache"):
        (tmp_path / "home" / name).mkdir(parents=True)
    for call in both_ways(tmp_path / "home"):
        with pytest.raises(FileNotFoundError) as error:
            call()
        assert "looked for <category>/train/good and <category>/test" in str(error.value)
        assert "Its folders are 'papers', 'photos'." in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="Its folders are none."):
        load_mvtec_ad(tmp_path / "empty", "bottle")
    with pytest.raises(FileNotFoundError, match="Data/Images/Normal, or <category>/train/good"):
        load_visa(tmp_path / "empty", "candle")


def test_files_where_folders_should_be_are_told(root):
    for call in both_ways(root / "readme.txt"):
        with pytest.raises(NotADirectoryError, match="readme.txt is a file; a folder is needed"):
            call()
    for call in both_ways(root / "nowhere"):
        with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
            call()
    with pytest.raises(NotADirectoryError, match="readme.txt is a file; a category of MVTec AD"):
        load_mvtec_ad(root, "readme.txt")
    shutil.rmtree(root / "bottle/train/good")
    with pytest.raises(FileNotFoundError, match="bottle is not laid out as a category") as error:
        load_mvtec_ad(root, "bottle")
    assert "Its folders are 'ground_truth', 'test', 'train'" in str(error.value)
    with pytest.raises(TypeError, match="category=3 must be the name of a category"):
        load_mvtec_ad(root, 3)


@pytest.mark.parametrize("locked", ["", "bottle/train/good"])
def test_folders_without_permission_are_named(root, locked, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == os.fspath(root / locked):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    category = "bottle" if locked else "botle"
    with pytest.raises(PermissionError, match="cannot be read: this user has no perm") as error:
        load_mvtec_ad(root, category)
    assert str(error.value).startswith(str(root / locked))


def test_missing_masks_are_named(root):
    os.remove(root / "bottle/ground_truth/broken/001_mask.png")
    with pytest.raises(FileNotFoundError, match="001.png has no mask: looked in") as error:
        load_mvtec_ad(root, "bottle")
    assert str(root / "bottle/test/broken/001.png") in str(error.value)
    assert "001_mask and 001" in str(error.value)
    assert "1 of the 2 images" in str(error.value)
    assert len(load_mvtec_ad(root, "bottle", subset="train").data) == 6  # needs no masks
    shutil.rmtree(root / "bottle/ground_truth/broken")
    with pytest.raises(FileNotFoundError, match="broken does not exist: it should hold the masks"):
        load_mvtec_ad(root, "bottle")


def test_two_masks_for_an_image_are_refused(root):
    truth = root / "bottle/ground_truth/broken"
    shutil.copy(truth / "000_mask.png", truth / "000.bmp")
    with pytest.raises(ValueError, match=r"000.png has 2 masks: .*000.bmp and .*000_mask.png"):
        load_mvtec_ad(root, "bottle")


@pytest.mark.parametrize("folder", ["train/good", "test/good", "test/dirt"])
def test_folders_without_images_are_named(root, folder):
    for path in (root / "bottle" / folder).glob("*.[pP]*"):
        path.unlink()
    with pytest.raises(ValueError, match=f"bottle/{folder} has no images: looked for files ending"):
        load_mvtec_ad(root, "bottle")


def test_a_test_folder_without_kinds_is_named(root):
    for kind in ("good", "broken", "dirt"):
        shutil.rmtree(root / "bottle/test" / kind)
    with pytest.raises(ValueError, match="test has no folders of images"):
        load_mvtec_ad(root, "bottle")


@pytest.mark.parametrize(
    ("load", "accepted"),
    [
        (load_btad, "'train', 'test' or 'all'"),
        (load_mvtec_loco, "'train', 'validation', 'test' or 'all'"),
        (load_mvtec_ad_2, "'test', 'test_private', 'test_private_mixed' or 'all'"),
    ],
)
def test_wrong_subsets_say_what_is_accepted(load, accepted):
    with pytest.raises(ValueError, match=f"subset='valid' must be .*{accepted}"):
        load("nowhere", "x", subset="valid")


def test_masks_of_loco_must_be_there(make_mvtec_loco):
    root = make_mvtec_loco(categories=["pushpins"])
    truth = root / "pushpins/ground_truth/logical_anomalies"
    for path in (truth / "000").glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="logical_anomalies/000 has no images"):
        load_mvtec_loco(root, "pushpins")
    shutil.rmtree(truth / "000")
    with pytest.raises(FileNotFoundError, match=r"000.png has no masks: there is no folder .*000"):
        load_mvtec_loco(root, "pushpins")


def test_private_images_that_are_not_there_are_told(make_mvtec_ad_2):
    root = make_mvtec_ad_2(categories=["can"])
    shutil.rmtree(root / "can/test_private")
    with pytest.raises(FileNotFoundError, match="can/test_private does not exist"):
        load_mvtec_ad_2(root, "can", subset="test_private")


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("object,split", "class,split", ValueError, "has no column object: its columns are class"),
        ("split,label,image,mask", "a,b,c,d", ValueError, "no column split, label, image, mask"),
        ("object,split", ",", ValueError, "has no column object, split"),
        ("0003.JPG", "9999.JPG", FileNotFoundError, "1 files that do not exist.*9999.JPG"),
        ("Masks/Anomaly", "Masks/Anom", FileNotFoundError, "3 files.*Masks/Anom/000.png"),
        (
            ",train,normal",
            ",train,fine",
            ValueError,
            "line [0-9]+: label is 'fine'; it must be 'no",
        ),
        (",train,normal", ",fit,normal", ValueError, "line 2: split is 'fit'; it must be 'train'"),
        (
            "candle/Data/Masks/Anomaly/001.png",
            "",
            ValueError,
            "001.JPG is an anomaly and has no ma",
        ),
        ("candle/Data/Images/Normal/0003.JPG,", "", ValueError, "line [0-9]+: image is empty"),
        ("candle,", "candles,", ValueError, "has no rows whose object is 'candle'"),
    ],
)
def test_split_files_of_visa_are_checked(make_visa, old, new, error, message):
    root = make_visa(categories=["candle"])
    path = root / "split_csv/1cls.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(error, match=message) as caught:
        load_visa(root, "candle")
    assert str(caught.value).startswith(str(path))


def test_a_missing_split_file_of_visa_is_told(make_visa):
    root = make_visa(categories=["candle"])
    os.remove(root / "split_csv/1cls.csv")
    with pytest.raises(FileNotFoundError, match="1cls.csv does not exist: it divides VisA"):
        load_visa(root, "candle")


class Blank:
    """A detector of somebody else's whose maps are zeros."""

    def iter_anomaly_maps(self, X):
        for _ in range(len(X)):
            yield np.zeros((1, 8, 8), np.float32)


@pytest.mark.parametrize("name", ["mvtec_ad", "visa", "mvtec_loco"])
def test_masks_of_another_size_are_named_with_their_images(make_data_set, name):
    category = DATASETS[name].categories[0]
    test = DATASETS[name].load(make_data_set(name, categories=[category]), category, subset="test")
    index = int(np.flatnonzero(test.target == -1)[0])
    path = getattr(test.masks[index], "paths", [test.masks[index]])[0]
    Image.new("L", (10, 7), 255).save(path)
    message = (
        f"masks[{index}] ({test.masks[index]}) is 7 x 10 pixels (height x width) and its image "
        f"{test.data[index]} is 48 x 64"
    )
    X = {"list": list(test.data), "series": test.data, "frame": test.frame[["path"]]}
    for images in X.values():
        with pytest.raises(ValueError, match=re.escape(message)):
            evaluate(Blank(), images, test.target, test.masks)
        with pytest.raises(ValueError, match=re.escape(message)):
            read_masks(test.masks, images)


def test_the_masks_of_an_image_must_have_one_size(make_mvtec_loco):
    root = make_mvtec_loco(categories=["pushpins"])
    test = load_mvtec_loco(root, "pushpins", subset="test")
    mask = next(mask for mask in test.masks if mask is not None and len(mask.paths) == 2)
    Image.new("L", (10, 7), 255).save(mask.paths[1])
    with pytest.raises(ValueError, match=r"001.png is 7 x 10 pixels and .*000.png is 48 x 64"):
        np.asarray(mask)
    with pytest.raises(ValueError, match=r"masks\[\d+\] cannot be read: .*the masks of one image"):
        read_masks(test.masks)


def test_broken_masks_are_named(make_visa):
    test = load_visa(make_visa(categories=["candle"]), "candle", subset="test")
    with open(test.masks.iloc[-1].paths[0], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"masks\[4\] cannot be read: .*002.png cannot be read"):
        read_masks(test.masks)


def test_read_masks_wants_one_image_a_mask(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    assert read_masks([None]) == [None]
    assert read_masks([None], [path])[0].shape == (4, 5)
    with pytest.raises(ValueError, match="images has 1 paths and masks has 2 masks"):
        read_masks([None, None], [path])
    with pytest.raises(TypeError, match=r"images\[0\] must be a path, not ndarray"):
        read_masks([None], np.zeros((1, 4, 5)))
    with pytest.raises(ValueError, match=r"images\[0\] \(nowhere.png\) cannot be read as an image"):
        read_masks([None], ["nowhere.png"])


def test_the_orientation_of_photographs_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("L", (6, 4)).save(tmp_path / "image.jpg", exif=exif)
    Image.new("L", (4, 6), 255).save(tmp_path / "mask.png")
    (mask,) = read_masks([str(tmp_path / "mask.png")], [str(tmp_path / "image.jpg")])
    assert mask.shape == (6, 4)
