"""What holds for every data set, on made-up copies of its layout."""

import os
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import sklearn
from PIL import Image
from sklearn.model_selection import cross_validate

from skpadim import PadimDetector
from skpadim.datasets import (
    load_mvtec_ad,
    load_mvtec_ad_2,
    load_mvtec_loco,
    load_visa,
    read_masks,
)
from skpadim.datasets._layout import find_categories
from skpadim.datasets._public import DATASETS
from skpadim.metrics import aupro_scorer, evaluate

N_TRAIN = 6
# Good and defective test images, and validation images, of each made-up category.
COUNTS = {
    "mvtec_ad": (3, 4, 0),
    "btad": (3, 3, 0),
    "visa": (2, 3, 0),
    "mvtec_loco": (3, 4, 2),
    "mvtec_ad_2": (3, 3, 2),
}
every_data_set = pytest.mark.parametrize("name", list(DATASETS))


def small_detector():
    return PadimDetector(
        "filter_bank",
        image_size=64,
        crop_size=None,
        n_features=20,
        calibration=None,
        random_state=0,
    )


@every_data_set
def test_each_category_loads_with_its_splits_kinds_and_masks(make_data_set, name):
    root = make_data_set(name)
    dataset = DATASETS[name]
    assert find_categories(dataset, root) == list(dataset.categories)
    n_good, n_defective, n_validation = COUNTS[name]
    for category in dataset.categories:
        train = dataset.load(root, category, subset="train")
        test = dataset.load(root, category, subset="test")
        everything = dataset.load(root, category)
        assert (train.target == 1).all()
        assert set(train.kinds) == {"good"}
        assert len(train.data) == N_TRAIN
        assert test.target.tolist() == [1] * n_good + [-1] * n_defective
        assert (test.kinds == "good").tolist() == (test.target == 1).tolist()
        assert test.masks.isna().tolist() == (test.target == 1).tolist()
        assert len(everything.data) == N_TRAIN + n_validation + n_good + n_defective
        for images in (train, test, everything):
            assert images.data.map(os.path.isfile).all()
            assert {type(path) for path in images.data} == {str}
            assert images.data.index.tolist() == list(range(len(images.data)))
        assert everything.category == category


@every_data_set
def test_masks_are_true_where_the_image_shows_the_defect(make_data_set, name):
    root = make_data_set(name, categories=DATASETS[name].categories[:1])
    test = DATASETS[name].load(root, DATASETS[name].categories[0], subset="test")
    for path, mask in zip(test.data, read_masks(test.masks, test.data), strict=True):
        pixels = np.asarray(Image.open(path))[..., 0]
        np.testing.assert_array_equal(mask, pixels > 200)


@every_data_set
def test_a_detector_is_fitted_and_evaluated(make_data_set, name):
    category = DATASETS[name].categories[0]
    root = make_data_set(name, categories=[category])
    train = DATASETS[name].load(root, category, subset="train")
    test = DATASETS[name].load(root, category, subset="test")
    detector = small_detector().fit(train.data)
    for resolution in ("original", "model"):
        row = evaluate(detector, test.data, test.target, test.masks, resolution=resolution)
        assert row["image_roc_auc"] == 1
        assert row["pixel_roc_auc"] > 0.9
    arrays = read_masks(test.masks, test.data)
    assert evaluate(detector, test.data, test.target, arrays) == row


@pytest.mark.parametrize("name", ["visa", "mvtec_loco"])
def test_cross_validation_divides_masks_that_are_read_late(make_data_set, name):
    category = DATASETS[name].categories[0]
    images = DATASETS[name].load(make_data_set(name, categories=[category]), category)
    good, bad = np.flatnonzero(images.target == 1), np.flatnonzero(images.target == -1)
    folds = [(good[2:], [*good[:2], *bad]), (good[:-2], [*good[-2:], *bad])]
    with sklearn.config_context(enable_metadata_routing=True):
        scores = cross_validate(
            small_detector(),
            images.data,
            images.target,
            cv=folds,
            scoring=aupro_scorer.set_score_request(masks=True),
            params={"masks": images.masks},
            error_score="raise",
        )
    assert (scores["test_score"] > 0.5).all()


