"""Generated parts as files."""

import numpy as np
import pytest
from PIL import Image

from skpadim.datasets import _save_defects, make_defects, save_defects

SMALL = {"n_train": 3, "n_good": 2, "n_defective": 3, "image_size": 32, "random_state": 0}


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

    monkeypatch.setattr(_save_defects, "make_defects", draw)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        save_defects(tmp_path / "file", **SMALL)
    with pytest.raises(OSError, match="cannot be written .File name too long"):
        save_defects(tmp_path, "x" * 256, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
