"""Made-up copies of the data sets' layouts, with their oddities: tiny images, all categories."""

import csv

import numpy as np
import pytest
from PIL import Image

from skpadim.datasets._catalogue import DATASETS

SIZE = (48, 64)  # height and width


class Painter:
    """Grey noise, and a bright square where a mask says so."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def image(self, path, mask=None):
        pixels = self.rng.integers(90, 110, size=(*SIZE, 3), dtype=np.uint8)
        if mask is not None:
            pixels[mask] = 250
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format="PNG" if path.suffix == ".JPG" else None)

    def defect(self):
        row, column = self.rng.integers(4, SIZE[0] - 16, size=2)
        mask = np.zeros(SIZE, dtype=bool)
        mask[row : row + 12, column : column + 12] = True
        return mask

    def mask(self, path, mask, value=255):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(value)).save(path)


def litter(folder):
    """Files that are no images, as archives and file managers leave them."""
    for name in ("Thumbs.db", ".DS_Store", "readme.txt", "license.txt", "._000.png"):
        (folder / name).write_bytes(b"no image")


def _factory(name, write_category, after=None):
    """A function that writes a data set's categories below a folder, and returns the folder."""

    @pytest.fixture
    def make(tmp_path):
        def write(root=None, categories=DATASETS[name].categories, n_train=6):
            root = root or tmp_path / name
            painter = Painter()
            for category in categories:
                write_category(root / category, painter, n_train)
            litter(root)
            if after is not None:
                after(root, categories, n_train)
            return root

        return write

    return make


def _write_mvtec_ad(folder, painter, n_train):
    for index in range(n_train):
        painter.image(folder / "train/good" / f"{index:03}.png")
    for index in range(3):
        painter.image(folder / "test/good" / f"{index:03}.png")
    for kind, suffix in (("broken", ".png"), ("dirt", ".PNG")):
        for index in range(2):
            mask = painter.defect()
            painter.image(folder / "test" / kind / f"{index:03}{suffix}", mask)
            painter.mask(folder / "ground_truth" / kind / f"{index:03}_mask.png", mask)
    for each in ("", "train/good", "test", "test/dirt", "ground_truth/dirt"):
        litter(folder / each)


def _write_btad(folder, painter, n_train):
    image, mask_suffix = {"01": (".bmp", ".png"), "02": (".png", ".png")}.get(
        folder.name, (".bmp", ".bmp")
    )
    for index in range(n_train):
        painter.image(folder / "train/ok" / f"{index:04}{image}")
    for index in range(3):
        painter.image(folder / "test/ok" / f"{index:04}{image}")
        mask = painter.defect()
        painter.image(folder / "test/ko" / f"{index:04}{image}", mask)
        painter.mask(folder / "ground_truth/ko" / f"{index:04}{mask_suffix}", mask)
    litter(folder / "test/ko")


def _write_visa(folder, painter, n_train):
    for index in range(n_train + 2):
        painter.image(folder / "Data/Images/Normal" / f"{index:04}.JPG")
    for index in range(3):
        mask = painter.defect()
        painter.image(folder / "Data/Images/Anomaly" / f"{index:03}.JPG", mask)
        painter.mask(folder / "Data/Masks/Anomaly" / f"{index:03}.png", mask, value=index + 1)
    (folder / "image_anno.csv").write_text("image,label,mask\n")
    litter(folder / "Data/Images/Normal")


def _write_visa_splits(root, categories, n_train):
    rows = []
    for category in categories:
        for index in reversed(range(n_train + 2)):
            split = "train" if index >= 2 else "test"
            image = f"{category}/Data/Images/Normal/{index:04}.JPG"
            rows.append((category, split, "normal", image, ""))
        for index in range(3):
            image = f"{category}/Data/Images/Anomaly/{index:03}.JPG"
            mask = f"{category}/Data/Masks/Anomaly/{index:03}.png"
            rows.append((category, "test", "anomaly", image, mask))
    (root / "split_csv").mkdir()
    with (root / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])


def _write_visa_one_class(folder, painter, n_train):
    for index in range(n_train):
        painter.image(folder / "train/good" / f"{index + 2:04}.JPG")
    for index in range(2):
        painter.image(folder / "test/good" / f"{index:04}.JPG")
    for index in range(3):
        mask = painter.defect()
        painter.image(folder / "test/bad" / f"{index:03}.JPG", mask)
        painter.mask(folder / "ground_truth/bad" / f"{index:03}.png", mask)


def _write_mvtec_loco(folder, painter, n_train):
    for split, count in (("train", n_train), ("validation", 2), ("test", 3)):
        for index in range(count):
            painter.image(folder / split / "good" / f"{index:03}.png")
    for kind in ("logical_anomalies", "structural_anomalies"):
        for index in range(2):
            masks = [painter.defect() for _ in range(index + 1)]
            painter.image(folder / "test" / kind / f"{index:03}.png", np.any(masks, axis=0))
            truth = folder / "ground_truth" / kind / f"{index:03}"
            for number, mask in enumerate(masks):
                painter.mask(truth / f"{number:03}.png", mask, value=200 + number)
            litter(truth)
    (folder / "defects_config.json").write_text("[]")


def _write_mvtec_ad_2(folder, painter, n_train):
    for split, count in (("train", n_train), ("validation", 2), ("test_public", 3)):
        for index in range(count):
            painter.image(folder / split / "good" / f"{index:03}_regular.png")
    for index in range(3):
        mask = painter.defect()
        painter.image(folder / "test_public/bad" / f"{index:03}_overexposed.png", mask)
        truth = folder / "test_public/ground_truth/bad"
        painter.mask(truth / f"{index:03}_overexposed_mask.png", mask)
        painter.image(folder / "test_private" / f"{index:03}_regular.png")
        painter.image(folder / "test_private_mixed" / f"{index:03}_mixed.png")


make_mvtec_ad = _factory("mvtec_ad", _write_mvtec_ad)
make_btad = _factory("btad", _write_btad)
make_visa = _factory("visa", _write_visa, after=_write_visa_splits)
make_visa_one_class = _factory("visa", _write_visa_one_class)
make_mvtec_loco = _factory("mvtec_loco", _write_mvtec_loco)
make_mvtec_ad_2 = _factory("mvtec_ad_2", _write_mvtec_ad_2)


@pytest.fixture
def make_data_set(request):
    """Make any data set by its key in the catalogue: ``make_data_set(name, categories=...)``."""

    def make(name, **options):
        return request.getfixturevalue(f"make_{name}")(**options)

    return make


@pytest.fixture
def painter():
    return Painter()
