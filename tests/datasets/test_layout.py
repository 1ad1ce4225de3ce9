"""What is said of roots, categories and files that are not what they should be."""

import os
import shutil

import pytest

from skpadim.datasets import (
    load_btad,
    load_mvtec_ad,
    load_mvtec_ad_2,
    load_mvtec_loco,
    load_visa,
)
from skpadim.datasets._layout import find_categories
from skpadim.datasets._public import DATASETS


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


def test_links_to_nothing_are_images_that_cannot_be_read(root):
    (root / "bottle/train/good/999.png").symlink_to(root / "nothing.png")
    data = load_mvtec_ad(root, category="bottle", subset="train").data
    assert os.path.basename(data.iloc[-1]) == "999.png"


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
