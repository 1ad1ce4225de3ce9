"""A mask means the same however it comes, and says so where it can't be told what it means."""

import os
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from skpadim.datasets import load_mvtec_loco, load_visa, read_masks
from skpadim.datasets._public import DATASETS
from skpadim.images._masks import MaskFiles, image_size, read_mask
from skpadim.metrics import aupro_scorer, evaluate

MASK = np.zeros((24, 40), bool)
MASK[0:8, 0:16] = MASK[16:24, 8:16] = True
ONES = MASK.astype(np.uint8)
TURNED = {
    1: MASK,
    2: MASK[:, ::-1],
    3: MASK[::-1, ::-1],
    4: MASK[::-1],
    5: MASK.T,
    6: np.rot90(MASK, -1),
    7: np.rot90(MASK, 2).T,
    8: np.rot90(MASK),
}


class Maps:
    """A detector whose maps are given."""

    def __init__(self, maps):
        self.maps = np.asarray(maps, np.float32)

    def iter_anomaly_maps(self, X):
        yield from self.maps[:, None]


def colours(normal, anomalous):
    return Image.fromarray(np.where(MASK[..., None], anomalous, normal).astype(np.uint8))


def palette(normal, anomalous, indices=ONES):
    image = Image.frombytes("P", MASK.shape[::-1], indices.tobytes())
    image.putpalette([*normal, *anomalous])
    return image


def grey(value, dtype=np.uint8):
    return Image.fromarray(MASK.astype(dtype) * dtype(value))


PICTURES = {
    "black_and_white.png": grey(255),
    "ones.png": grey(1),
    "ones.tif": grey(1),
    "grey.png": grey(100),
    "one_bit.png": Image.fromarray(MASK),
    "one_bit.pbm": Image.fromarray(MASK),
    "white_16_bit.png": grey(65535, np.uint16),
    "ones_16_bit.png": grey(1, np.uint16),
    "white_16_bit.tif": grey(65535, np.uint16),
    "255_16_bit.tif": grey(255, np.uint16),
    "floats.tif": grey(1, np.float32),
    "red.png": colours((0, 0, 0), (255, 0, 0)),
    "dark_blue.png": colours((0, 0, 0), (0, 0, 90)),
    "red.gif": colours((0, 0, 0), (255, 0, 0)),
    "palette.png": palette((0, 0, 0), (128, 0, 0)),
    "palette_of_ones.png": palette((0, 0, 0), (1, 1, 1)),
    "palette_white_first.png": palette((255, 255, 255), (0, 0, 0), 1 - ONES),
    "opaque.png": colours((0, 0, 0, 255), (255, 255, 255, 255)),
    "cut_out_black.png": colours((0, 0, 0, 0), (0, 0, 0, 255)),
    "cut_out_white.png": colours((255, 255, 255, 0), (255, 255, 255, 255)),
    "cut_out_red.png": colours((255, 255, 255, 0), (255, 0, 0, 255)),
    "alpha_of_nothing.png": colours((0, 0, 0, 0), (255, 255, 255, 0)),
    "grey_alpha.png": Image.merge("LA", [grey(255), Image.new("L", (40, 24), 255)]),
    "video_levels.png": Image.fromarray(np.where(MASK, 235, 16).astype(np.uint8)),
    "noise.jpg": grey(255),
    "noise.webp": grey(255),
    "noise_in_colour.jpg": grey(255).convert("RGB"),
    "soft.png": grey(255).resize((80, 48)).resize((40, 24), Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize("name", PICTURES)
def test_black_is_normal_and_all_else_anomalous(name, tmp_path):
    picture, path = PICTURES[name], tmp_path / name
    picture.save(path)
    for mask in (path, str(path), picture):
        found = read_mask(mask, 0)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, MASK)


ARRAYS = [
    MASK,
    ONES * np.uint8(255),
    MASK.astype(">i4"),
    MASK.astype(np.uint16) * np.uint16(65535),
    MASK.astype(np.float16),
    MASK.tolist(),
    torch.from_numpy(MASK),
    torch.from_numpy(MASK).to(torch.bfloat16),
    np.ma.array(MASK),
    MASK.astype(object),
]


@pytest.mark.parametrize("mask", ARRAYS, ids=lambda mask: str(getattr(mask, "dtype", "list")))
def test_arrays_of_all_kinds_mean_what_files_do(mask):
    np.testing.assert_array_equal(read_mask(mask, 0), MASK)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options", "white"),
    [
        ("png", {}, np.uint8(255)),
        ("png", {}, np.uint16(65535)),
        ("jpg", {"quality": 95}, np.uint8(255)),
        ("webp", {"lossless": True}, np.uint8(255)),
        ("tif", {}, np.uint8(255)),
        ("tif", {}, np.uint16(65535)),
        ("tif", {"compression": "tiff_deflate"}, np.uint8(255)),
        ("tif", {"compression": "tiff_deflate"}, np.uint16(65535)),
    ],
)
def test_masks_are_turned_upright_as_images_are(tmp_path, orientation, suffix, options, white):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f"mask.{suffix}")
    Image.fromarray(MASK * white).save(path, exif=exif, **options)
    expected = TURNED[orientation]
    np.testing.assert_array_equal(read_mask(path, 0), expected)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(read_mask(opened, 0), expected)
    np.testing.assert_array_equal(np.asarray(MaskFiles((path,), threshold=127)), expected)
    np.testing.assert_array_equal(read_masks([path], [path])[0], expected)
    assert image_size(path) == expected.shape


