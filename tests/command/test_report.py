"""`skpadim report`; what the page has is tested where it is made."""

import json
import re
import shutil

import joblib
import numpy as np
import pytest
from PIL import Image

from skpadim.__main__ import main


@pytest.fixture
def model(good, make_detector, tmp_path):
    joblib.dump(make_detector().fit(good), tmp_path / "model.joblib")
    return tmp_path / "model.joblib"


def data_in(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))


def test_a_folder_of_kinds(parts, model, tmp_path, capsys):
    for index, kind in enumerate(parts.kinds):
        image = tmp_path / "test" / kind / f"{index:02}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(parts.data[index]).save(image)
        if kind != "good":
            mask = tmp_path / "ground_truth" / kind / f"{index:02}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(parts.masks[index]) * np.uint8(255)).save(mask)
    page = tmp_path / "page.html"
    assert main(["report", str(model), str(tmp_path / "test"), "-o", str(page)]) == 0
    assert f"{page} shows 33 images, to open in a browser\n" in capsys.readouterr().err
    data = data_in(page)
    assert {row["kind"] for row in data["rows"]} == set(parts.kinds)
    assert sum(row["good"] for row in data["rows"]) == 24
    assert sum(row["mask"] is not None for row in data["rows"]) == 9
    assert "AUPRO" in [name for name, _, _ in data["metrics"]]
    assert data["command"] == f"skpadim calibrate {model} --threshold "


def test_a_folder_of_images_of_which_one_is_broken(folder, model, tmp_path, capsys):
    images = tmp_path / "new"
    shutil.copytree(folder, images)
    (images / "part_010.png").write_text("not an image")
    page = tmp_path / "page.html"
    command = ["report", str(model), str(images), "-o", str(page)]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "part_010.png cannot be read" in told
    assert "--on-error skip leaves such images out" in told
    assert not page.exists()
    assert main([*command, "--on-error", "skip"]) == 3
    told = capsys.readouterr().err
    assert "shows 32 images, to open in a browser; 1 image could not be read" in told
    assert "warning: part_010.png cannot be read" in told
    data = data_in(page)
    assert not data["labelled"]
    assert [name for name, _ in data["unreadable"]] == ["part_010.png"]
