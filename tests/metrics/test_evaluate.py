import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.pipeline import make_pipeline

from skpadim import PatchEmbedder, PatchGaussian
from skpadim.datasets import load_mvtec_ad, read_masks
from skpadim.metrics import (
    PixelMetrics,
    aupro_score,
    aupro_scorer,
    evaluate,
    image_f1_max,
)
from skpadim.model_selection import NormalFold


def labels_of(masks):
    return np.where(masks.any(axis=(1, 2)), -1, 1)


class Maps:
    """A detector of somebody else's: its images are its maps."""

    def __init__(self, batch_size=2):
        self.batch_size = batch_size

    def iter_anomaly_maps(self, X):
        for start in range(0, len(X), self.batch_size):
            yield np.asarray(X[start : start + self.batch_size], dtype=np.float32)


def test_the_row_has_the_metrics_of_the_maps(fitted, parts):
    maps = fitted.anomaly_map(parts.data)
    row = evaluate(fitted, parts.data, parts.target, parts.masks, exact=True)
    expected = PixelMetrics().update(parts.masks, maps).compute()
    assert row == {**expected, "uninspected": 0, "vanished": 0}
    scores = -fitted.score_samples(parts.data)
    assert row["image_f1_max"] == image_f1_max(parts.target, scores)[0]
    assert row["image_f1_max_threshold"] == pytest.approx(image_f1_max(parts.target, scores)[1])
    for y in (parts.target.tolist(), parts.target.astype(float), pd.Series(parts.target)):
        assert evaluate(fitted, parts.data, y, parts.masks, exact=True) == row


def test_the_streamed_row_is_within_its_bounds(fitted, parts):
    row = evaluate(fitted, parts.data, parts.target, parts.masks)
    exact = evaluate(fitted, parts.data, parts.target, parts.masks, exact=True)
    for name, value in exact.items():
        if name != "pixel_f1_max_threshold":
            assert abs(row[name] - value) <= row.get(f"{name}_error", 0)
    assert row["pixel_roc_auc_error"] < 1e-4


def test_no_more_than_a_batch_of_maps_is_alive_at_a_time():
    alive = []

    class Counting(Maps):
        def iter_anomaly_maps(self, X):
            for batch in super().iter_anomaly_maps(X):
                alive.append(sum(reference() is not None for reference in references))
                references.append(weakref.ref(batch))
                yield batch
                del batch

    references = []
    maps = np.random.default_rng(0).normal(size=(40, 8, 8))
    masks = np.zeros((40, 8, 8), bool)
    masks[20:, :2, :2] = True
    evaluate(Counting(), maps, labels_of(masks), masks)
    assert max(alive) <= 2


def test_masks_can_be_arrays_paths_or_none(fitted, parts, tmp_path):
    row = evaluate(fitted, parts.data, parts.target, parts.masks)
    paths, mixed = [], []
    for index, (mask, target) in enumerate(zip(parts.masks, parts.target, strict=True)):
        path = tmp_path / f"{index}.png"
        Image.fromarray(mask.astype(np.uint8) * 255).save(path)
        paths.append(str(path))
        mixed.append(None if target == 1 else mask.astype(np.uint8) * 255)
    for masks in (paths, mixed, pd.Series(mixed), np.array(paths), torch.from_numpy(parts.masks)):
        for resolution in ("model", "original"):
            assert evaluate(
                fitted, parts.data, parts.target, masks, resolution=resolution
            ) == pytest.approx(row)


