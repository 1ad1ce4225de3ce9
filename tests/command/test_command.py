"""The command: what it writes, prints and returns."""

import os
import subprocess
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import skpadim
from skpadim import PadimDetector
from skpadim.__main__ import main
from skpadim.command import _demo
from skpadim.command._benchmark import _detectors
from skpadim.command._model import make_detector
from skpadim.command._options import parse
from skpadim.files._csv import read_csv

COMMANDS = [
    "demo",
    "fit",
    "score",
    "report",
    "evaluate",
    "calibrate",
    "info",
    "doctor",
    "benchmark",
]
SMALL = ["--backbone", "filter_bank", "--image-size", "64", "--crop-size", "none"]


BAD = ["part_010.png", "part_020.png"]


@pytest.fixture
def bad_folder(folder, tmp_path):
    """The parts, of which two cannot be read."""
    images = tmp_path / "some bad"
    images.mkdir()
    for path in folder.iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / BAD[0]).write_text("not an image")
    (images / BAD[1]).write_bytes(b"")
    return images


def test_demo_finds_the_defects_offline(tmp_path, capsys, offline, monkeypatch):
    # Fewer parts: `.ci/run` runs the whole of it.
    for name, number in {"N_TRAIN": 24, "N_GOOD": 6, "N_DEFECTIVE": 6}.items():
        monkeypatch.setattr(_demo, name, number)
    assert main(["demo", "-o", str(tmp_path / "demo.png")]) == 0
    printed, told = capsys.readouterr()
    assert told.startswith("capsule: drawing 24 good ones to learn from\n")  # not silence
    assert "\nleather: inspecting\n" in told
    rows = [line.split() for line in printed.splitlines() if line.split()[1:2] == ["all"]]
    assert [row[0] for row in rows] == ["capsule", "leather"]
    assert min(float(auroc) for row in rows for auroc in row[-2:]) > 0.85
    assert str(tmp_path / "demo.png") in printed
    assert "skpadim fit" in printed
    assert f"in a browser: {tmp_path / 'demo.html'}" in printed
    assert "<!DOCTYPE html>" in (tmp_path / "demo.html").read_text(encoding="utf-8")
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
        (["report", "{tmp}/nowhere", "{folder}", "-o", "{tmp}/r"], "nowhere is not a file"),
        (["report", "m", "{folder}", "-o", "{tmp}/empty"], "is a folder; give the name of a file"),
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


def test_parts_are_aligned_if_asked_for(folder, tmp_path):
    model = tmp_path / "aligned.joblib"
    assert main(["fit", str(folder), "-o", str(model), *SMALL, "--align", "translation"]) == 0
    detector = joblib.load(model)
    assert detector.aligner_.motion == "translation"
    assert len(detector.aligner_.alignment_) == len(list(folder.iterdir()))


def test_a_bad_image_stops_the_fit_and_leaves_the_old_model(bad_folder, model, tmp_path, capsys):
    before = model.read_bytes()
    assert main(["fit", str(bad_folder), "-o", str(model), *SMALL]) == 1
    error = capsys.readouterr().err
    assert f"{bad_folder / 'part_010.png'} cannot be read" in error
    assert "--on-error skip" in error
    assert error.count("\n") == 1
    assert model.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_fit_that_skips_is_one_without_the_bad_images(bad_folder, folder, tmp_path, capsys):
    model = tmp_path / "model.joblib"
    arguments = ["fit", "-o", str(model), *SMALL, "--on-error", "skip"]
    assert main([*arguments, str(bad_folder)]) == 3
    error = capsys.readouterr().err
    assert [str(bad_folder / name) in error for name in BAD] == [True, True]
    assert "31 images, threshold" in error
    assert "; 2 images could not be read\nnext: skpadim report" in error
    skipped = joblib.load(model)
    good = [str(path) for path in sorted(folder.iterdir()) if path.name not in BAD]
    assert main([*arguments, *good]) == 0
    np.testing.assert_array_equal(joblib.load(model).training_scores_, skipped.training_scores_)


