"""Runs over made-up data sets: what is run, what is kept, and what is said of bad input."""

import os
import shutil
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone

from skpadim import ImageAligner, PadimDetector
from skpadim.__main__ import main
from skpadim.benchmark import _run, read_results, run_benchmark
from skpadim.datasets import load_mvtec_ad, save_defects
from skpadim.datasets._public import DATASETS
from skpadim.metrics import evaluate

SMALL = ["--backbone", "filter_bank", "--image-size", "64", "--crop-size", "none"]
FIGURES = ["image_roc_auc", "image_f1_max", "pixel_roc_auc", "aupro_0.3", "pixel_average_precision"]


@pytest.fixture
def detector():
    return PadimDetector("filter_bank", image_size=64, crop_size=None, layers=("layer1",))


@pytest.fixture
def root(make_mvtec_ad):
    return make_mvtec_ad(categories=["bottle", "cable", "carpet"])


@pytest.mark.parametrize("name", DATASETS)
def test_the_command_runs_all_categories_of_a_data_set(name, make_data_set, tmp_path, capsys):
    root, output = make_data_set(name, n_train=4), tmp_path / "results.csv"
    arguments = ["--root", str(root), *SMALL, "--layers", "layer1", "-o", str(output)]
    assert main(["benchmark", name, *arguments]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0] == "| category | image AUROC | image F1 | pixel AUROC | pixel AUPRO |"
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == [*DATASETS[name].categories, "Average"]
    assert "\r" not in captured.err  # no progress bar where there is no terminal
    results = read_results(output)
    assert results["category"].tolist() == list(DATASETS[name].categories)
    assert (results[FIGURES] > 0.4).all(axis=None)  # the squares are plain to see
    assert (results["n_train"] >= 4).all()
    assert (results["n_skipped"] == 0).all()
    assert set(results["dataset"]) == {name}
    assert {path.name for path in tmp_path.iterdir()} == {name, "results.csv"}


def test_a_row_is_what_fit_and_evaluate_give(root, detector):
    results = run_benchmark("mvtec_ad", root, detector=detector, seed=7, categories="cable")
    train, test = (load_mvtec_ad(root, "cable", subset=name) for name in ("train", "test"))
    fitted = detector.set_params(random_state=7, calibration=None).fit(train.data)
    expected = evaluate(fitted, test.data, test.target, test.masks)
    (row,) = results.to_dict("records")
    assert {name: row[name] for name in FIGURES} == {name: expected[name] for name in FIGURES}
    assert [row["n_train"], row["n_test_good"], row["n_test_defective"]] == [6, 3, 4]
    assert min(row["seconds_fit"], row["seconds_score"], row["seconds_metrics"]) > 0
    setting = {"backbone": "filter_bank", "layers": "layer1", "crop_size": "none", "seed": "7"}
    assert {name: row[name] for name in setting} == setting
    assert row["torch_version"].startswith("2")
    assert row["date"].startswith("20")


def test_rows_come_in_the_usual_order_with_own_folders_last(make_mvtec_ad, detector):
    root = make_mvtec_ad(categories=["my_part", "zipper", "bottle", "carpet"])
    results = run_benchmark("mvtec_ad", root, detector=detector)
    assert results["category"].tolist() == ["carpet", "bottle", "zipper", "my_part"]
    chosen = run_benchmark("mvtec_ad", root, detector=detector, categories=["zipper", "carpet"])
    assert chosen["category"].tolist() == ["carpet", "zipper"]


def test_a_given_detector_is_left_as_it_is(root, detector):
    before = detector.get_params()
    run_benchmark("mvtec_ad", root, detector=detector, categories="bottle")
    assert detector.get_params() == before
    assert not detector.__sklearn_is_fitted__()