def stripes(*values):
    return Image.fromarray(np.repeat(np.array(values, np.uint8), 8)[:, None].repeat(40, axis=1))


@pytest.mark.parametrize(
    ("picture", "name", "message"),
    [
        (stripes(0, 1, 2), "classes.png", r"has 3 values up to 2 \(0, 1, 2\), and it cannot be"),
        (stripes(0, 1, 255), "ignored.png", r"3 values up to 255 \(0, 1, 255\)"),
        (stripes(0, 128, 255), "three.png", r"3 values up to 255 \(0, 128, 255\)"),
        (stripes(0, 50, 100, 150, 200), "five.png", r"5 values up to 200 \(0, 50, 100, 150, 200\)"),
        (stripes(1, 2), "one_and_two.png", r"2 values up to 2 \(1, 2\)"),
        (stripes(200, 255), "bright.png", r"2 values up to 255 \(200, 255\)"),
        (grey(1), "ones.jpg", "values up to 1 .*mask_threshold"),
        (grey(100), "dim.jpg", r"values up to 1\d\d \(0, "),
        (grey(np.nan, np.float32), "nan.tif", "values up to nan"),
        (grey(-1, np.float32), "negative.tif", r"2 values up to 0 \(-1, 0\)"),
        (colours((255, 255, 255), (255, 0, 0)), "red_on_white.png", "2 colours .*none is black"),
        (palette((255, 255, 255), (255, 0, 0)), "palette.png", "2 colours .*none is black"),
        (
            Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 40), dtype=np.uint8)),
            "photo.png",
            "values up to 255",
        ),
    ],
)
def test_a_mask_of_other_values_is_refused_by_name(picture, name, message, tmp_path):
    picture.save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"masks\[7\] \(.*{re.escape(name)}\) .*{message}"):
        read_mask(tmp_path / name, 7)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (MASK * 128, r"2 values up to 128 \(0, 128\).*mask > 127"),
        (np.where(MASK, np.nan, 0), "values up to nan"),
        (MASK * -1, r"\(-1, 0\)"),
        (np.ma.array(MASK, mask=MASK), "is a masked array, and 192 of its 960 values"),
        (torch.from_numpy(MASK * 1.0).to_sparse(), "is a sparse tensor"),
        (MASK[None], r"shape \(1, 24, 40\)"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (MASK.astype(str), "dtype <U5"),
        (3, r"shape \(\)"),
    ],
)
def test_an_array_of_other_values_is_refused(mask, message):
    with pytest.raises((TypeError, ValueError), match=rf"masks\[7\] .*{message}"):
        read_mask(mask, 7)