def test_a_fit_that_skips_too_many_fails_in_words(bad_folder, tmp_path, capsys):
    images = [str(bad_folder / name) for name in (*BAD, "part_000.png", "part_001.png")]
    arguments = ["fit", *images, "-o", str(tmp_path / "m"), *SMALL, "--on-error", "skip"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert "2 of 4 images could not be read, and from the others nothing can be learned: " in error
    assert "at least 3 training samples, found 2" in error
    assert not (tmp_path / "m").exists()


def test_scoring_stops_at_a_bad_image_and_keeps_the_rows_before(
    model, bad_folder, tmp_path, capsys
):
    output = tmp_path / "scores.csv"
    output.write_text("an old file")
    assert main(["score", str(model), str(bad_folder / BAD[0]), "-o", str(output)]) == 1
    assert output.read_text() == "an old file"  # there is nothing to replace it with
    capsys.readouterr()
    for on_error in ([], ["--on-error", "stop"], ["--on-error", "raise"]):
        assert main(["score", str(model), str(bad_folder), "-o", str(output), *on_error]) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"skpadim: error: {bad_folder / BAD[0]} cannot be read")
        assert f"10 rows are in {output}, and --resume goes on after them" in error
        assert error.count("\n") == 1
        table = pd.read_csv(output)
        assert [Path(path).name for path in table["path"]] == [
            f"part_{i:03}.png" for i in range(10)
        ]


def test_scoring_skips_bad_images_and_tells_of_them(model, bad_folder, folder, tmp_path, capsys):
    output, maps = tmp_path / "scores.csv", tmp_path / "maps"
    arguments = ["score", str(model), "-o", str(output), "--maps", str(maps)]
    assert main([*arguments, str(bad_folder), "--on-error", "skip"]) == 3
    error = capsys.readouterr().err
    assert [error.count(f": {bad_folder / name} ") for name in BAD] == [1, 1]
    assert "of 31 images are anomalous; 2 images could not be read" in error
    table = pd.read_csv(output)
    assert table.columns.tolist() == ["path", "score", "decision", "label", "error"]
    bad = table["error"].notna()
    assert [Path(path).name for path in table["path"][bad]] == BAD
    assert "is empty (0 bytes)" in table["error"][20]
    assert table["score"].isna().equals(bad)
    assert len(list(maps.iterdir())) == 2 * 31
    assert main([*arguments[:2], str(folder), *arguments[2:4]]) == 0
    clean = pd.read_csv(output)
    np.testing.assert_allclose(table["score"][~bad], clean["score"][~bad], rtol=1e-5)


def test_a_run_that_was_stopped_goes_on(model, bad_folder, folder, tmp_path, capsys, monkeypatch):
    output, whole = tmp_path / "scores.csv", tmp_path / "whole.csv"
    arguments = ["score", str(model), str(bad_folder), "-o"]
    assert main([*arguments, str(output)]) == 1
    assert main([*arguments, str(whole), "--on-error", "skip"]) == 3
    # What is done is not looked at again.
    (bad_folder / "part_000.png").write_bytes(b"")
    for _ in range(2):
        assert main([*arguments, str(output), "--on-error", "skip", "--resume"]) == 3
        assert output.read_bytes() == whole.read_bytes()
    assert main([*arguments, str(output), "--resume"]) == 3
    capsys.readouterr()
    # Another model has another threshold.
    joblib.dump(joblib.load(model).set_params(contamination=0.3).calibrate(), model)
    assert main([*arguments, str(output), "--resume"]) == 1
    assert "row 2 is of another model or threshold" in capsys.readouterr().err
    assert output.read_bytes() == whole.read_bytes()