def test_finished_categories_are_not_run_again(root, detector, tmp_path, monkeypatch):
    output = tmp_path / "results.csv"
    whole = run_benchmark("mvtec_ad", root, detector=detector)
    run_benchmark("mvtec_ad", root, detector=detector, output=output, categories=["cable"])
    fitted = []
    fit = PadimDetector.fit
    monkeypatch.setattr(PadimDetector, "fit", lambda self, X: fitted.append(X[0]) or fit(self, X))
    resumed = run_benchmark("mvtec_ad", root, detector=detector, output=output)
    assert ["cable" in path for path in fitted] == [False, False]
    columns = ["category", *FIGURES]
    pd.testing.assert_frame_equal(resumed[columns], whole[columns])
    pd.testing.assert_frame_equal(read_results(output)[columns], whole[columns])
    one = run_benchmark("mvtec_ad", root, detector=detector, output=output, categories="bottle")
    assert len(fitted) == 2
    assert one["category"].tolist() == ["bottle"]
    assert len(read_results(output)) == 3  # the others stay


def test_a_killed_run_leaves_whole_rows_and_goes_on(
    make_mvtec_ad, detector, tmp_path, start_process
):
    root, output = make_mvtec_ad(), tmp_path / "results.csv"
    arguments = ["benchmark", "mvtec_ad", "--root", str(root), *SMALL, "--layers", "layer1"]
    arguments += ["-o", str(output)]
    process = start_process("from skpadim.__main__ import main; main()", *arguments)
    deadline = time.monotonic() + 60
    while not output.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.join()
    before = read_results(output)
    assert 1 <= len(before) < 15
    assert main(arguments) == 0
    after = read_results(output)
    assert after["category"].tolist() == list(DATASETS["mvtec_ad"].categories)
    same = after[after["category"].isin(before["category"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, before)


def test_an_interrupted_write_leaves_the_file_as_it_was(root, detector, tmp_path, monkeypatch):
    output = tmp_path / "results.csv"
    run_benchmark("mvtec_ad", root, detector=detector, output=output, categories="bottle")
    before = output.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark("mvtec_ad", root, detector=detector, output=output)
    assert output.read_bytes() == before


def test_rows_that_another_process_adds_are_kept(root, detector, tmp_path, monkeypatch):
    output = tmp_path / "results.csv"
    options = {"detector": detector, "output": output}
    run_category, others = _run._run_category, ["cable"]

    def meanwhile(*arguments):
        if others:
            run_benchmark("mvtec_ad", root, categories=others.pop(), **options)
        return run_category(*arguments)

    monkeypatch.setattr(_run, "_run_category", meanwhile)
    run_benchmark("mvtec_ad", root, categories="bottle", **options)
    assert read_results(output)["category"].tolist() == ["bottle", "cable"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "its seed is '42' .category 'bottle'., and that of this run is '1'"),
        ({"image_size": 32}, "its image_size is '64' .*is '32'"),
        ({"layers": ("layer1", "layer2")}, "its layers is 'layer1' .*is 'layer1 layer2'"),
        ({"resolution": "original"}, "its resolution is 'model' .*is 'original'"),
    ],
)
def test_files_of_other_settings_are_refused(change, message, root, detector, tmp_path):
    output = tmp_path / "results.csv"
    options = {"output": output, "categories": "bottle", "detector": detector}
    run_benchmark("mvtec_ad", root, **options)
    before = output.read_bytes()
    of_run = {name: value for name, value in change.items() if name in ("seed", "resolution")}
    detector.set_params(**{name: change[name] for name in change.keys() - of_run.keys()})
    with pytest.raises(ValueError, match=message):
        run_benchmark("mvtec_ad", root, **options, **of_run)
    assert output.read_bytes() == before


def test_other_versions_are_refused_and_other_machines_are_not(root, detector, tmp_path):
    output = tmp_path / "results.csv"
    options = {"output": output, "categories": "bottle", "detector": detector}
    run_benchmark("mvtec_ad", root, **options)
    results = read_results(output)
    results.assign(gpu="another", date="2020-01-01").to_csv(output, index=False)
    detector.set_params(batch_size=3)
    assert run_benchmark("mvtec_ad", root, **options)["gpu"].tolist() == ["another"]
    results.assign(torch_version="2.4.0").to_csv(output, index=False)
    with pytest.raises(ValueError, match=r"its torch_version is '2\.4\.0'"):
        run_benchmark("mvtec_ad", root, **options)


