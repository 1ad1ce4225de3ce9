"""`skpadim doctor`: each finding is told where it is due, with what mends it, and not elsewhere."""

import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skpadim.__main__ import main
from skpadim.command._folder_check import near_copies
from skpadim.datasets import make_defects


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch):
    """A machine on which nothing is wrong, whatever this one is like."""
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.setattr("joblib.cpu_count", lambda: 64)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("skpadim.command._position_check._N_LOOKED_AT", 5)  # quick


@pytest.fixture
def good_folder(folder, tmp_path):
    """The good parts alone."""
    images = tmp_path / "good"
    images.mkdir()
    for path in sorted(folder.iterdir())[:24]:
        (images / path.name).write_bytes(path.read_bytes())
    return images


def test_nothing_wrong_is_0(good_folder, model, capsys):
    assert main(["doctor"]) == 0
    assert main(["doctor", str(model)]) == 0
    assert main(["doctor", str(good_folder)]) == 0
    assert main(["doctor", str(good_folder), str(model)]) == 0
    told = capsys.readouterr().out
    assert told.count("all is well") == 4
    assert "images    24, all 64 x 64" in told
    assert "ms, without reading it" in told
    assert "->" not in told


@pytest.mark.parametrize(
    ("name", "value", "what", "remedy"),
    [
        ("joblib.cpu_count", lambda: 1, "torch has 2 threads for 1 cores", "OMP_NUM_THREADS=1"),
        ("shutil.which", lambda name: name, "seems to have a GPU", "install torch for it"),
        ("importlib.util.find_spec", lambda name: None, "Numba is missing", "pip install numba"),
    ],
)
def test_what_is_wrong_with_the_machine(name, value, what, remedy, monkeypatch, capsys, threads):
    threads(2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(name, value)
    assert main(["doctor"]) == 4
    told = capsys.readouterr().out
    finding, mends = told.split("found: ")[1].split("    -> ")
    assert what in finding
    assert remedy in mends
    assert told.endswith("1 finding\n")


def test_threads_that_spin_are_told(monkeypatch, capsys):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert main(["doctor"]) == 4
    assert "-> export OMP_WAIT_POLICY=PASSIVE" in capsys.readouterr().out


def test_copies_are_told_and_their_groups_written(good_folder, tmp_path, capsys, rng):
    first = min(good_folder.iterdir())
    pixels = np.asarray(Image.open(first))
    noisy = np.clip(0.8 * pixels + rng.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(good_folder / "part_000_darker.png")
    groups = tmp_path / "groups.csv"
    assert main(["doctor", str(good_folder), "--write-groups", str(groups)]) == 4
    told = capsys.readouterr().out
    assert "2 of 25 images are nearly copies of others" in told
    assert "24 in all (part_000.png, part_000_darker.png, for one)" in told
    assert f"-> skpadim fit {good_folder} --groups {groups} -o MODEL" in told
    table = pd.read_csv(groups).set_index("path")["group"]
    assert table[str(first)] == table[str(good_folder / "part_000_darker.png")]
    assert table.nunique() == 24
    small = ["--backbone", "filter_bank", "--image-size", "64"]
    fit = ["fit", str(good_folder), "--groups", str(groups), "-o", str(tmp_path / "m"), *small]
    assert main(fit) == 0
    assert "25 images of 24 parts" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["capsule", "leather", "transistor"])
def test_good_parts_are_no_copies_of_each_other(part):
    images = make_defects(30, 0, part=part, image_size=64, random_state=0).data
    shrunk = images.mean(3).reshape(30, 16, 4, 16, 4).mean((2, 4)).reshape(30, -1)
    assert len(set(near_copies(shrunk))) == 30
    copies = np.concatenate([shrunk, 0.7 * shrunk[:3] + 9])
    groups = near_copies(copies)
    np.testing.assert_array_equal(groups[30:], groups[:3])


def test_too_few_images_are_told(good_folder, capsys):
    assert main(["doctor", str(good_folder), "--contamination", "0.02"]) == 4
    told = capsys.readouterr().out
    assert (
        "24 parts are too few for a threshold that flags 2 % of new good ones: that takes 49"
        in (told)
    )
    assert f"skpadim fit {good_folder} --contamination 0.04 -o MODEL" in told


def test_what_is_wrong_with_files_is_told(good_folder, capsys):
    paths = sorted(good_folder.iterdir())
    pixels = np.asarray(Image.open(paths[3]))
    paths[0].write_bytes(b"")
    Image.fromarray(pixels[:32]).save(paths[1])
    Image.fromarray(pixels).convert("RGBA").save(paths[2])
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(paths[3])
    assert main(["doctor", str(good_folder)]) == 4
    told = capsys.readouterr().out
    assert f"1 of 24 images cannot be read: {paths[0]}." in told
    assert "differ in their proportions" in told
    assert "1 of 23 images have transparency, which is dropped" in told
    assert f"is under it is looked at ({paths[2]})" in told
    assert f"1 of 23 images have more than 8 bits, and the others have not ({paths[3]})" in told


def test_dark_images_of_a_camera_of_12_bits_are_told(tmp_path, rng, capsys):
    for index in range(24):
        pixels = rng.integers(0, 4096, (32, 32)).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    assert main(["doctor", str(tmp_path)]) == 4
    told = capsys.readouterr().out
    assert "nearly black: their brightest pixel has 6 %" in told
    assert "scale their values by 16" in told


def test_images_that_have_drifted_are_told(model, good_folder, capsys):
    for path in good_folder.iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert main(["doctor", str(model), str(good_folder)]) == 4
    told = capsys.readouterr().out
    assert "of 24 looked at it flags 24" in told
    assert f"skpadim calibrate {model} --on {good_folder}" in told


@pytest.mark.parametrize(
    ("parameters", "what", "remedy"),
    [
        ({"calibration": None}, "has no threshold", "--on FOLDER_OF_OTHER_GOOD_IMAGES"),
        ({"calibration": "training"}, "comes from images that it has learned from", "--on FOLDER"),
        ({"contamination": 0.01}, "flags about 4 % of new", "--contamination 0.04, or fit with at"),
    ],
)
@pytest.mark.filterwarnings("ignore:24 good images are too few")
def test_what_is_wrong_with_a_model_is_told(parameters, what, remedy, model, good, capsys):
    joblib.dump(joblib.load(model).set_params(**parameters).fit(good), model)
    assert main(["doctor", str(model)]) == 4
    told = capsys.readouterr().out
    assert what in told
    assert f"-> skpadim calibrate {model} {remedy}" in told


def test_a_model_of_another_version_is_told(model, monkeypatch, capsys):
    monkeypatch.setattr("skpadim._persistence.__version__", "99.0")
    assert main(["doctor", str(model)]) == 4
    assert "is read by skpadim 99.0" in capsys.readouterr().out


@pytest.mark.parametrize("names", [["{model}", "{model}"], ["{folder}", "{folder}"]])
def test_two_of_a_kind_are_a_wrong_command_line(names, model, folder):
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", *(name.format(model=model, folder=folder) for name in names)])


def test_a_busy_machine_is_a_note(monkeypatch, capsys):
    monkeypatch.setattr("os.getloadavg", lambda: (60, 0, 0))
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "all is well\n\nnote: other processes compute on this machine (load 60.0 on 64" in told
    assert "OMP_NUM_THREADS=4 skpadim" in told


def test_copies_are_looked_for_with_a_model_too(model, good_folder, make_detector, capsys):
    shutil.copy(good_folder / "part_000.png", good_folder / "part_000_again.png")
    paths = sorted(good_folder.iterdir())
    joblib.dump(make_detector().fit(paths), model)
    assert main(["doctor", str(model), str(good_folder)]) == 4
    told = capsys.readouterr().out
    assert "2 of 25 images are nearly copies of others" in told
    assert "images              25 images of 24 parts, all 64 x 64" in told
    assert "it has learned from 25 of the 25 images" in told
    assert "model               filter_bank, 25 images, threshold" in told
    groups = [0, 0, *range(1, 24)]
    joblib.dump(make_detector().fit(paths, groups=groups), model)  # which knows of the copies
    assert main(["doctor", str(model), str(good_folder)]) == 0
    joblib.dump(make_detector(contamination=0.2).fit(paths[:20]), model)
    main(["doctor", str(model), str(good_folder)])
    assert "--groups" in capsys.readouterr().out
    joblib.dump(make_detector(contamination=0.2).fit(paths[:10]), model)  # the others are new
    main(["doctor", str(model), str(good_folder)])
    assert "--groups" not in capsys.readouterr().out


def test_images_that_are_made_much_smaller_are_told(tmp_path, rng, model, capsys):
    for index in range(24):
        coarse = rng.integers(100, 110, (15, 20), dtype=np.uint8)
        Image.fromarray(coarse).resize((400, 300), 0).save(tmp_path / f"{index}.bmp")
    assert main(["doctor", str(tmp_path)]) == 0
    assert main(["doctor", str(tmp_path), str(model)]) == 4
    told = capsys.readouterr().out
    assert "24, all 400 x 300 (width x height)" in told
    assert "images of 400 x 300 are shrunk 6 times, to 64 x 64: defects of less than 19" in told
    assert "a larger --image-size, or in tiles" in told


def test_what_is_not_there_is_told(model, tmp_path, capsys):
    assert main(["doctor", str(model), str(tmp_path / "nowhere")]) == 1
    assert "nowhere is neither a file nor a folder" in capsys.readouterr().err
