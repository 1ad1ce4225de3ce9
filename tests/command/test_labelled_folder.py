from pathlib import Path

import pytest

from skpadim.__main__ import main
from skpadim.command._labelled_folder import check_only_good, labelled_images


@pytest.fixture
def category(tmp_path):
    """Laid out as MVTec AD; one of the defects has no mask."""
    names = ("train/good/0", "test/good/0", "test/good/1", "test/cut/0", "test/cut/1")
    for name in (*names, "ground_truth/cut/1_mask"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["test", "."])
def test_folders_are_kinds_and_masks_lie_beside(category, name):
    found = labelled_images(category / name)
    assert [Path(path).name for path in found.paths] == ["0.png", "1.png", "0.png", "1.png"]
    assert found.kinds == ["cut", "cut", "good", "good"]
    assert found.y == [-1, -1, 1, 1]
    assert found.masks == [None, str(category / "ground_truth/cut/1_mask.png"), None, None]


def test_good_images_may_be_called_ok_and_masks_lie_elsewhere(category):
    (category / "test/good").rename(category / "test/OK")
    (category / "ground_truth").rename(category / "drawn")
    found = labelled_images(category / "test", category / "drawn")
    assert found.kinds == ["good", "good", "cut", "cut"]
    assert [mask is None for mask in found.masks] == [True, True, True, False]
    assert labelled_images(category / "test").masks is None


def test_without_a_folder_of_good_images_nothing_is_known(category):
    assert labelled_images(category / "ground_truth") is None
    with pytest.raises(ValueError, match="has no folder good, ok, normal"):
        labelled_images(category / "train/good", category / "ground_truth")


def test_two_masks_of_an_image_are_refused(category):
    (category / "ground_truth/cut/1.png").touch()
    with pytest.raises(ValueError, match=r"1\.png has 2 masks"):
        labelled_images(category / "test")


def test_images_beside_the_kinds_are_told(category):
    (category / "test/loose.png").touch()
    with pytest.warns(UserWarning, match="1 image right in .* left out"):
        labelled_images(category / "test")


def test_a_data_set_s_folder_is_not_learned_from(category):
    with pytest.raises(ValueError, match="only good images are .* give .*train.good"):
        check_only_good([category])
    (category / "train").rename(category / "learn")
    with pytest.raises(ValueError, match="ground_truth, learn, test.*give their folder"):
        check_only_good([category])
    with pytest.warns(UserWarning, match="taken for good ones, and it has the folders cut, good"):
        check_only_good([category / "test"])
    check_only_good([category / "test" / "good", category / "learn"])


@pytest.mark.parametrize("command", [["fit", "-o", "model.joblib"], ["doctor"]])
def test_it_is_refused_by_all_who_take_a_folder_to_learn_from(category, command, capsys):
    assert main([*command, str(category)]) == 1
    assert "error:" in (told := capsys.readouterr().err)
    assert "only good images are learned from" in told