def test_a_category_that_has_changed_is_told(root, detector, tmp_path):
    options = {"output": tmp_path / "r.csv", "categories": "bottle", "detector": detector}
    run_benchmark("mvtec_ad", root, **options)
    os.remove(root / "bottle/test/good/000.png")
    with pytest.raises(ValueError, match="has category 'bottle' with 13 images, and it has 12 now"):
        run_benchmark("mvtec_ad", root, **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "has no column 'aupro_0.3' .its columns are 'a', 'b'"),
        ("a\n1,2\n3,4,5\n", "cannot be read as a CSV file"),
    ],
)
def test_files_of_something_else_are_not_overwritten(content, message, root, detector, tmp_path):
    output = tmp_path / "notes.csv"
    output.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        run_benchmark("mvtec_ad", root, detector=detector, output=output)
    assert "notes.csv is no file of benchmark results" in str(error.value)
    assert output.read_text() == content
    with pytest.raises(FileNotFoundError, match="nowhere.csv is not a file"):
        read_results(tmp_path / "nowhere.csv")


def test_weights_in_a_file_are_known_by_their_content(root, tmp_path):
    import torch
    import torchvision

    output = tmp_path / "r.csv"
    paths = [tmp_path / name / "r18.pth" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), paths[0])
    shutil.copy(paths[0], paths[1])
    for path in paths:
        detector = PadimDetector("resnet18", weights=str(path), layers=("layer1",), image_size=64)
        detector.set_params(crop_size=None, n_features=10)
        results = run_benchmark(
            "mvtec_ad", root, detector=detector, output=output, categories="bottle"
        )
    assert results["weights"][0].startswith("r18.pth sha256:")
    with pytest.raises(ValueError, match="its weights is 'r18.pth sha256:.* this run is 'none'"):
        run_benchmark("mvtec_ad", root, detector=detector.set_params(weights=None), output=output)


def test_unreadable_images_stop_the_run_and_keep_its_rows(root, tmp_path, capsys):
    output = tmp_path / "results.csv"
    (root / "cable/test/good/001.png").write_bytes(b"")
    arguments = ["benchmark", "mvtec_ad", "--root", str(root), *SMALL, "-o", str(output)]
    assert main([*arguments, "--on-error", "stop"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("skpadim: error: category 'cable': 1 of 13 images cannot be used. ")
    assert f"{root / 'cable/test/good/001.png'} is empty (0 bytes): take it out or" in error
    assert "--on-error skip" in error
    assert error.count("\n") == 1
    assert read_results(output)["category"].tolist() == ["carpet", "bottle"]


def test_unreadable_images_are_left_out_and_counted(root, tmp_path, capsys):
    output = tmp_path / "results.csv"
    arguments = ["benchmark", "mvtec_ad", "--root", str(root), *SMALL, "-o", str(output)]
    for name in ("train/good/002.png", "test/broken/001.png", "ground_truth/dirt/000_mask.png"):
        (root / "cable" / name).write_bytes(b"no image")
    assert main(arguments) == 1
    assert main([*arguments, "--on-error", "skip"]) == 3  # goes on where the other one stopped
    captured = capsys.readouterr()
    assert "warning: category 'cable': 3 of 13 images are left out. " in captured.err
    assert "dirt/000.PNG has a mask that cannot be used: masks" in captured.err
    assert captured.out.splitlines()[0].endswith("| images left out |")
    results = read_results(output).set_index("category")
    counts = ["n_train", "n_test_good", "n_test_defective", "n_skipped"]
    assert results.loc["cable", counts].tolist() == [5, 3, 2, 3]
    assert results["n_skipped"].tolist() == [0, 0, 3]
    # What is left gives what it gives without them.
    for name in ("train/good/002.png", "test/broken/001.png", "test/dirt/000.PNG"):
        os.remove(root / "cable" / name)
    assert main([*arguments[:-1], str(tmp_path / "b.csv"), "--category", "cable"]) == 0
    clean = read_results(tmp_path / "b.csv").set_index("category")
    assert clean.loc["cable", FIGURES].tolist() == results.loc["cable", FIGURES].tolist()


@pytest.mark.parametrize("kind", ["black", "classes", "huge"])
def test_masks_that_cannot_be_used_are_left_out_and_counted(root, capsys, monkeypatch, kind):
    path = root / "cable/ground_truth/dirt/000_mask.png"
    pixels = np.asarray(Image.open(path)).copy()
    expected = {
        "black": "has no anomalous pixel: it is 0 (black) everywhere",
        "classes": "has 3 values up to 2 (0, 1, 2)",
        "huge": "has more pixels than are taken to be safe",
    }
    if kind == "huge":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
        Image.new("1", (200, 150)).save(path)
    else:
        pixels = (pixels > 0) * np.uint8(kind == "classes")
        pixels[:8, :8] = 2 * (kind == "classes")
        Image.fromarray(pixels).save(path)
    arguments = ["benchmark", "mvtec_ad", "--root", str(root), *SMALL, "--category", "cable"]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"000_mask.png) {expected[kind]}" in error
    assert main([*arguments, "--on-error", "skip"]) == 3
    assert "1 of 13 images are left out" in capsys.readouterr().err


@pytest.mark.parametrize("value", [1, 255])
def test_masks_of_any_two_values_give_the_same(root, detector, value):
    expected = run_benchmark("mvtec_ad", root, detector=detector, categories="cable")
    path = root / "cable/ground_truth/dirt/000_mask.png"
    pixels = np.asarray(Image.open(path)) > 0
    turn = Image.Exif()
    turn[0x0112] = 6
    Image.fromarray(np.rot90(pixels).astype(np.uint8) * np.uint8(value)).save(path, exif=turn)
    found = run_benchmark("mvtec_ad", root, detector=detector, categories="cable")
    assert found[FIGURES].equals(expected[FIGURES])


def test_too_few_images_after_leaving_out_is_an_error(root, detector):
    for index in range(3):
        (root / f"cable/test/good/{index:03}.png").write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="3 of 13 images are left out"),
        pytest.raises(ValueError, match="'cable' has 0 good test images; at least 1 is needed"),
    ):
        run_benchmark("mvtec_ad", root, detector=detector, on_error="skip")


