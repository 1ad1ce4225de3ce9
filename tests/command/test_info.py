"""`skpadim info`: what a model file holds, in lines."""

import joblib
import torch

from skpadim.__main__ import main


def test_all_that_is_known_of_a_model_is_told(model, capsys):
    assert main(["info", str(model)]) == 0
    told = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    told = {name: value.strip() for name, value in told.items()}
    detector = joblib.load(model)
    assert told["backbone"] == "filter_bank"
    assert told["layers"] == "layer1, layer2, layer3"
    assert told["images are resized to"] == "64 x 64"
    assert told["grid of positions"] == "8 x 8"
    assert told["images learned from"] == "24"
    assert told["threshold"].startswith(f"{-detector.offset_:.4g}, flags about 4 % of new")
    assert told["other settings"] == "image_size=64, random_state=0"
    assert torch.__version__.split("+")[0] in told["fitted with"]
    assert told["size on disk"] == f"{model.stat().st_size / 2**20:.1f} MiB"
    assert "here are" not in told
    assert (told["of which is inspected"], told["alignment"]) == ("all", "none")
    assert float(told["size in memory"].split()[0]) > float(told["size on disk"].split()[0])


def test_the_licence_and_other_versions_are_told(good, tmp_path, make_detector, capsys):
    detector = make_detector(backbone="auto", contamination=0.3).fit(good[:6])
    detector._fitted_versions = {"skpadim": "0.0.1"}
    detector.offset_ = -9.0
    joblib.dump(detector, tmp_path / "m")
    assert main(["info", str(tmp_path / "m")]) == 0
    told = capsys.readouterr().out
    assert "Apache-2.0" in told
    assert "skpadim 0.0.1\n" in told
    assert "here are" in told


def test_where_the_threshold_comes_from_is_told(model, folder, good, make_detector, capsys):
    def told():
        assert main(["info", str(model)]) == 0
        lines = capsys.readouterr().out.splitlines()
        return next(line for line in lines if line.startswith("which comes from")).split("  ")[-1]

    assert told() == " the training images, each scored as if left out, contamination 0.05".strip()
    assert main(["calibrate", str(model), "--threshold", "9"]) == 0
    assert told() == "set by hand"
    assert main(["calibrate", str(model), "--on", str(folder), "--contamination", "0.3"]) == 0
    assert told() == "33 other good images, contamination 0.3"
    training = make_detector(calibration="training").fit(good)
    joblib.dump(training, model)
    assert told() == "the scores of the training images themselves, contamination 0.05"