def test_both_layouts_of_visa_give_the_same(make_visa, make_visa_one_class, tmp_path):
    raw = load_visa(make_visa(categories=["candle"]), "candle")
    prepared = load_visa(make_visa_one_class(tmp_path / "1cls", ["candle"]), "candle")
    columns = ["split", "kind", "target"]
    pd.testing.assert_frame_equal(raw.frame[columns], prepared.frame[columns])
    names = [frame["path"].map(os.path.basename).tolist() for frame in (raw.frame, prepared.frame)]
    assert names[0] == names[1]
    assert raw.kinds.tolist()[-3:] == ["bad"] * 3
    for ours, theirs in zip(raw.masks[-3:], prepared.masks[-3:], strict=True):
        assert np.asarray(ours).sum() == np.asarray(theirs).sum() == 144


def test_the_masks_of_loco_are_united(make_mvtec_loco):
    test = load_mvtec_loco(make_mvtec_loco(categories=["pushpins"]), "pushpins", subset="test")
    masks = test.masks[test.kinds == "logical_anomalies"].tolist()
    assert [len(mask.paths) for mask in masks] == [1, 2]
    assert os.path.isdir(test.frame["mask"].iloc[-1])
    assert repr(masks[1]).count(".png") == 2
    again = pickle.loads(pickle.dumps(masks[1]))
    assert again == masks[1]
    assert len(pickle.dumps(masks[1])) < 2000
    assert np.asarray(masks[1]).dtype == bool
    assert np.asarray(masks[1], dtype=np.uint8).max() == 1