@pytest.fixture
def no_work(monkeypatch):
    def fail(*_):
        raise AssertionError("work was started")

    monkeypatch.setattr(PadimDetector, "fit", fail)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mvtecad", "--root", "{root}"], "'mvtecad' is unknown; did you mean 'mvtec_ad'?"),
        (["cifar", "--root", "{root}"], "'cifar' is unknown. The data sets are 'mvtec_ad', "),
        (["mvtec_ad", "--root", "{root}", "--category", "bottle", "cabel"], "mean 'cable'?"),
        (["mvtec_ad", "--root", "{root}/bottle"], "is a category of MVTec AD itself"),
        (["mvtec_ad", "--root", "{root}/no"], "no does not exist"),
        (["btad", "--root", "{root}"], "looked for <category>/train/ok"),
        (["mvtec_ad", "--root", "{root}", "-o", "{root}/no/r.csv"], "the folder of r.csv, does"),
        (["mvtec_ad", "--root", "{root}", "-o", "{root}"], "is a folder; give the name of"),
        (["mvtec_ad", "--root", "{root}", "--resolution", "4k"], "resolution='4k' must be"),
        (["mvtec_ad", "--root", "{root}", "--backbone", "resnet19"], "did you mean 'resnet18'"),
        (["mvtec_ad", "--root", "{root}", *SMALL, "--layers", "layer9"], "'layer9'"),
    ],
)
def test_a_wrong_command_is_told_before_any_work(arguments, message, root, capsys):
    assert main(["benchmark", *(argument.format(root=root) for argument in arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("skpadim: error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("no_work")
def test_bad_data_are_told_before_any_work(root, detector):
    mask = root / "cable/ground_truth/broken/001_mask.png"
    Image.new("L", (10, 7), 255).save(mask)
    with pytest.raises(ValueError, match=r"001_mask.png\) is 7 x 10 pixels .*broken/001.png is 48"):
        run_benchmark("mvtec_ad", root, detector=detector)
    os.remove(mask)
    with pytest.raises(FileNotFoundError, match=r"broken/001.png has no mask: looked in"):
        run_benchmark("mvtec_ad", root, detector=detector)
    for path in (root / "bottle/train/good").glob("*"):
        path.unlink()
    with pytest.raises(ValueError, match="bottle/train/good has no images: looked for files"):
        run_benchmark("mvtec_ad", root, detector=detector)
    with pytest.raises(ValueError, match="categories is empty"):
        run_benchmark("mvtec_ad", root, detector=detector, categories=[])
    with pytest.raises(TypeError, match="detector must be a PadimDetector, not a str"):
        run_benchmark("mvtec_ad", root, detector="resnet18", categories="carpet")


@pytest.mark.usefixtures("no_work")
def test_folders_without_permission_are_named(root, detector, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match="r.csv cannot be written: this user has no"):
        run_benchmark("mvtec_ad", root, detector=detector, output=tmp_path / "r.csv")

    def refuse(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="mvtec_ad cannot be read: this user has no perm"):
        run_benchmark("mvtec_ad", root, detector=detector)


def test_a_network_without_a_name_needs_no_file(root, detector, tmp_path):
    from skpadim.backbones import load_backbone

    detector.set_params(backbone=load_backbone("filter_bank"))
    with pytest.raises(TypeError, match="has no name that a file of results could be known by"):
        run_benchmark("mvtec_ad", root, detector=detector, output=tmp_path / "r.csv")
    results = run_benchmark("mvtec_ad", root, detector=detector, categories="bottle")
    assert results["backbone"].tolist() == ["filter_bank"]


def test_progress_is_shown_on_terminals(root, detector, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run_benchmark("mvtec_ad", root, detector=detector, verbose=1)
    shown = capsys.readouterr().err
    assert "cable (3 of 3): 100%" in shown
    assert "39/39" in shown
    assert "<" in shown  # the time left
    run_benchmark("mvtec_ad", root, detector=detector)
    assert capsys.readouterr().err == ""


def test_real_photographs(tiles, detector):
    results = run_benchmark("mvtec_ad", tiles.parent, detector=detector, categories="magnetic_tile")
    assert np.isfinite(results[FIGURES].to_numpy(float)).all()
    assert results["image_roc_auc"][0] > 0.7
    assert results[["n_train", "n_test_good", "n_test_defective"]].sum(axis=1).tolist() == [583]


def test_several_detectors_and_seeds_are_rows_of_one_table(root, tmp_path, monkeypatch):
    detectors = [
        PadimDetector("filter_bank", image_size=64, crop_size=None, n_features=n) for n in (8, 12)
    ]
    options = {"detector": detectors, "seed": [1, 2], "categories": ["cable", "bottle"]}
    output = tmp_path / "r.csv"
    results = run_benchmark("mvtec_ad", root, output=output, **options)
    expected = [(c, n, s) for c in ("bottle", "cable") for n in ("8", "12") for s in ("1", "2")]
    names = ["category", "n_features", "seed"]
    assert list(results[names].itertuples(index=False, name=None)) == expected
    one = run_benchmark("mvtec_ad", root, detector=detectors[1], seed=2, categories="cable")
    assert one[FIGURES].loc[0].tolist() == results[FIGURES].loc[7].tolist()
    # Half of the rows are kept, and all come in the order as before.
    read_results(output)[::2].to_csv(output, index=False)
    fitted, fit = [], PadimDetector.fit
    monkeypatch.setattr(PadimDetector, "fit", lambda self, X: fitted.append(X) or fit(self, X))
    again = run_benchmark("mvtec_ad", root, output=output, **options)
    assert len(fitted) == 4
    pd.testing.assert_frame_equal(again[[*names, *FIGURES]], results[[*names, *FIGURES]])
    pd.testing.assert_frame_equal(read_results(output)[FIGURES], results[FIGURES])
    with pytest.raises(ValueError, match="its seed is '1' .*, and that of this run is '2'"):
        run_benchmark("mvtec_ad", root, output=output, **{**options, "seed": 2})


def test_detectors_that_are_alike_are_refused(root, detector):
    with pytest.raises(ValueError, match="two detectors have the same settings"):
        run_benchmark("mvtec_ad", root, detector=[detector, detector])
    with pytest.raises(ValueError, match="seed is an empty list"):
        run_benchmark("mvtec_ad", root, detector=detector, seed=[])


def test_the_command_compares_and_prints_three_formats(root, capsys, tmp_path):
    arguments = ["benchmark", "mvtec_ad", "--root", str(root), *SMALL, "--layers", "layer1"]
    arguments += ["--category", "bottle", "--sharing", "position", "image", "--seed", "1", "2"]
    arguments += ["-o", str(tmp_path / "r.csv")]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert table.startswith("| category | sharing=position: image AUROC |")
    assert " ± 0.000 |" in table  # of the bank all features are used, whatever the seed
    assert main([*arguments, "--format", "latex"]) == 0
    assert r"$\pm$" in capsys.readouterr().out
    assert main([*arguments, "--format", "csv"]) == 0
    assert capsys.readouterr().out == (tmp_path / "r.csv").read_text()


def test_an_unaligned_row_is_what_the_loaders_images_give(root, detector):
    detector.set_params(image_size=256, crop_size=224)
    options = {"detector": detector, "categories": "cable"}
    (row,) = run_benchmark("mvtec_ad", root, unaligned=True, seed=3, **options).to_dict("records")
    train, test = (
        load_mvtec_ad(root, "cable", subset=name, unaligned=True, random_state=3)
        for name in ("train", "test")
    )
    fitted = clone(detector).set_params(image_size=224, crop_size=None, random_state=3)
    fitted.set_params(calibration=None).fit(train.data)
    expected = evaluate(fitted, test.data, test.target, test.masks)
    assert {name: row[name] for name in FIGURES} == {name: expected[name] for name in FIGURES}
    setting = {"image_size": "256", "crop_size": "224", "align": "none", "unaligned": "yes"}
    assert {name: row[name] for name in setting} == setting
    assert detector.image_size == 256


def test_unaligned_parts_are_found_again_with_align(tmp_path, capsys):
    root, output = tmp_path / "data", tmp_path / "r.csv"
    save_defects(
        root,
        part="transistor",
        n_train=20,
        n_good=8,
        n_defective=8,
        difficulty=0,
        image_size=64,
        random_state=0,
    )
    arguments = ["benchmark", "mvtec_ad", "--root", str(root), *SMALL[:4], "-o", str(output)]
    arguments += ["--unaligned", "--align", "none", "rigid"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "| align=none: image AUROC |" in table
    assert table.endswith("\n\nunaligned=yes: images turned by up to 10° and cropped at random.\n")
    results = read_results(output)
    assert results["align"].tolist() == ["none", "rigid"]
    assert results["image_roc_auc"][1] > results["image_roc_auc"][0] + 0.1
    with pytest.raises(ValueError, match="its unaligned is 'yes' .*, and that of this run is 'no'"):
        run_benchmark(
            "mvtec_ad",
            root,
            detector=PadimDetector("filter_bank", image_size=64, crop_size=56),
            output=output,
        )


def test_an_aligner_is_told_by_its_parameters(tmp_path):
    root = save_defects(tmp_path, n_train=6, n_good=3, n_defective=3, image_size=64).parent
    detector = PadimDetector("filter_bank", image_size=64, align=ImageAligner("translation"))
    (text,) = run_benchmark("mvtec_ad", root, detector=detector)["align"]
    assert text == "ImageAligner(motion='translation')"


@pytest.mark.usefixtures("no_work")
def test_unaligned_images_need_a_crop_and_no_region(root, detector):
    with pytest.raises(ValueError, match="the detector's crop_size, and it has none: give one"):
        run_benchmark("mvtec_ad", root, detector=detector, unaligned=True)
    detector.set_params(roi=np.ones((64, 64), bool))
    with pytest.raises(ValueError, match="roi: a file of results tells of none"):
        run_benchmark("mvtec_ad", root, detector=detector)


def test_unreadable_images_are_left_out_of_unaligned_ones_too(root, detector):
    (root / "cable/train/good/002.png").write_bytes(b"")
    (root / "cable/ground_truth/dirt/000_mask.png").write_bytes(b"no image")
    options = {"detector": detector.set_params(crop_size=56), "categories": "cable"}
    with pytest.raises(ValueError, match=r"2 of 13 images .*002.png is empty \(0 bytes\)"):
        run_benchmark("mvtec_ad", root, unaligned=True, **options)
    with pytest.warns(UserWarning, match="2 of 13 images are left out"):
        results = run_benchmark("mvtec_ad", root, unaligned=True, on_error="skip", **options)
    assert results[["n_train", "n_test_defective", "n_skipped"]].loc[0].tolist() == [5, 3, 2]