class Late:
    """A mask that becomes an array when it is asked for."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        if self.array is None:
            raise OSError("the disk is gone")
        return self.array.astype(dtype or bool)


def test_masks_can_be_anything_that_becomes_an_array(fitted, parts):
    row = evaluate(fitted, parts.data, parts.target, parts.masks)
    masks = [None if y == 1 else Late(m) for y, m in zip(parts.target, parts.masks, strict=True)]
    assert evaluate(fitted, parts.data, parts.target, masks) == row
    masks[-1] = Late(None)
    with pytest.raises(ValueError, match=r"masks\[32\] cannot be read: the disk is gone"):
        evaluate(fitted, parts.data, parts.target, masks)
    masks[-1] = float("nan")  # what pandas may make of None
    with pytest.raises(ValueError, match=r"image 32 is anomalous, and masks\[32\] is None"):
        evaluate(fitted, parts.data, parts.target, masks)


def test_a_mask_in_a_file_must_have_the_size_of_its_image(fitted, parts, folder, tmp_path):
    images = sorted(folder.iterdir())
    Image.fromarray(parts.masks[-1]).resize((64, 32)).save(tmp_path / "small.png")
    masks = [*parts.masks[:-1], tmp_path / "small.png"]
    message = r"masks\[32\] \(.*small.png\) is 32 x 64 pixels .* image .*part_032.png is 64 x 64"
    for X in (images, pd.Series(images), pd.DataFrame({"path": images}), np.array(images)):
        with pytest.raises(ValueError, match=message):
            evaluate(fitted, X, parts.target, masks)
    evaluate(fitted, parts.data, parts.target, masks)  # of images in memory no file is known
    masks[-1] = np.ones((32, 64), bool)  # somebody resized it, and knows why
    evaluate(fitted, images, parts.target, masks)


def test_the_sizes_of_images_are_known_however_their_paths_come(fitted, parts, folder, tmp_path):
    images = sorted(folder.iterdir())
    forms = (images, folder, str(folder), np.array(images)[:, None], pd.DataFrame({"x": images}))
    masks = [None if y == 1 else mask for y, mask in zip(parts.target, parts.masks, strict=True)]
    rows = [evaluate(fitted, X, parts.target, masks, resolution="original") for X in forms]
    assert all(row == rows[0] for row in rows)
    Image.fromarray(parts.masks[-1]).resize((64, 32)).save(tmp_path / "small.png")
    masks[-1] = tmp_path / "small.png"
    for X in forms:
        with pytest.raises(ValueError, match=r"small.png\) is 32 x 64 pixels"):
            evaluate(fitted, X, parts.target, masks)


def test_good_images_count_at_their_own_size_however_they_come(make_detector, good, tmp_path):
    detector = make_detector(n_features=20).fit(good)
    for index in range(4):
        Image.fromarray(good[index]).resize((128, 96)).save(tmp_path / f"{index}.png")
    masks = [None, None, np.eye(96, 128, dtype=bool), np.eye(96, 128, dtype=bool)]
    paths = sorted(tmp_path.iterdir())
    arrays = np.stack([np.asarray(Image.open(path)) for path in paths])
    pictures = [Image.fromarray(array) for array in arrays]
    rows = [
        evaluate(detector, X, [1, 1, -1, -1], given, resolution="original")
        for X in (tmp_path, str(tmp_path), paths, arrays, [*arrays], pictures)
        for given in (masks, [np.zeros((96, 128), bool)] * 2 + masks[2:])
    ]
    assert all(row == rows[0] for row in rows)


def test_defects_that_vanish_when_their_masks_are_resized_are_told():
    masks = np.zeros((4, 64, 64), bool)
    masks[2, 10:20, 10:20] = masks[3, 32, 32:35] = True  # not where the nearest neighbours are
    maps = np.random.default_rng(0).normal(size=(4, 8, 8))
    maps[2:] += 3
    y = [1, 1, -1, -1]
    with pytest.warns(UserWarning, match=r"defects of 1 image \(with the index 3\)") as told:
        row = evaluate(Maps(), maps, y, masks)
    assert told[0].filename == __file__
    assert row["vanished"] == 1
    assert row["image_average_precision"] == 1  # it is anomalous still
    with pytest.warns(UserWarning, match="no pixel of them is left"):
        assert aupro_scorer(Maps(), maps, y, masks=masks) == pytest.approx(
            row["aupro_0.3"], abs=1e-3
        )
    row = evaluate(Maps(), maps, y, masks, resolution="original")
    assert row["vanished"] == 0


def test_a_defect_outside_of_the_crop_does_not_vanish(make_detector, parts, good):
    detector = make_detector(crop_size=32).fit(good)
    masks = np.zeros_like(parts.masks)
    masks[-2, 20:30, 20:30] = True
    masks[-1, 2:6, 2:7] = True
    target = np.where(masks.any(axis=(1, 2)), -1, 1)
    row = evaluate(detector, parts.data, target, masks)
    assert row["vanished"] == 0
    assert row["uninspected"] == pytest.approx(20 / 120)


def test_at_the_original_resolution_only_what_was_inspected_counts(make_detector, parts, good):
    detector = make_detector(crop_size=32).fit(good)
    masks = np.zeros_like(parts.masks)
    masks[-2, 20:30, 20:30] = True  # inside of the crop
    masks[-1, 2:6, 2:7] = True  # outside
    target = np.where(masks.any(axis=(1, 2)), -1, 1)
    maps = detector.anomaly_map(parts.data)
    expected = aupro_score(masks[:, 16:48, 16:48], maps)
    for resolution in ("model", "original"):
        row = evaluate(detector, parts.data, target, masks, resolution=resolution, exact=True)
        assert row["aupro_0.3"] == pytest.approx(expected, abs=1e-6)
        assert row["uninspected"] == pytest.approx(20 / 120)


def test_other_detectors_maps_show_whole_images():
    rng = np.random.default_rng(0)
    masks = rng.random((9, 12, 15)) < 0.1
    masks[:3] = False
    maps = rng.normal(size=masks.shape)
    row = evaluate(Maps(), maps, labels_of(masks), masks, exact=True)
    assert row["aupro_0.3"] == aupro_score(masks, maps.astype(np.float32))
    large = masks.repeat(2, axis=1).repeat(2, axis=2)
    assert evaluate(Maps(), maps, labels_of(masks), large, exact=True) == row


@pytest.mark.parametrize(
    ("y", "masks", "message"),
    [
        ([1, -1, -1], [None, None, np.eye(4)], r"image 1 is anomalous, and masks\[1\] is None"),
        ([1, 1, -1], [None, np.eye(4), np.eye(4)], r"image 1 is good, and masks\[1\] has anomal"),
        ([1, -1], [None, np.eye(4)], "more images than the 2 masks"),
        ([1, -1, -1, 1], [None, np.eye(4), np.eye(4), None], "X has 3 images and masks has 4"),
        ([1, -1], [None] * 3, "3 masks and y has 2 labels"),
        ([1, -1, 7], [None] * 3, "y has the labels -1, 1, 7; use"),
        ([1, -1, -1], [None, "nowhere.png", None], r"masks\[1\] \(nowhere.png\) cannot be read"),
        ([1, -1, -1], [None, np.zeros((4, 4, 3)), None], r"masks\[1\] has shape \(4, 4, 3\)"),
        ([1, -1, -1], [None, np.full((4, 4), 3), None], r"masks\[1\] has 1 values up to 3"),
    ],
)
def test_bad_labels_and_masks_are_refused(y, masks, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Maps(), np.zeros((3, 4, 4)), y, masks)


def test_misuse_is_refused():
    with pytest.raises(TypeError, match="masks must be a sequence of arrays, paths or None"):
        evaluate(Maps(), np.zeros((1, 4, 4)), [1], "masks.png")
    with pytest.raises(ValueError, match="resolution='full' must be"):
        evaluate(Maps(), np.zeros((1, 4, 4)), [1], [None], resolution="full")


@pytest.mark.parametrize(
    ("y", "missing"),
    [([1, 1, 1], r"anomalous \(-1\) image"), ([-1, -1, -1], r"good \(\+1\) image")],
)
def test_an_image_of_each_kind_is_needed(y, missing):
    masks = [None if label == 1 else np.eye(4) for label in y]
    with pytest.raises(ValueError, match=f"y has only one kind of image.* {missing} is needed"):
        evaluate(Maps(), np.zeros((3, 4, 4)), y, masks)


@pytest.mark.parametrize("convert", [lambda y: y == -1, lambda y: (y == -1) * 1])
def test_flags_of_anomalous_images_mean_the_same_to_fit_and_metrics(
    fitted, make_detector, parts, convert
):
    y, maps = convert(parts.target), fitted.anomaly_map(parts.data)
    scores = maps.max(axis=(1, 2))
    row = evaluate(fitted, parts.data, parts.target, parts.masks)
    assert evaluate(fitted, parts.data, y, parts.masks) == row
    assert image_f1_max(y, scores) == image_f1_max(parts.target, scores)
    n_good = (parts.target == 1).sum()
    with pytest.warns(UserWarning, match="scorers take the greater label for good"):
        assert make_detector().fit(parts.data, y).n_samples_seen_ == n_good
    with pytest.warns(UserWarning, match=r"1 \(True\) for defective"):
        assert make_detector().partial_fit(parts.data, y).n_samples_seen_ == n_good
    embeddings = np.random.default_rng(0).normal(size=(len(y), 2, 2, 3))
    with pytest.warns(UserWarning, match=r"1 \(True\) for defective"):
        assert PatchGaussian().fit(embeddings, y).n_samples_seen_ == n_good
    with pytest.raises(ValueError, match=r"use \+1 for good .* scorers"):
        next(NormalFold(2).split(y, y))


def test_what_makes_no_maps_is_refused(parts):
    pipeline = make_pipeline(PatchEmbedder("filter_bank"), PatchGaussian())
    for call in (
        lambda: evaluate(pipeline, parts.data, parts.target, parts.masks),
        lambda: aupro_scorer(pipeline, parts.data, masks=parts.masks),
    ):
        with pytest.raises(TypeError, match="Pipeline has no iter_anomaly_maps.*PadimDetector"):
            call()


def test_real_photographs_at_both_resolutions(tiles, make_detector):
    good = sorted((tiles / "train" / "good").iterdir())[:12]
    bad = sorted((tiles / "test" / "blowhole").iterdir())[:4]
    masks = [None] * 4 + [tiles / "ground_truth" / "blowhole" / f"{p.stem}_mask.png" for p in bad]
    detector = make_detector(n_features=20, image_size=96, crop_size=80, calibration=None)
    detector.fit(good[4:])
    y = [1] * 4 + [-1] * 4
    rows = [
        evaluate(detector, good[:4] + bad, y, masks, resolution=resolution)
        for resolution in ("model", "original")
    ]
    for row in rows:
        assert row["pixel_roc_auc"] > 0.6
        assert 0 <= row["uninspected"] < 1
    assert rows[0]["pixel_roc_auc"] == pytest.approx(rows[1]["pixel_roc_auc"], abs=0.1)


def test_good_images_in_files_count_at_their_own_size(make_mvtec_ad, make_detector):
    root = make_mvtec_ad(categories=["bottle"])
    train, test = (load_mvtec_ad(root, "bottle", subset=name) for name in ("train", "test"))
    detector = make_detector(calibration=None).fit(train.data)
    without, zeros = (
        evaluate(detector, test.data, test.target, masks, resolution="original", exact=True)
        for masks in (test.masks, read_masks(test.masks, test.data))
    )
    assert without == zeros


def test_an_image_that_is_not_inspected_at_all_does_not_count(rng):
    masks = np.zeros((5, 8, 8), dtype=bool)
    masks[3:, 2:4, 2:4] = True
    maps = rng.random(masks.shape)
    row = evaluate(Maps(), maps[1:], labels_of(masks)[1:], masks[1:], exact=True)
    maps[0] = np.nan
    assert evaluate(Maps(), maps, labels_of(masks), masks, exact=True) == row