def test_a_killed_run_goes_on_to_what_it_would_have_written(model, folder, tmp_path, start_process):
    joblib.dump(joblib.load(model).set_params(batch_size=4), model)
    images = tmp_path / "images"
    images.mkdir()
    for copy in range(12):
        for path in folder.iterdir():
            (images / f"{copy}_{path.name}").hardlink_to(path)
    output, whole = tmp_path / "scores.csv", tmp_path / "whole.csv"
    command = ["score", str(model), str(images), "-o", str(output)]
    process = start_process("from skpadim.__main__ import main; main()", *command)
    while not output.exists() or output.read_bytes().count(b"\n") < 40:
        assert process.is_alive()
        time.sleep(0.001)
    process.kill()
    process.join()
    n_rows = len(pd.read_csv(output))
    assert 39 <= n_rows < 396
    with output.open("ab") as file:
        file.write(b"images/torn.png,-0.1")
    assert main([*command, "--resume"]) == 0
    assert main([*command[:-1], str(whole)]) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_resumed_run_scores_by_the_batches_of_an_undisturbed_one(folder, good, tmp_path):
    parameters = {"image_size": 64, "crop_size": None, "random_state": 0, "contamination": 0.3}
    network = PadimDetector("resnet18", weights=None, **parameters)
    model, output, whole = (tmp_path / name for name in ("m", "scores.csv", "whole.csv"))
    joblib.dump(network.fit(good[:8]), model)
    arguments = ["score", str(model), str(folder), "-o"]
    assert main([*arguments, str(whole)]) == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    for n_rows in (3, 32):
        output.write_bytes(b"".join(lines[: 1 + n_rows]))
        assert main([*arguments, str(output), "--resume"]) == 0
        assert output.read_bytes() == whole.read_bytes()


def test_images_that_stand_for_those_that_are_done_are_not_told_as_unaligned(
    folder, good, tmp_path, capsys
):
    parameters = {"image_size": 64, "random_state": 0, "align": "translation"}
    model, output = tmp_path / "m", tmp_path / "scores.csv"
    joblib.dump(PadimDetector("filter_bank", **parameters).fit(good), model)
    arguments = ["score", str(model), str(folder), "-o", str(output)]
    assert main(arguments) == 0
    whole, told = output.read_bytes(), capsys.readouterr().err
    output.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    assert main([*arguments, "--resume"]) == 0
    assert output.read_bytes() == whole
    assert capsys.readouterr().err == told


def test_rows_without_a_threshold_are_gone_on_with_by_their_scores(
    model, folder, good, tmp_path, capsys
):
    detector = joblib.load(model).set_params(calibration=None)
    joblib.dump(detector.fit(good), model)
    output = tmp_path / "scores.csv"
    arguments = ["score", str(model), str(folder), "-o", str(output)]
    assert main(arguments) == 0
    whole = output.read_bytes()
    assert whole.startswith(b"path,score\n")
    output.write_bytes(whole[:200])
    assert main([*arguments, "--resume"]) == 0
    assert output.read_bytes() == whole
    joblib.dump(detector.set_params(regularization=1).fit(good), model)
    assert main([*arguments, "--resume"]) == 1
    assert "and by this model" in capsys.readouterr().err


