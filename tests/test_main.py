"""The command: what it writes, prints and returns."""

import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import skpadim
from skpadim import PadimDetector
from skpadim.__main__ import main

SMALL = ["--backbone", "filter_bank", "--image-size", "64", "--crop-size", "none"]


@pytest.fixture
def model(good, tmp_path):
    detector = PadimDetector("filter_bank", image_size=64, crop_size=None, random_state=0)
    joblib.dump(detector.fit(good), tmp_path / "model.joblib")
    return tmp_path / "model.joblib"


def test_demo_finds_the_defects_offline(tmp_path, capsys, offline):
    assert main(["demo", "-o", str(tmp_path / "demo.png")]) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.split()[1:2] == ["all"]]
    assert [row[0] for row in rows] == ["capsule", "leather"]
    assert min(float(auroc) for row in rows for auroc in row[-2:]) > 0.85
    assert str(tmp_path / "demo.png") in printed
    assert "skpadim fit" in printed
    with Image.open(tmp_path / "demo.png") as picture:
        assert picture.width > 6 * 224
        assert picture.height > 4 * 224


def test_fit_then_score(folder, parts, good, tmp_path, capsys):
    model = tmp_path / "model.joblib"
    assert main(["fit", str(folder), "-o", str(model), *SMALL]) == 0
    assert "filter_bank, layer1, layer2, layer3, 33 images" in capsys.readouterr().err
    scores, maps = tmp_path / "scores.csv", tmp_path / "maps"
    assert main(["score", str(model), str(folder), "-o", str(scores), "--maps", str(maps)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "of 33 images are anomalous" in captured.err
    table = pd.read_csv(scores)
    assert table.columns.tolist() == ["path", "score", "decision", "label"]
    detector = joblib.load(model)
    np.testing.assert_allclose(table["score"], detector.score_samples(parts.data), rtol=1e-6)
    np.testing.assert_array_equal(table["label"], detector.predict(parts.data))
    with Image.open(maps / "part_003.png.tiff") as file:
        values = np.array(file)
    np.testing.assert_allclose(values, detector.anomaly_map(parts.data[3:4])[0], rtol=1e-5)
    with Image.open(maps / "part_003.png.png") as file:
        assert file.size == (128, 64)
    assert {path.name for path in tmp_path.iterdir()} == {"model.joblib", "scores.csv", "maps"}


def test_scores_go_to_the_standard_output_by_default(model, folder, capsys):
    assert main(["score", str(model), str(folder)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("path,score,decision,label\n")
    assert len(captured.out.splitlines()) == 34
    assert "\r" not in captured.err  # no progress bar where there is no terminal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "{tmp}/nowhere", "-o", "{tmp}/m"], "nowhere does not exist"),
        (["fit", "{tmp}/empty", "-o", "{tmp}/m"], "has no images"),
        (["fit", "{folder}", "-o", "{tmp}/no/m"], "the folder of m, does not exist"),
        (["fit", "{folder}", "-o", "{tmp}/empty"], "is a folder; give the name of a file"),
        (["fit", "{folder}", "-o", "{tmp}/m", "--backbone", "resnet19"], "did you mean 'resnet18'"),
        (["fit", "{folder}", "-o", "{tmp}/m", *SMALL, "--layers", "layer9"], "'layer9'"),
        (["score", "{tmp}/nowhere", "{folder}"], "nowhere is not a file"),
        (["score", "m", "{folder}", "--maps", "{folder}/maps"], "would be taken for images"),
        (["score", "m", "{folder}", "--maps", "{tmp}/list.joblib"], "is a file; give the name"),
        (["score", "{folder}/part_000.png", "{folder}"], "cannot be read as a model"),
        (["score", "{tmp}/list.joblib", "{folder}"], "holds a list, not a PadimDetector"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(arguments, message, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    joblib.dump([1], tmp_path / "list.joblib")
    before = sorted(tmp_path.iterdir())
    filled = [argument.format(tmp=tmp_path, folder=folder) for argument in arguments]
    assert main(filled) == 1
    error = capsys.readouterr().err
    assert error.startswith("skpadim: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_bad_image_stops_the_fit_and_leaves_the_old_model(folder, good, model, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for index in range(3):
        Image.fromarray(good[index]).save(images / f"{index}.png")
    (images / "z.png").write_text("not an image")
    before = model.read_bytes()
    assert main(["fit", str(images), "-o", str(model), *SMALL]) == 1
    assert "z.png" in capsys.readouterr().err
    assert model.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "arguments", [[], ["fit"], ["fly"], ["fit", "x", "-o", "y", "--seed", "a"]]
)
def test_a_wrong_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: skpadim" in capsys.readouterr().err


def test_output_follows_links_and_fills_pipes(model, folder, tmp_path):
    (tmp_path / "target.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "target.csv")
    assert main(["score", str(model), str(folder), "-o", str(tmp_path / "link.csv")]) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert len((tmp_path / "target.csv").read_text().splitlines()) == 34
    assert main(["score", str(model), str(folder), "-o", "/dev/null"]) == 0
    assert not Path("/dev/null").is_file()


def test_the_crop_follows_the_image_size(folder, tmp_path):
    model = tmp_path / "model.joblib"
    arguments = ["--backbone", "filter_bank", "--image-size", "64"]
    assert main(["fit", str(folder), "-o", str(model), *arguments]) == 0
    assert joblib.load(model).crop_size == 56


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"skpadim {skpadim.__version__}\n"


def test_a_reader_that_leaves_early_is_no_error_message(model, folder):
    command = f"{sys.executable} -m skpadim score {model} {folder} | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert result.stdout == "path,score,decision,label\n"
    assert "BrokenPipe" not in result.stderr
    assert "Traceback" not in result.stderr


def test_warnings_are_lines_of_the_command(folder, tmp_path, capsys, offline):
    arguments = ["fit", str(folder), "-o", str(tmp_path / "m"), "--image-size", "64"]
    assert main([*arguments, "--crop-size", "none"]) == 0
    assert "skpadim: warning: backbone='auto' uses the filter bank" in capsys.readouterr().err