def test_the_private_test_sets_of_ad_2_have_no_labels(make_mvtec_ad_2):
    root = make_mvtec_ad_2(categories=["can"])
    for subset in ("test_private", "test_private_mixed"):
        images = DATASETS["mvtec_ad_2"].load(root, "can", subset=subset)
        assert images.target.tolist() == [0, 0, 0]
        assert set(images.kinds) == {"unknown"}
        assert images.masks.isna().all()
    everything = DATASETS["mvtec_ad_2"].load(root, "can")
    assert set(everything.frame["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("subset", ["train", "test", "all"])
def test_x_y_and_frames_hold_the_same(make_mvtec_ad, subset):
    root = make_mvtec_ad(categories=["bottle"])
    images = load_mvtec_ad(root, "bottle", subset=subset)
    X, y = load_mvtec_ad(root, "bottle", subset=subset, return_X_y=True)
    pd.testing.assert_series_equal(X, images.data)
    np.testing.assert_array_equal(y, images.target)
    framed = load_mvtec_ad(root, "bottle", subset=subset, as_frame=True)
    assert list(framed.data.columns) == ["path"]
    assert framed.data["path"].tolist() == images.data.tolist()
    assert isinstance(framed.target, pd.Series)
    assert framed.kinds.tolist() == images.kinds.tolist()
    X, y = load_mvtec_ad(root, "bottle", subset=subset, return_X_y=True, as_frame=True)
    pd.testing.assert_frame_equal(X, framed.data)
    pd.testing.assert_series_equal(y, framed.target)


def test_absent_masks_stay_none_when_rows_are_taken(make_mvtec_ad):
    images = load_mvtec_ad(make_mvtec_ad(categories=["bottle"]), "bottle")
    chosen = images.frame[images.frame["split"] == "test"].sample(frac=1, random_state=0)
    for row in chosen.itertuples():
        assert (row.mask is None) == (row.kind == "good")
        assert row.target == (1 if row.kind == "good" else -1)
    assert images.masks.sample(3, random_state=0).dtype == object


@every_data_set
def test_unaligned_images_and_masks_go_where_paths_go(make_data_set, name):
    category = DATASETS[name].categories[0]
    root = make_data_set(name, categories=[category])
    train, test, everything = (
        DATASETS[name].load(root, category, subset=subset, unaligned=True, random_state=1)
        for subset in ("train", "test", "all")
    )
    paths = DATASETS[name].load(root, category).data.tolist()
    assert [image.path for image in everything.data] == everything.frame["path"].tolist() == paths
    assert set(train.data) | set(test.data) <= set(everything.data)  # moved alike
    masks = read_masks(test.masks, test.data)
    assert {mask.shape for mask in masks} == {(224, 224)}
    n_good = COUNTS[name][0]
    assert not np.any(masks[:n_good])
    for image, mask in zip(test.data[n_good:], masks[n_good:], strict=True):
        shown = np.asarray(image)[..., 0] > 170
        assert (mask & shown).sum() >= 0.9 * (mask | shown).sum()  # but for blurred edges
    detector = small_detector().fit(train.data)
    row = evaluate(detector, test.data, test.target, test.masks)
    assert row["pixel_roc_auc"] > 0.9


def test_unaligned_images_in_frames_and_seeds_that_are_none(make_mvtec_ad):
    root = make_mvtec_ad(categories=["bottle"])
    X, _ = load_mvtec_ad(root, "bottle", return_X_y=True, as_frame=True, unaligned=True)
    assert list(X.columns) == ["image"]
    assert small_detector().fit(X[:6]).score_samples(X).shape == (len(X),)
    for seed in (-1, None, 0.5):
        with pytest.raises(ValueError, match="random_state=.* must be an int, 0 or more"):
            load_mvtec_ad(root, "bottle", random_state=seed)


def test_licence_and_citation_are_told(make_data_set):
    licences = {"btad": "CC BY-SA", "visa": "CC BY 4.0"}
    for name, dataset in DATASETS.items():
        category = dataset.categories[0]
        described = dataset.load(make_data_set(name, categories=[category]), category).DESCR
        assert licences.get(name, "CC BY-NC-SA 4.0") in described
        assert "Citation: " in described


def test_real_tiles(tiles):
    images = load_mvtec_ad(tiles.parent, "magnetic_tile")
    assert len(images.data) == 583
    assert len(load_mvtec_ad(tiles.parent, "magnetic_tile", subset="train").data) == 293
    masks = read_masks(images.masks, images.data)
    for kind, mask in zip(images.kinds, masks, strict=True):
        assert mask.any() == (kind != "good")
    assert find_categories(DATASETS["mvtec_ad"], tiles.parent) == ["magnetic_tile"]


def test_categories_are_found_by_layout_in_the_usual_order(make_mvtec_ad, make_visa):
    root = make_mvtec_ad(categories=["zipper", "my_part", "bottle", "wood", "a_part"])
    (root / "downloads").mkdir()
    found = find_categories(DATASETS["mvtec_ad"], root)
    assert found == ["wood", "bottle", "zipper", "a_part", "my_part"]
    root = make_visa(categories=["pcb1", "candle"])
    assert find_categories(DATASETS["visa"], root) == ["candle", "pcb1"]


def test_masks_of_loco_must_be_there(make_mvtec_loco):
    root = make_mvtec_loco(categories=["pushpins"])
    truth = root / "pushpins/ground_truth/logical_anomalies"
    for path in (truth / "000").glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="logical_anomalies/000 has no images"):
        load_mvtec_loco(root, "pushpins")
    shutil.rmtree(truth / "000")
    with pytest.raises(FileNotFoundError, match=r"000.png has no masks: there is no folder .*000"):
        load_mvtec_loco(root, "pushpins")


def test_private_images_that_are_not_there_are_told(make_mvtec_ad_2):
    root = make_mvtec_ad_2(categories=["can"])
    shutil.rmtree(root / "can/test_private")
    with pytest.raises(FileNotFoundError, match="can/test_private does not exist"):
        load_mvtec_ad_2(root, "can", subset="test_private")


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("object,split", "class,split", ValueError, "has no column object: its columns are class"),
        ("split,label,image,mask", "a,b,c,d", ValueError, "no column split, label, image, mask"),
        ("object,split", ",", ValueError, "has no column object, split"),
        ("0003.JPG", "9999.JPG", FileNotFoundError, "1 files that do not exist.*9999.JPG"),
        ("Masks/Anomaly", "Masks/Anom", FileNotFoundError, "3 files.*Masks/Anom/000.png"),
        (
            ",train,normal",
            ",train,fine",
            ValueError,
            "line [0-9]+: label is 'fine'; it must be 'no",
        ),
        (",train,normal", ",fit,normal", ValueError, "line 2: split is 'fit'; it must be 'train'"),
        (
            "candle/Data/Masks/Anomaly/001.png",
            "",
            ValueError,
            "001.JPG is an anomaly and has no ma",
        ),
        ("candle/Data/Images/Normal/0003.JPG,", "", ValueError, "line [0-9]+: image is empty"),
        ("candle,", "candles,", ValueError, "has no rows whose object is 'candle'"),
    ],
)
def test_split_files_of_visa_are_checked(make_visa, old, new, error, message):
    root = make_visa(categories=["candle"])
    path = root / "split_csv/1cls.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(error, match=message) as caught:
        load_visa(root, "candle")
    assert str(caught.value).startswith(str(path))


def test_a_missing_split_file_of_visa_is_told(make_visa):
    root = make_visa(categories=["candle"])
    os.remove(root / "split_csv/1cls.csv")
    with pytest.raises(FileNotFoundError, match="1cls.csv does not exist: it divides VisA"):
        load_visa(root, "candle")
