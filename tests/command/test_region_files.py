"""The files of regions that `skpadim score` writes."""

import json
import os

import joblib
import pandas as pd
import pytest
from PIL import Image

from skpadim.__main__ import main
from skpadim.files._csv import read_csv


@pytest.fixture
def score(model, folder, tmp_path):
    def run(*options):
        return main(["score", str(model), str(folder), "-o", str(tmp_path / "s.csv"), *options])

    return run


def test_the_table_is_the_detectors(score, model, folder, tmp_path):
    assert score("--regions", str(tmp_path / "r.csv"), "--min-area", "9") == 0
    expected = joblib.load(model).anomalous_regions(sorted(folder.iterdir()), min_area=9)
    found = read_csv(tmp_path / "r.csv")
    assert list(found) == list(expected)
    for name in ("image", "label", "top", "left", "bottom", "right", "area", "rle"):
        assert found[name].astype(str).tolist() == expected[name].astype(str).tolist()
    # pandas alone reads it as well.
    pd.testing.assert_series_equal(pd.read_csv(tmp_path / "r.csv")["p_value"], expected["p_value"])


def test_data_sets_have_all_images_and_names_from_their_folder(score, folder, tmp_path):
    coco, tasks = tmp_path / "r.json", tmp_path / "t.json"
    assert score("--regions", str(coco), "--label-studio", str(tasks)) == 0
    names = sorted(path.name for path in folder.iterdir())
    dataset = json.loads(coco.read_text())
    assert [image["file_name"] for image in dataset["images"]] == names
    assert dataset["annotations"]
    urls = [task["data"]["image"] for task in json.loads(tasks.read_text())]
    assert urls == [f"/data/local-files/?d={folder.name}/{name}" for name in names]
    n_boxes = sum(len(p["result"]) for t in json.loads(tasks.read_text()) for p in t["predictions"])
    assert n_boxes == len(dataset["annotations"])


def test_an_earlier_runs_rows_have_their_regions_too(score, tmp_path):
    assert score("--regions", str(tmp_path / "once.csv")) == 0
    assert score("--resume", "--regions", str(tmp_path / "again.csv")) == 0
    once = (tmp_path / "once.csv").read_bytes()
    assert once.count(b"\n") > 3
    assert (tmp_path / "again.csv").read_bytes() == once


def test_without_regions_the_files_are_empty_ones(score, folder, tmp_path):
    assert score("--threshold", "1e6", "--regions", str(tmp_path / "r.csv")) == 0
    assert (tmp_path / "r.csv").read_text().startswith("image,label,top")
    assert (tmp_path / "r.csv").read_text().count("\n") == 1
    assert score("--threshold", "1e6", "--regions", str(tmp_path / "r.json")) == 0
    dataset = json.loads((tmp_path / "r.json").read_text())
    assert len(dataset["images"]) == len(list(folder.iterdir()))
    assert dataset["annotations"] == []


def test_odd_names_come_through(model, parts, tmp_path):
    name = os.fsdecode(b"=caf\xe9 #1.png")
    (tmp_path / "in").mkdir()
    Image.fromarray(parts.data[-1]).save(tmp_path / "in" / "plain.png")
    try:
        (tmp_path / "in" / "plain.png").rename(tmp_path / "in" / name)
    except OSError:
        pytest.skip("names here are UTF-8")
    files = {suffix: tmp_path / f"r.{suffix}" for suffix in ("csv", "json")}
    arguments = ["score", str(model), str(tmp_path / "in"), "-o", str(tmp_path / "s.csv")]
    assert main([*arguments, "--threshold", "5", "--regions", str(files["csv"])]) == 0
    assert os.path.basename(read_csv(files["csv"])["image"][0]) == name
    options = ["--regions", str(files["json"]), "--label-studio", str(tmp_path / "t.json")]
    assert main([*arguments, "--threshold", "5", *options]) == 0
    assert json.loads(files["json"].read_text())["images"][0]["file_name"] == name
    assert json.loads((tmp_path / "t.json").read_text())[0]["data"]["image"].endswith(
        "in/%3Dcaf%E9%20%231.png"
    )


def test_images_that_cannot_be_read_have_no_regions(score, model, folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"none")
    options = ["--on-error", "skip", "--regions", str(tmp_path / "r.json")]
    assert score(str(broken), *options) == 3
    dataset = json.loads((tmp_path / "r.json").read_text())
    assert len(dataset["images"]) == len(list(folder.iterdir()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--regions", "{}/r.txt"], "r.txt: give a name that ends in .csv or .json"),
        (["--label-studio", "{}/r.csv"], "r.csv: give a name that ends in .json"),
        (["--regions", "{}/nowhere/r.csv"], "nowhere, the folder of r.csv, does not exist"),
        (["--regions", "{}/r.csv", "--min-area", "-1"], "--min-area -1 must be 0 or more"),
    ],
)
def test_what_cannot_be_is_told_before_the_work(score, tmp_path, options, message, capsys):
    assert score(*(option.format(tmp_path) for option in options)) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


def test_a_threshold_is_needed(score, model, good, tmp_path, capsys):
    joblib.dump(joblib.load(model).set_params(calibration=None).fit(good), model)
    assert score("--regions", str(tmp_path / "r.csv")) == 1
    assert "has no threshold: give --threshold" in capsys.readouterr().err