def test_ctrl_c_says_where_the_rows_are(model, folder, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("skpadim._padim.iter_maps_and_errors", interrupted)
    assert main(["score", str(model), str(folder), "-o", str(tmp_path / "s.csv")]) == 130
    error = capsys.readouterr().err
    assert error == ("skpadim: interrupted; nothing is written yet\n")


def test_names_that_are_not_utf_8_are_written_as_they_are(model, folder, tmp_path, capfdbinary):
    name = tmp_path / os.fsdecode(b"\xff=\xe9.png")
    name.write_bytes((folder / "part_000.png").read_bytes())
    output, maps = tmp_path / "scores.csv", tmp_path / "maps"
    arguments = ["score", str(model), str(name)]
    assert main([*arguments, "-o", str(output), "--maps", str(maps)]) == 0
    table = pd.read_csv(output, encoding_errors="surrogateescape")
    assert table["path"].tolist() == [str(name)]
    assert (maps / f"{name.name}.tiff").is_file()
    capfdbinary.readouterr()
    assert main(arguments) == 0
    assert capfdbinary.readouterr().out == output.read_bytes()
    assert os.fsencode(name) in output.read_bytes()


def test_several_folders_files_and_lists_are_scored(model, folder, tmp_path, capsys, monkeypatch):
    first, second = sorted(folder.iterdir())[:2]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes((first if name == "a" else second).read_bytes())
    (tmp_path / "list.txt").write_text(f"{first}\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["score", "-o", "s.csv", str(model), "a", "--maps", "maps", "b/x.png"]
    assert main([*arguments, "--files-from", "list.txt"]) == 0
    table = pd.read_csv("s.csv")
    assert table["path"].tolist() == ["a/x.png", "b/x.png", str(first)]
    assert table["score"][0] == table["score"][2] != table["score"][1]
    assert len(list(Path("maps").rglob("x.png.tiff"))) == 2
    assert main(["score", str(model), "--files-from", "list.txt", "-o", "t.csv"]) == 0
    assert pd.read_csv("t.csv")["path"].tolist() == [str(first)]


def test_suffixes_left_out_are_told(model, folder, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "x.png").write_bytes((folder / "part_000.png").read_bytes())
    (images / "raw.dng").touch()
    assert main(["score", str(model), str(images)]) == 0
    assert (
        f"skpadim: warning: 1 file is left out, not ending as images do: {images / 'raw.dng'}\n"
        in (capsys.readouterr().err)
    )


@pytest.mark.parametrize("maps", ["{images}", "{images}/maps"])
def test_maps_do_not_go_among_the_images(model, folder, tmp_path, maps, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "x.png").write_bytes((folder / "part_000.png").read_bytes())
    arguments = ["score", str(model), "--maps", maps.format(images=images)]
    assert main([*arguments, str(images)]) == 1
    assert "the pictures would be taken for images" in capsys.readouterr().err
    assert main([*arguments, str(images / "x.png")]) == (1 if maps == "{images}" else 0)


@pytest.mark.parametrize(
    ("maps", "name", "message"),
    [
        ("file/maps", "x.png", "--maps file/maps cannot be made (Not a directory)"),
        ("maps", "x" * 247 + ".png", ".png.tiff cannot be written (File name too long)"),
    ],
)
def test_maps_that_cannot_be_written_are_told_before_the_work(
    model, folder, tmp_path, monkeypatch, capsys, maps, name, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / name).write_bytes((folder / "part_000.png").read_bytes())
    part = str(folder / "part_001.png")
    assert main(["score", str(model), part, name, "-o", "s.csv", "--maps", maps]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()
    assert not list(tmp_path.glob("maps/*"))


def test_after_two_dashes_all_are_names(model, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("-x.png", "y.png"):
        (tmp_path / name).write_bytes((folder / "part_000.png").read_bytes())
    assert main(["score", str(model), "y.png", "-o", "s.csv", "--", "-x.png"]) == 0
    assert read_csv(tmp_path / "s.csv")["path"].tolist() == ["y.png", "-x.png"]
    with pytest.raises(SystemExit):
        main(["score", str(model), "y.png", "-o", "s.csv", "--wrong", "--", "-x.png"])


def test_images_may_have_two_sides(folder, tmp_path):
    model = tmp_path / "m"
    arguments = ["fit", "-o", str(model), "--backbone", "filter_bank"]
    for sizes, expected in (
        (["--image-size", "48", "64", str(folder)], ((48, 64), None)),
        (
            [str(folder), "--image-size", "48", "64", "--crop-size", "40", "48"],
            ((48, 64), (40, 48)),
        ),
        (["--image-size", "64", str(folder), "--crop-size", "none"], (64, None)),
    ):
        assert main([*arguments, *sizes]) == 0
        detector = joblib.load(model)
        assert (detector.image_size, detector.crop_size) == expected


def test_what_is_shared_and_added_are_options(folder, tmp_path):
    model = tmp_path / "m"
    more = ["--sharing", "neighbourhood", "--regularization"]
    for text, value in (("auto", "auto"), ("0.1", 0.1)):
        assert main(["fit", str(folder), "-o", str(model), *SMALL, *more, text]) == 0
        detector = joblib.load(model)
        assert (detector.sharing, detector.regularization) == ("neighbourhood", value)
    with pytest.raises(SystemExit):
        main(["fit", str(folder), "-o", str(model), *SMALL, *more, "much"])


def test_the_limit_of_pixels_is_raised_and_lowered(model, folder, tmp_path, capsys, monkeypatch):
    image = str(folder / "part_000.png")  # 4096 pixels
    for limit, code in (("4095", 1), ("4096", 0), ("none", 0)):
        assert main(["score", str(model), image, "--max-pixels", limit]) == code
        assert ("warning" in capsys.readouterr().err) is False
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert main(["score", str(model), image]) == 1
    error = capsys.readouterr().err
    assert image in error
    assert "2000 pixels" in error
    assert main(["score", str(model), image, "--max-pixels", "5000"]) == 0
    assert main(["fit", str(folder), "-o", str(tmp_path / "m"), *SMALL]) == 1
    assert (
        main(["fit", str(folder), "-o", str(tmp_path / "m"), *SMALL, "--max-pixels", "none"]) == 0
    )
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x80\x04N.", b"\x80\x05cos\nno_such\n.", b"\x80\x04h\x08."]
)
def test_a_file_that_is_no_model_is_told_in_one_sentence(content, folder, tmp_path, capsys):
    model = tmp_path / "m.joblib"
    model.write_bytes(content)
    assert main(["score", str(model), str(folder)]) == 1
    told = (
        "holds a NoneType, not"
        if content == b"\x80\x04N."
        else (
            "cannot be read as a model: it is none, or damaged, or comes from another version. "
            "'skpadim fit' writes model files.\n"
        )
    )
    error = capsys.readouterr().err
    assert error.startswith(f"skpadim: error: {model} {told}")
    assert error.count("\n") == 1


def test_a_model_that_needs_a_missing_module_names_it(folder, tmp_path, capsys):
    (tmp_path / "m").write_bytes(b"cno_such_module\nNetwork\n.")
    assert main(["score", str(tmp_path / "m"), str(folder)]) == 1
    assert "needs the module 'no_such_module', which is not installed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("The disk is full."), "The disk is full."),
        (MemoryError(), "There is not enough memory."),
        (RuntimeError("CUDA out of memory.\nTried to allocate"), "CUDA out of memory. Tried to"),
        (Image.DecompressionBombError("Image size"), "Image size"),
    ],
)
def test_errors_of_the_machine_are_one_line(error, message, folder, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(PadimDetector, "fit", fail)
    assert main(["fit", str(folder), "-o", str(tmp_path / "m")]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"skpadim: error: {message}")
    assert told.count("\n") == 1


# What is true only before torch is imported takes a process of its own.
_WITHOUT_TORCH = """
import os, sys
from skpadim.__main__ import main
from skpadim.files._csv import read_csv

for given in ({}, {"KMP_BLOCKTIME": "7"}, {"OMP_WAIT_POLICY": "active"}):
    for name in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME"):
        os.environ.pop(name, None)
    os.environ.update(given)
    code = main(sys.argv[1:])
    assert "torch" not in sys.modules
    print(code, os.environ["OMP_WAIT_POLICY"], os.environ.get("KMP_BLOCKTIME"))
"""


def test_before_torch_is_imported_threads_are_told_to_sleep_and_folders_are_looked_for(
    model, tmp_path
):
    command = [sys.executable, "-c", _WITHOUT_TORCH, "score", str(model), str(tmp_path / "nowhere")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["1 PASSIVE 0", "1 PASSIVE 7", "1 active None"]
    error = f"skpadim: error: {tmp_path / 'nowhere'} does not exist."
    assert result.stderr.splitlines() == [error] * 3


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_has_the_exit_codes_and_ends_with_an_example(command, capsys):
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "3 done, but for images that could not be read" in told
    assert not command or f"example: skpadim {command[0]} " in told


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fit"],
        ["fly"],
        ["fit", "x", "-o", "y", "--seed", "a"],
        ["fit", "-o", "y"],
        ["score", "m", "--fly"],
        ["score", "m"],
        ["demo", "x"],
        ["fit", "x", "-o", "y", "--image-size", "4x"],
        ["score", "m", "x", "--on-error", "go"],
    ],
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


@pytest.mark.parametrize(
    ("size", "crop_size"), [(["256"], 224), (["64"], 56), (["48", "64"], (42, 56))]
)
def test_the_benchmark_has_the_papers_network_and_crop(size, crop_size):
    options = parse(["benchmark", "mvtec_ad", "--root", "data", "--image-size", *size])
    (detector,) = _detectors(options)
    assert (detector.backbone, detector.crop_size) == ("resnet18", crop_size)
    options = parse(["fit", "parts", "-o", "model", "--image-size", *size])
    detector = make_detector(options)
    assert (detector.backbone, detector.crop_size) == ("auto", None)


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"skpadim {skpadim.__version__}\n"


def test_a_reader_that_leaves_early_is_no_error_message(model, folder, monkeypatch, capsys):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stdout:  # which is flushed once more at its end
        monkeypatch.setattr("sys.stdout", stdout)
        assert main(["score", str(model), str(folder)]) == 1
    assert capsys.readouterr().err == ""


def test_warnings_are_lines_of_the_command(folder, tmp_path, capsys):
    arguments = ["fit", str(folder), "-o", str(tmp_path / "m"), *SMALL]
    assert main([*arguments, "--contamination", "0.001"]) == 0
    assert "skpadim: warning: 33 good images are too few" in capsys.readouterr().err


def test_ctrl_c_during_the_imports_is_told_in_words(monkeypatch, capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("skpadim.command._options.parse", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == "skpadim: interrupted\n"


def test_a_help_is_quick():
    code = (
        "import sys; from skpadim.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print({'torch', 'sklearn', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_what_stands_in_the_wrong_place_is_told(model, folder, capsys):
    for name in ("report", "evaluate", "score"):
        assert main([name, str(folder), str(model)]) == 1
        assert f"{folder} is a folder; the model file comes first" in capsys.readouterr().err


def test_a_fit_of_one_image_is_told(folder, tmp_path, capsys):
    assert main(["fit", str(folder / "part_000.png"), "-o", str(tmp_path / "m")]) == 1
    assert "1 image given; at least 3 are needed" in capsys.readouterr().err


def test_a_region_and_tiles_are_passed_on(folder, tmp_path):
    region = np.zeros((64, 64), np.uint8)
    region[8:40, 8:40] = 255
    Image.fromarray(region).save(tmp_path / "roi.png")
    model = tmp_path / "model.joblib"
    given = ["--roi", str(tmp_path / "roi.png"), "--tile-size", "64"]
    assert main(["fit", str(folder), "-o", str(model), *SMALL, *given]) == 0
    detector = joblib.load(model)
    np.testing.assert_array_equal(detector.roi_, region > 0)
    assert detector.tile_size == 64


def test_a_region_that_is_none_is_told(folder, tmp_path, capsys):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "roi.png")
    model = tmp_path / "model.joblib"
    given = ["--roi", str(tmp_path / "roi.png")]
    assert main(["fit", str(folder), "-o", str(model), *SMALL, *given]) == 1
    assert "roi has no pixel" in capsys.readouterr().err
    assert not model.exists()


def test_a_missing_extra_is_told_in_a_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    fit = ["fit", str(folder), "-o", str(tmp_path / "m.joblib"), "--backbone", "timm/resnet18"]
    assert main(fit) == 1
    assert (
        "error: backbone='timm/resnet18' is a network of timm, which cannot be imported"
        in capsys.readouterr().err
    )
