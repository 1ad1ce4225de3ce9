"""What `skpadim score` draws, and its thresholds and exit codes for one run."""

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from skpadim.__main__ import main
from skpadim.command import _pictures


@pytest.fixture
def wide(folder, tmp_path):
    """Some of the parts, twice as wide; the last two are defective."""
    images = tmp_path / "wide"
    images.mkdir()
    for path in [*sorted(folder.iterdir())[:4], *sorted(folder.iterdir())[-2:]]:
        with Image.open(path) as image:
            image.resize((256, 128)).save(images / path.name)
    return images


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_overlays_show_what_is_anomalous_in_the_images_own_pixels(model, wide, tmp_path, capsys):
    seen = tmp_path / "seen"
    arguments = ["score", str(model), str(wide), "-o", str(tmp_path / "s"), "--threshold", "9"]
    assert main([*arguments, "--overlays", str(seen)]) == 0
    detector, paths = joblib.load(model), sorted(wide.iterdir())
    detector.offset_ = -9.0
    masks = detector.anomaly_mask(paths, size="original")
    assert 0 < sum(mask.any() for mask in masks) < len(masks)
    for path, mask in zip(paths, masks, strict=True):
        drawn, image = (x.astype(int) for x in (read(seen / f"{path.name}.jpg"), read(path)))
        assert drawn.shape == (128, 256, 3)
        far = np.abs(drawn - image).max(axis=2) > 60  # more than JPEG's losses
        assert far[mask].mean() > 0.3 if mask.any() else not far.any()
        rows, columns = np.nonzero(mask)
        if mask.any():
            far[rows.min() - 12 : rows.max() + 12, columns.min() - 12 : columns.max() + 12] = False
            assert far.sum() < 20 * mask.sum()


def test_maps_can_have_the_images_size(model, wide, tmp_path, capsys):
    maps, paths = tmp_path / "maps", sorted(wide.iterdir())
    arguments = ["score", str(model), str(wide), "--maps", str(maps), "-o", str(tmp_path / "s")]
    assert main([*arguments, "--maps-size", "original"]) == 0
    expected = joblib.load(model).anomaly_map(paths, size="original")
    for path, anomaly_map in zip(paths, expected, strict=True):
        np.testing.assert_allclose(read(maps / f"{path.name}.tiff"), anomaly_map, rtol=1e-5)
        assert read(maps / f"{path.name}.png").shape == (128, 512, 3)


def test_the_contact_sheet_has_the_worst_first(model, wide, tmp_path, monkeypatch, capsys):
    drawn = []
    sheet_of = _pictures.sheet_of
    monkeypatch.setattr(
        _pictures, "sheet_of", lambda *cells: drawn.append(cells) or sheet_of(*cells)
    )
    monkeypatch.setattr(_pictures, "N_WORST", 5)
    monkeypatch.setattr(_pictures, "_N_COLUMNS", 2)
    output, sheet = tmp_path / "s.csv", tmp_path / "sheet.jpg"
    arguments = ["score", str(model), str(wide), "-o", str(output), "--contact-sheet", str(sheet)]
    assert main(arguments) == 0
    ((pictures, captions, titles),) = drawn
    assert titles == [f"threshold {-joblib.load(model).offset_:.2f}"]
    table = pd.read_csv(output).sort_values("score")[:5]
    expected = [
        f"{path.rsplit('/')[-1]}\n{-score:.2f}, {'anomalous' if label < 0 else 'good'}"
        for path, score, label in table[["path", "score", "label"]].itertuples(index=False)
    ]
    assert [text for row in captions for text in row] == expected
    assert [len(row) for row in pictures] == [2, 2, 1]
    assert {picture.shape for row in pictures for picture in row} == {(96, 192, 3)}
    with Image.open(sheet) as image:
        assert image.format == "JPEG"
        assert image.width == 2 * (192 + 8) + 8


