"""`skpadim evaluate`: counts at the threshold, intervals, and metrics of one pass."""

import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skpadim.__main__ import main
from skpadim.metrics import evaluate


def test_counts_and_metrics_are_those_of_the_detector(model, test_folder, parts, tmp_path, capsys):
    output = tmp_path / "e.csv"
    assert main(["evaluate", str(model), str(test_folder), "-o", str(output)]) == 0
    printed, told = capsys.readouterr()
    assert "No metrics of pixels" not in told
    detector = joblib.load(model)
    flagged, bad = detector.predict(parts.data) < 0, parts.target == -1
    table = pd.read_csv(output).set_index("kind")
    assert set(table.index) == {*parts.kinds, "all defects"}
    for kind in parts.kinds:
        of_kind = parts.kinds == kind
        assert table["n_images"][kind] == of_kind.sum()
        assert table["n_flagged"][kind] == flagged[of_kind].sum()
    row = table.loc["all defects"]
    assert row["share_flagged"] == flagged[bad].mean()
    masks = [mask if is_bad else None for mask, is_bad in zip(parts.masks, bad, strict=True)]
    expected = evaluate(detector, parts.data, parts.target, masks)
    for name in ("image_roc_auc", "pixel_roc_auc", "aupro_0.3"):
        assert row[name] == pytest.approx(expected[name], abs=1e-6)
        assert f"{expected[name]:.3f}" in printed


def test_intervals_are_exact(model, test_folder, tmp_path, capsys):
    # Of 24 good ones none: the upper end p has (1 - p)^24 = 0.025.
    output = tmp_path / "e.csv"
    arguments = ["evaluate", str(model), str(test_folder), "-o", str(output)]
    assert main([*arguments, "--threshold", "1000"]) == 0
    row = pd.read_csv(output).set_index("kind").loc["good"]
    assert (row["n_flagged"], row["share_low"]) == (0, 0)
    assert (1 - row["share_high"]) ** 24 == pytest.approx(0.025)
    assert "At the threshold 1000:" in capsys.readouterr().out


def test_without_masks_there_are_metrics_of_images(model, test_folder, tmp_path, capsys):
    masks = shutil.move(tmp_path / "ground_truth", tmp_path / "elsewhere")
    (test_folder / "good").rename(test_folder / "OK")
    assert main(["evaluate", str(model), str(test_folder)]) == 0
    printed, told = capsys.readouterr()
    assert "image AUROC" in printed
    assert "AUPRO" not in printed
    assert "No metrics of pixels: 9 of 9 defective images have no mask (--masks), the first" in told
    assert main(["evaluate", str(model), str(test_folder), "--masks", str(masks)]) == 0
    assert "AUPRO" in capsys.readouterr().out


def test_what_was_not_inspected_or_aligned_is_told(test_folder, good, make_detector, capsys):
    model = test_folder.parent / "model.joblib"
    joblib.dump(make_detector(align="translation", crop_size=40).fit(good), model)
    odd = test_folder / "good" / "far.png"
    Image.fromarray(np.roll(good[0], 30, axis=1)).save(odd)
    assert main(["evaluate", str(model), str(test_folder)]) == 0
    printed, told = capsys.readouterr()
    assert f"1 image cannot be aligned ({odd})" in told
    (line,) = (line for line in printed.splitlines() if "was not inspected" in line)
    assert 0 < float(line.split()[0]) < 1


def test_good_images_alone_have_false_alarms(model, test_folder, capsys):
    for folder in test_folder.iterdir():
        if folder.name != "good":
            shutil.rmtree(folder)
    assert main(["evaluate", str(model), str(test_folder)]) == 0
    printed = capsys.readouterr().out
    assert "good" in printed
    assert "defects" not in printed
    assert "nan" not in printed


def test_unreadable_images_are_left_out_if_asked(model, test_folder, capsys):
    bad = test_folder / "good/000.png"
    bad.write_bytes(b"")
    assert main(["evaluate", str(model), str(test_folder)]) == 1
    assert str(bad) in capsys.readouterr().err
    assert main(["evaluate", str(model), str(test_folder), "--on-error", "skip"]) == 3
    printed, told = capsys.readouterr()
    assert f"{bad} is empty" in told
    assert np.array(printed.splitlines()[2].split())[:2].tolist() == ["good", "23"]


def test_what_is_missing_in_a_folder_is_told(model, test_folder, tmp_path, capsys):
    (next((tmp_path / "ground_truth").glob("*/*"))).unlink()
    assert main(["evaluate", str(model), str(test_folder)]) == 0
    printed, told = capsys.readouterr()
    assert "some out: 1 of 9 defective images has no mask in" in told
    assert "AUPRO" in printed  # of the others
    (test_folder / "good").rename(test_folder / "fine")
    assert main(["evaluate", str(model), str(test_folder)]) == 1
    assert "has no folder good, ok or normal" in capsys.readouterr().err


def test_a_model_without_a_threshold_is_told(model, test_folder, good, capsys):
    joblib.dump(joblib.load(model).set_params(calibration=None).fit(good), model)
    assert main(["evaluate", str(model), str(test_folder)]) == 1
    assert "has no threshold: give --threshold, or set one" in capsys.readouterr().err
    assert main(["evaluate", str(model), str(test_folder), "--threshold", "9"]) == 0


def test_masks_that_belong_to_no_image_are_told_alike(model, test_folder, tmp_path, capsys):
    (tmp_path / "drawn").mkdir()
    shutil.copy(test_folder / "good/000.png", tmp_path / "drawn/other.png")
    masks = ["--masks", str(tmp_path / "drawn")]
    for command in (["evaluate"], ["report", "-o", str(tmp_path / "r.html")]):
        assert main([*command, str(model), str(test_folder), *masks]) == 1
        assert (
            f"--masks {tmp_path / 'drawn'}: no image in it is named as" in capsys.readouterr().err
        )


def test_the_folder_above_is_told_to_be_that_of_the_test(model, test_folder, tmp_path, capsys):
    assert main(["evaluate", str(model), str(tmp_path)]) == 0
    masks = tmp_path / "ground_truth"
    assert f"kinds of {test_folder}, masks of {masks}\n" in capsys.readouterr().err


def test_images_that_were_learned_from_are_told(make_detector, test_folder, tmp_path, capsys):
    model, good = tmp_path / "m.joblib", sorted((test_folder / "good").iterdir())
    joblib.dump(make_detector(contamination=0.5).fit(good[:3]), model)
    assert main(["evaluate", str(model), str(test_folder)]) == 0
    n_images = sum(1 for path in test_folder.rglob("*.png"))
    assert f"has learned from 3 of the {n_images} images" in capsys.readouterr().err