def test_files_that_are_no_masks_are_refused_by_name(tmp_path, monkeypatch):
    grey(255).save(tmp_path / "film.gif", save_all=True, append_images=[grey(100)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    Image.new("1", (200, 150)).save(tmp_path / "huge.png")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for name, message in (
        ("film.gif", "has 2 frames"),
        ("huge.png", "has more pixels than are taken to be safe"),
        ("empty.png", "cannot be read: it is empty"),
        ("pipe.png", "cannot be read: it is a pipe"),
        ("no.png", "cannot be read: it does not exist"),
    ):
        with pytest.raises(ValueError, match=rf"masks\[0\] \(.*{name}\) {message}"):
            read_mask(tmp_path / name, 0)
        with pytest.raises(ValueError, match=rf"masks\[0\] cannot be read: .*{name} "):
            read_mask(MaskFiles((str(tmp_path / name),)), 0)


@pytest.fixture
def one_of_many(tmp_path):
    """Ways to give the mask of one anomalous image; those of others are arrays."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 24, 40))
    maps[3:] += 2 * MASK

    def ways(mask):
        path = str(tmp_path / f"{mask.max()}.png")
        Image.fromarray(mask).save(path)
        return [mask, torch.from_numpy(mask), path, Image.open(path), MaskFiles((path,))]

    return Maps(maps), [1, 1, 1, -1, -1, -1], ways


@pytest.mark.parametrize("value", [1, 255])
def test_the_metrics_are_the_same_however_a_mask_comes(one_of_many, value):
    detector, y, ways = one_of_many
    masks = [None] * 3 + [MASK] * 3
    row = evaluate(detector, [0] * 6, y, masks, exact=True)
    score = aupro_scorer(detector, [0] * 6, y, masks=masks)
    assert score == row["aupro_0.3"]
    for mask in ways(ONES * np.uint8(value)):
        masks[4] = mask
        assert evaluate(detector, [0] * 6, y, masks, exact=True) == row
        assert aupro_scorer(detector, [0] * 6, y, masks=masks) == score
        np.testing.assert_array_equal(read_masks(masks)[4], MASK)


def test_an_anomalous_image_without_an_anomalous_pixel_is_named(one_of_many):
    detector, y, ways = one_of_many
    masks = [None] * 3 + [MASK] * 3
    for mask in ways(ONES * 0):
        masks[4] = mask
        message = r"image 4 is anomalous, and masks\[4\].* has no anomalous pixel: it is 0"
        for call in (evaluate, lambda *args: aupro_scorer(*args[:3], masks=args[3])):
            with pytest.raises(ValueError, match=message):
                call(detector, [0] * 6, y, masks)
        if isinstance(mask, (str, MaskFiles)):
            with pytest.raises(ValueError, match=r"masks\[4\] \(.*0.png.*give None for its mask"):
                read_masks(masks)
    masks[4] = MASK
    masks[1] = MASK
    for call in (evaluate, lambda *args: aupro_scorer(*args[:3], masks=args[3])):
        with pytest.raises(ValueError, match=r"image 1 is good, and masks\[1\] has anomalous"):
            call(detector, [0] * 6, y, masks)


def test_a_mask_of_classes_says_that_its_threshold_is_too_high(tmp_path, one_of_many):
    detector, y, _ = one_of_many
    path = str(tmp_path / "classes.png")
    grey(2).save(path)
    masks = [None] * 3 + [MASK, MASK, MaskFiles((path,), threshold=2)]
    with pytest.raises(ValueError, match="nothing in it is above 2, its threshold"):
        evaluate(detector, [0] * 6, y, masks)


def test_masks_come_in_the_forms_that_images_come_in(tmp_path, one_of_many):
    pandas = pytest.importorskip("pandas")
    detector, y, _ = one_of_many
    grey(255).save(tmp_path / "mask.png")
    masks = [None] * 3 + [str(tmp_path / "mask.png")] * 3
    row = evaluate(detector, [0] * 6, y, masks)
    column = np.array(masks, dtype=object)[:, None]
    series = pandas.Series(masks)
    forms = (pandas.DataFrame({"mask": masks}), series, series.astype("string"), column)
    for same in (*forms, tuple(masks)):
        assert evaluate(detector, [0] * 6, y, same) == row
    for missing in (float("nan"), np.float32("nan"), pandas.NA, pandas.NaT):
        assert evaluate(detector, [0] * 6, y, [missing] * 3 + masks[3:]) == row


def test_all_good_images_may_have_black_masks(tmp_path, one_of_many):
    detector, y, _ = one_of_many
    grey(0).save(tmp_path / "black.png")
    row = evaluate(detector, [0] * 6, y, [None] * 3 + [MASK] * 3)
    masks = [tmp_path / "black.png", np.zeros_like(MASK), None] + [MASK] * 3
    assert evaluate(detector, [0] * 6, y, masks) == row


def test_blurred_edges_are_divided_in_the_middle(tmp_path):
    soft = grey(255).filter(ImageFilter.GaussianBlur(1))
    soft.save(tmp_path / "soft.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "soft.png", 0), np.asarray(soft) > 127)


class Blank:
    """A detector of somebody else's whose maps are zeros."""

    def iter_anomaly_maps(self, X):
        for _ in range(len(X)):
            yield np.zeros((1, 8, 8), np.float32)


@pytest.mark.parametrize("name", ["mvtec_ad", "visa", "mvtec_loco"])
def test_masks_of_another_size_are_named_with_their_images(make_data_set, name):
    category = DATASETS[name].categories[0]
    test = DATASETS[name].load(make_data_set(name, categories=[category]), category, subset="test")
    index = int(np.flatnonzero(test.target == -1)[0])
    path = getattr(test.masks[index], "paths", [test.masks[index]])[0]
    Image.new("L", (10, 7), 255).save(path)
    message = (
        f"masks[{index}] ({test.masks[index]}) is 7 x 10 pixels (height x width) and its image "
        f"{test.data[index]} is 48 x 64"
    )
    X = {"list": list(test.data), "series": test.data, "frame": test.frame[["path"]]}
    for images in X.values():
        with pytest.raises(ValueError, match=re.escape(message)):
            evaluate(Blank(), images, test.target, test.masks)
        with pytest.raises(ValueError, match=re.escape(message)):
            read_masks(test.masks, images)


def test_the_masks_of_an_image_must_have_one_size(make_mvtec_loco):
    root = make_mvtec_loco(categories=["pushpins"])
    test = load_mvtec_loco(root, "pushpins", subset="test")
    mask = next(mask for mask in test.masks if mask is not None and len(mask.paths) == 2)
    Image.new("L", (10, 7), 255).save(mask.paths[1])
    with pytest.raises(ValueError, match=r"001.png is 7 x 10 pixels and .*000.png is 48 x 64"):
        np.asarray(mask)
    with pytest.raises(ValueError, match=r"masks\[\d+\] cannot be read: .*the masks of one image"):
        read_masks(test.masks)


def test_broken_masks_are_named(make_visa):
    test = load_visa(make_visa(categories=["candle"]), "candle", subset="test")
    with open(test.masks.iloc[-1].paths[0], "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"masks\[4\] cannot be read: .*002.png cannot be read"):
        read_masks(test.masks)


def test_read_masks_wants_one_image_a_mask(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    assert read_masks([None]) == [None]
    assert read_masks([None], [path])[0].shape == (4, 5)
    with pytest.raises(ValueError, match="images has 1 paths and masks has 2 masks"):
        read_masks([None, None], [path])
    with pytest.raises(TypeError, match=r"images\[0\] must be a path, not ndarray"):
        read_masks([None], np.zeros((1, 4, 5)))
    with pytest.raises(ValueError, match=r"images\[0\] \(nowhere.png\) cannot be read as an image"):
        read_masks([None], ["nowhere.png"])


def test_the_orientation_of_photographs_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("L", (6, 4)).save(tmp_path / "image.jpg", exif=exif)
    Image.new("L", (4, 6), 255).save(tmp_path / "mask.png")
    (mask,) = read_masks([str(tmp_path / "mask.png")], [str(tmp_path / "image.jpg")])
    assert mask.shape == (6, 4)
