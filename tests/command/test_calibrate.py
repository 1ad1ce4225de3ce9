"""`skpadim calibrate`: another threshold in the model file, and what is said of it."""

import joblib
import numpy as np
import pytest

from skpadim.__main__ import main
from skpadim.command import _model


def test_a_contamination_is_what_calibrate_sets(model, capsys):
    expected = joblib.load(model).set_params(contamination=0.2).calibrate().offset_
    before = joblib.load(model).offset_
    assert main(["calibrate", str(model), "--contamination", "0.2"]) == 0
    changed = joblib.load(model)
    assert (changed.offset_, changed.contamination) == (expected, 0.2)
    told = capsys.readouterr().err
    # 24 good images: 4 lie below, and a new one does with probability 5 / 25.
    assert (
        f"{model}: threshold {-expected:.4g}, flags about 20 % of new good images, 1 in 5" in told
    )
    assert f"(before: threshold {-before:.4g}, flags about" in told


def test_a_threshold_is_in_the_units_of_maps_and_holds(model, parts, tmp_path, capsys):
    other, old = tmp_path / "other.joblib", model.read_bytes()
    maps = joblib.load(model).anomaly_map(parts.data).max(axis=(1, 2))
    threshold = float(np.median(maps))
    assert main(["calibrate", str(model), "--threshold", str(threshold), "-o", str(other)]) == 0
    assert model.read_bytes() == old
    np.testing.assert_array_equal(joblib.load(other).predict(parts.data) < 0, maps > threshold)
    assert "warning" not in capsys.readouterr().err
    assert main(["calibrate", str(other), "--threshold", "1000"]) == 0
    assert "how many the threshold 1000 flags cannot be told" in capsys.readouterr().err


def test_images_that_were_held_out_set_it(model, folder, parts):
    images = sorted(folder.iterdir())
    expected = joblib.load(model).set_params(contamination=0.3).calibrate(images)
    assert main(["calibrate", str(model), "--on", str(folder), "--contamination", "0.3"]) == 0
    changed = joblib.load(model)
    assert changed.offset_ == expected.offset_
    assert len(changed.calibration_scores_) == 33


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --contamination, --threshold, or --on FOLDER"),
        (["--threshold", "9", "--contamination", "0.1"], "--threshold is set by hand"),
        (["--threshold", "-9"], "-9: thresholds are positive, as maps are; scores"),
        (["--threshold", "nan"], "nan: thresholds are positive"),
        (["--contamination", "2"], "'2' is no share between 0 and 0.5, as 0.02"),
    ],
)
def test_a_wrong_threshold_leaves_the_file_as_it_was(arguments, message, model, capsys):
    before = model.read_bytes()
    with pytest.raises(SystemExit, match="2"):
        main(["calibrate", str(model), *arguments])
    assert message in capsys.readouterr().err
    assert model.read_bytes() == before


def test_too_few_scores_for_a_contamination_are_warned_of(model, capsys):
    assert main(["calibrate", str(model), "--contamination", "0.001"]) == 0
    told = capsys.readouterr().err
    assert "24 good images are too few to set a threshold" in told
    assert "flags about 4 % of new good images, 1 in 25" in told


def test_an_interrupted_write_leaves_the_model_whole(model, monkeypatch):
    before = model.read_bytes()

    def half(detector, part):
        part.write_bytes(b"half")
        raise OSError("The disk is full.")

    monkeypatch.setattr(joblib, "dump", half)
    assert main(["calibrate", str(model), "--contamination", "0.2"]) == 1
    assert model.read_bytes() == before
    assert _model.load_model(model).contamination == 0.05


def test_a_threshold_set_in_python_holds_until_the_next(model, parts):
    detector = joblib.load(model)
    offset, maps = detector.offset_, detector.anomaly_map(parts.data).max(axis=(1, 2))
    detector.offset_ = -float(np.median(maps))
    np.testing.assert_array_equal(detector.predict(parts.data) < 0, maps > np.median(maps))
    assert detector.calibrate().offset_ == offset


def test_a_model_without_scores_takes_images_or_a_number(model, good, folder, capsys):
    joblib.dump(joblib.load(model).set_params(calibration=None).fit(good), model)
    assert main(["calibrate", str(model), "--contamination", "0.1"]) == 1
    assert "the model has no scores to set a threshold from" in capsys.readouterr().err
    assert main(["calibrate", str(model), "--threshold", "9"]) == 0
    assert "threshold 9 (before: no threshold)" in capsys.readouterr().err
    assert main(["calibrate", str(model), "--on", str(folder)]) == 0
    assert "about 2.9 % of new good images, 1 in 34 (before: threshold 9)" in (
        capsys.readouterr().err
    )


def test_images_that_were_learned_from_are_refused(model, folder, make_detector, capsys):
    joblib.dump(make_detector().fit(sorted(folder.iterdir())[:20]), model)
    before = model.read_bytes()
    assert main(["calibrate", str(model), "--on", str(folder)]) == 1
    assert "the model has learned from 20 of its 33 images" in capsys.readouterr().err
    assert model.read_bytes() == before


def test_a_threshold_below_all_flags_100_percent(model, capsys):
    assert main(["calibrate", str(model), "--threshold", "0.001"]) == 0
    assert "flags about 100 % of new good images, 1 in 1 (" in capsys.readouterr().err