def test_what_is_not_inspected_is_hatched(good, wide, make_detector, tmp_path, monkeypatch):
    model, seen = tmp_path / "crop.joblib", tmp_path / "seen"
    joblib.dump(make_detector(crop_size=32).fit(good), model)
    drawn = []
    sheet_of = _pictures.sheet_of
    monkeypatch.setattr(
        _pictures, "sheet_of", lambda *cells: drawn.append(cells) or sheet_of(*cells)
    )
    arguments = ["score", str(model), str(wide), "-o", str(tmp_path / "s"), "--threshold", "99"]
    sheet = ["--contact-sheet", str(tmp_path / "sheet.png")]
    assert main([*arguments, "--overlays", str(seen), *sheet]) == 0
    for path in wide.iterdir():
        change = np.abs(read(seen / f"{path.name}.jpg").astype(int) - read(path)).max(axis=2)
        assert (change[:24] > 20).mean() > 0.8  # above the crop
        assert (change[40:88, 80:176] > 20).mean() < 0.01
    ((_, _, titles),) = drawn
    assert titles == ["threshold 99.00, hatched: not inspected"]


def test_a_run_that_goes_on_draws_what_is_missing(model, wide, tmp_path, capsys):
    output, maps, seen = tmp_path / "s.csv", tmp_path / "maps", tmp_path / "seen"
    arguments = ["score", str(model), str(wide), "-o", str(output)]
    assert main(arguments) == 0
    whole = output.read_bytes()
    output.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))
    arguments += ["--resume", "--maps", str(maps), "--overlays", str(seen)]
    assert main(arguments) == 0
    assert output.read_bytes() == whole
    names = sorted(path.name for path in wide.iterdir())
    assert sorted(path.name for path in seen.iterdir()) == [f"{name}.jpg" for name in names]
    assert len(list(maps.iterdir())) == 2 * len(names)
    kept = seen / f"{names[0]}.jpg"
    kept.write_bytes(b"kept")  # what is there is not drawn again
    (seen / f"{names[1]}.jpg").unlink()
    assert main(arguments) == 0
    assert kept.read_bytes() == b"kept"
    assert (seen / f"{names[1]}.jpg").exists()


def test_a_threshold_is_for_one_run(model, folder, tmp_path, capsys):
    output, before = tmp_path / "s.csv", model.read_bytes()
    arguments = ["score", str(model), str(folder), "-o", str(output)]
    assert main([*arguments, "--threshold", "5"]) == 0
    table = pd.read_csv(output)
    np.testing.assert_array_equal(table["label"] < 0, table["score"] < -5)
    assert main([*arguments, "--contamination", "0.3"]) == 0
    expected = joblib.load(model).set_params(contamination=0.3).calibrate().offset_
    np.testing.assert_allclose(table["score"] - pd.read_csv(output)["decision"], expected)
    assert model.read_bytes() == before
    assert main([*arguments, "--threshold", "5", "--resume"]) == 1
    assert "of another model or threshold" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--threshold", "5", "--contamination", "0.3"])


def test_anomalous_images_can_be_an_exit_code(model, folder, tmp_path, capsys):
    arguments = ["score", str(model), str(folder), "-o", str(tmp_path / "s"), "--fail-on-anomaly"]
    assert main([*arguments, "--threshold", "5"]) == 4
    assert main([*arguments, "--threshold", "1000"]) == 0


def test_pictures_that_cannot_be_are_told_before_the_work(model, folder, good, tmp_path, capsys):
    arguments = ["score", str(model), str(folder), "-o", str(tmp_path / "s.csv")]
    assert main([*arguments, "--contact-sheet", str(folder / "sheet.png")]) == 1
    assert "the pictures would be taken for images" in capsys.readouterr().err
    assert main([*arguments, "--overlays", str(folder / "seen")]) == 1
    assert "--overlays" in capsys.readouterr().err
    joblib.dump(joblib.load(model).set_params(calibration=None).fit(good), model)
    for option in (["--overlays", str(tmp_path / "o")], ["--fail-on-anomaly"]):
        assert main([*arguments, *option]) == 1
        assert "has no threshold: give --threshold" in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


def test_large_images_are_warned_of_nowhere(model, folder, monkeypatch, capsys):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # 4096: Pillow warns, and names no file
    assert main(["score", str(model), str(folder / "part_000.png")]) == 0
    assert "warning" not in capsys.readouterr().err
