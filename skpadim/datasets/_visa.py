"""VisA, in the layout of its archive and in that which its authors' script makes of it."""

from __future__ import annotations

import csv
from pathlib import Path

from sklearn.utils import Bunch

from skpadim.datasets._bunch import check_subset, make_bunch
from skpadim.datasets._layout import Layout, find_category_folder
from skpadim.datasets._samples import GOOD, Sample, images_in, read_splits
from skpadim.images._masks import MaskFiles

_NORMAL = "Data/Images/Normal"

VISA = Layout(
    "VisA",
    # In the order of the authors' script.
    (
        "candle",
        "capsules",
        "cashew",
        "chewinggum",
        "fryum",
        "macaroni1",
        "macaroni2",
        "pcb1",
        "pcb2",
        "pcb3",
        "pcb4",
        "pipe_fryum",
    ),
    ((_NORMAL,), ("train/good", "test")),
)

_SPLIT_FILE = Path("split_csv", "1cls.csv")
_COLUMNS = ("object", "split", "label", "image", "mask")
_KINDS = {"normal": GOOD, "anomaly": "bad"}
_SPLITS = ("train", "test")

_DESCR = """\
VisA, Visual Anomaly: 10,821 photographs (9,621 good, 1,200 defective) of 12 objects, with masks.
https://github.com/amazon-science/spot-diff

Licence: Creative Commons Attribution 4.0 (CC BY 4.0), Amazon.

Citation: Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer, 'SPot-the-Difference Self-Supervised
Pre-training for Anomaly Detection and Segmentation', ECCV 2022, arXiv 2207.14315."""


def load_visa(root, category, *, subset="all", return_X_y=False, as_frame=False) -> Bunch | tuple:
    """Load a category of VisA [1]_, split for training on good images only.

    Only names are read, not the images. Two layouts are known: that of the archive,
    ``<root>/<category>/Data/Images/{Normal,Anomaly}`` and ``Data/Masks/Anomaly``, divided by
    ``<root>/split_csv/1cls.csv``; and the one-class layout that its authors' ``prepare_data.py``
    writes, ``<root>/<category>/train/good``, ``test/{good,bad}`` and ``ground_truth/bad``. Both
    give the same images.

    Parameters
    ----------
    root, category : path, str
        As for :func:`load_mvtec_ad`.
    subset : {"train", "test", "all"}, default="all"
        Split to load. The training images are all good.
    return_X_y, as_frame : bool, default=False
        As for :func:`load_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_mvtec_ad`. The kinds are "good" and "bad". The archive's masks hold
        indices of classes, so items of ``masks`` are None or objects that become arrays when they
        are used: True where the file is not 0. The ``mask`` of `frame` is the file's path.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        As :func:`load_mvtec_ad`; or if the split file names files that do not exist.
    ValueError
        If the split file is not what it should be.

    References
    ----------
    .. [1] Zou, Jeong, Pemula, Zhang & Dabeer, "SPot-the-Difference Self-Supervised Pre-training
       for Anomaly Detection and Segmentation", ECCV 2022, arXiv 2207.14315.

    Examples
    --------
    >>> from skpadim.datasets import load_visa
    >>> train = load_visa("VisA", "candle", subset="train")  # doctest: +SKIP
    """
    splits = check_subset(subset, _SPLITS)
    folder = find_category_folder(VISA, root, category)
    if (folder / _NORMAL).is_dir():
        samples = _read_split_file(Path(root), category, splits)
    else:
        samples = read_splits(folder, splits)
    return make_bunch(
        samples,
        return_X_y=return_X_y,
        as_frame=as_frame,
        read=lambda path: MaskFiles((path,)),
        category=category,
        root=str(root),
        subset=subset,
        DESCR=_DESCR,
    )


def _read_split_file(root, category, splits):
    """Samples of a category in the order of the one-class layout."""
    path = root / _SPLIT_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: it divides VisA into training and test images. It is part of "
            "the archive, and stands in https://github.com/amazon-science/spot-diff."
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}: its columns are "
                f"{', '.join(reader.fieldnames or ['none'])}; {', '.join(_COLUMNS)} are needed."
            )
        # The reader has passed the line when the row comes out: rows are numbered as editors do.
        rows = [(reader.line_num, row) for row in reader if row["object"] == category]
    if not rows:
        raise ValueError(f"{path} has no rows whose object is {category!r}.")
    samples = [_read_row(path, line, row, root) for line, row in rows]
    _check_files_exist(path, samples)
    samples = [sample for sample in samples if sample.split in splits]
    if not samples:
        raise ValueError(f"{path} has no rows of {category!r} whose split is {splits[0]!r}.")
    return sorted(samples, key=lambda s: (_SPLITS.index(s.split), s.kind != GOOD, s.path))


def _read_row(path, line, row, root):
    """A row of the split file as a sample."""
    for name, accepted in (("split", _SPLITS), ("label", tuple(_KINDS))):
        if row[name] not in accepted:
            raise ValueError(
                f"{path}, line {line}: {name} is {row[name]!r}; it must be {accepted[0]!r} or "
                f"{accepted[1]!r}."
            )
    kind = _KINDS[row["label"]]
    if not row["image"]:
        raise ValueError(f"{path}, line {line}: image is empty.")
    if kind != GOOD and not row["mask"]:
        raise ValueError(f"{path}, line {line}: {row['image']} is an anomaly and has no mask.")
    mask = None if kind == GOOD else str(root / row["mask"])
    return Sample(str(root / row["image"]), row["split"], kind, mask)


def _check_files_exist(path, samples):
    """Check that the files that the split file names are there, listing each folder once."""
    named = [file for sample in samples for file in (sample.path, sample.mask) if file is not None]
    folders = {Path(file).parent for file in named}
    there = {file for folder in folders if folder.is_dir() for file in images_in(folder)}
    missing = [file for file in named if file not in there]
    if missing:
        raise FileNotFoundError(
            f"{path} names {len(missing)} files that do not exist, the first {missing[0]}: the "
            "archive was not unpacked whole, or the files were renamed."
        )
