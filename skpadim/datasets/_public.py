"""The five public data sets as a table of what tells them apart, and their loaders."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from sklearn.utils import Bunch

from skpadim.datasets._layout import (
    GOOD,
    DataSet,
    Sample,
    images_in,
    match_mask_folders,
    read_splits,
)
from skpadim.images._masks import MaskFiles

_VISA_NORMAL = "Data/Images/Normal"
_VISA_SPLIT_FILE = Path("split_csv", "1cls.csv")
_VISA_COLUMNS = ("object", "split", "label", "image", "mask")
_VISA_KINDS = {"normal": GOOD, "anomaly": "bad"}
_VISA_SPLITS = ("train", "test")


def _read_visa(folder, splits):
    """Samples of a category of VisA in the order of the one-class layout, whichever it has."""
    if not (folder / _VISA_NORMAL).is_dir():
        return read_splits(folder, splits)
    root, category = folder.parent, folder.name
    path = root / _VISA_SPLIT_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: it divides VisA into training and test images. It is part of "
            "the archive, and stands in https://github.com/amazon-science/spot-diff."
        )
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _VISA_COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(missing)}: its columns are "
                f"{', '.join(reader.fieldnames or ['none'])}; {', '.join(_VISA_COLUMNS)} are "
                "needed."
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
    return sorted(samples, key=lambda s: (_VISA_SPLITS.index(s.split), s.kind != GOOD, s.path))


def _read_row(path, line, row, root):
    """A row of the split file as a sample."""
    for name, accepted in (("split", _VISA_SPLITS), ("label", tuple(_VISA_KINDS))):
        if row[name] not in accepted:
            raise ValueError(
                f"{path}, line {line}: {name} is {row[name]!r}; it must be {accepted[0]!r} or "
                f"{accepted[1]!r}."
            )
    kind = _VISA_KINDS[row["label"]]
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


# In the order of the paper's tables: textures, then objects.
_MVTEC_AD_CATEGORIES = (
    "carpet", "grid", "leather", "tile", "wood", "bottle", "cable", "capsule", "hazelnut",
    "metal_nut", "pill", "screw", "toothbrush", "transistor", "zipper",
)  # fmt: skip
# In the order of the authors' script.
_VISA_CATEGORIES = (
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2",
    "pcb3", "pcb4", "pipe_fryum",
)  # fmt: skip
_MVTEC_LICENCE = """\
Licence: Creative Commons Attribution-NonCommercial-ShareAlike 4.0 (CC BY-NC-SA 4.0),
MVTec Software GmbH. Commercial use is not allowed."""

_MVTEC_AD = DataSet(
    name="mvtec_ad",
    title="MVTec AD",
    categories=_MVTEC_AD_CATEGORIES,
    folders=(("train/good", "test"),),
    read=read_splits,
    description=f"""\
MVTec AD: 5,354 photographs of 5 textures and 10 objects, with masks of 73 kinds of defect.
https://www.mvtec.com/company/research/datasets/mvtec-ad

{_MVTEC_LICENCE}

Citation: P. Bergmann, M. Fauser, D. Sattlegger, C. Steger, 'MVTec AD - A Comprehensive
Real-World Dataset for Unsupervised Anomaly Detection', CVPR 2019, 9584-9592; P. Bergmann,
K. Batzner, M. Fauser, D. Sattlegger, C. Steger, 'The MVTec Anomaly Detection Dataset: A
Comprehensive Real-World Dataset for Unsupervised Anomaly Detection', International Journal
of Computer Vision 129(4), 1038-1059, 2021.""",
)
_BTAD = DataSet(
    name="btad",
    title="BTAD",
    categories=("01", "02", "03"),
    folders=(("train/ok", "test"),),
    read=partial(read_splits, good="ok"),
    description="""\
BTAD, beanTech Anomaly Detection: 2,540 photographs of three industrial products, with masks.

Licence: CC BY-SA, says the data set's own README; beanTech srl, https://www.beantech.it.

Citation: P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, 'VT-ADL: A Vision
Transformer Network for Image Anomaly Detection and Localization', 30th IEEE/IES International
Symposium on Industrial Electronics (ISIE), Kyoto, 2021.""",
)
_VISA = DataSet(
    name="visa",
    title="VisA",
    categories=_VISA_CATEGORIES,
    folders=((_VISA_NORMAL,), ("train/good", "test")),
    read=_read_visa,
    read_mask=lambda path: MaskFiles((path,)),
    description="""\
VisA, Visual Anomaly: 10,821 photographs (9,621 good, 1,200 defective) of 12 objects, with masks.
https://github.com/amazon-science/spot-diff

Licence: Creative Commons Attribution 4.0 (CC BY 4.0), Amazon.

Citation: Y. Zou, J. Jeong, L. Pemula, D. Zhang, O. Dabeer, 'SPot-the-Difference Self-Supervised
Pre-training for Anomaly Detection and Segmentation', ECCV 2022, arXiv 2207.14315.""",
)
_MVTEC_LOCO = DataSet(
    name="mvtec_loco",
    title="MVTec LOCO AD",
    categories=("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
    folders=(("train/good", "validation/good", "test"),),
    read=partial(read_splits, match=match_mask_folders),
    splits=("train", "validation", "test"),
    read_mask=lambda folder: MaskFiles(tuple(images_in(folder))),
    description=f"""\
MVTec LOCO AD: photographs of 5 scenes, with structural defects (scratches, dents) and
logical ones (a part is missing, or in the wrong place).
https://www.mvtec.com/company/research/datasets/mvtec-loco

{_MVTEC_LICENCE}

Citation: P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, 'Beyond Dents and
Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization',
International Journal of Computer Vision 130, 947-969, 2022, doi 10.1007/s11263-022-01578-9.""",
)
_PRIVATE = ("test_private", "test_private_mixed")
_MVTEC_AD_2 = DataSet(
    name="mvtec_ad_2",
    title="MVTec AD 2",
    categories=(
        "can",
        "fabric",
        "fruit_jelly",
        "rice",
        "sheet_metal",
        "vial",
        "wallplugs",
        "walnuts",
    ),
    folders=(("train/good", "test_public"),),
    read=partial(
        read_splits,
        test="test_public",
        ground_truth="test_public/ground_truth",
        unlabelled=_PRIVATE,
    ),
    splits=("train", "validation", "test"),
    more_splits=_PRIVATE,
    description=f"""\
MVTec AD 2: 8 objects under several lightings. Of the test images a part is public; the
truth about the others is kept by the evaluation server, https://benchmark.mvtec.com.
https://www.mvtec.com/research-teaching/datasets/mvtec-ad-2

{_MVTEC_LICENCE}

Citation: L. Heckler-Kram, J.-H. Neudeck, U. Scheler, R. König, C. Steger, 'The MVTec AD
2 Dataset: Advanced Scenarios for Unsupervised Anomaly Detection', arXiv 2503.21622.""",
)

DATASETS = {
    dataset.name: dataset for dataset in (_MVTEC_AD, _BTAD, _VISA, _MVTEC_LOCO, _MVTEC_AD_2)
}


def load_mvtec_ad(
    root,
    category,
    *,
    subset="all",
    return_X_y=False,
    as_frame=False,
    unaligned=False,
    random_state=0,
) -> Bunch | tuple:
    """Load a category of MVTec AD [1]_, or of any data set laid out as that is.

    Only names are read, not the images: ``<root>/<category>/train/good``, ``test/<kind>``, and
    ``ground_truth/<kind>/<name>_mask.png``.

    Parameters
    ----------
    root : path
        Folder that holds the categories.
    category : str
        Name of a category, for instance "bottle". Any folder with that layout will do.
    subset : {"train", "test", "all"}, default="all"
        Split to load. The training images are all good.
    return_X_y : bool, default=False
        Return ``(data, target)`` instead of a Bunch.
    as_frame : bool, default=False
        Make `data` a DataFrame of one column and `target` and `kinds` Series.
    unaligned : bool, default=False
        Turn and crop each image at random, as the paper of PaDiM [2]_ does to see what becomes of
        parts that are not aligned. See Notes.
    random_state : int, default=0
        Seed of `unaligned`, 0 or more. How an image is moved depends on it and on the file's path
        below `root`, not on `subset`, nor on what other files there are.

    Returns
    -------
    images : Bunch
        data : Series of str (or DataFrame)
            Paths of the images: training images, then the good test images, then the defective
            ones, by kind and name.
            With `unaligned`, objects that become arrays (224, 224, 3) when they are used.
        target : ndarray of int (or Series)
            +1 good, -1 defective.
        masks : Series of object
            None for good images; for defective ones what :func:`skpadim.metrics.evaluate` takes:
            here the path of an image, defective where not black. See :func:`read_masks`. With
            `unaligned`, objects that become arrays (224, 224), moved as their images are.
        kinds : ndarray of str (or Series)
            "good" or the kind of defect.
        frame : DataFrame
            A row an image: ``path``, ``split``, ``kind``, ``target``, ``mask`` (path or None).
        category, root, subset : str
            As given.
        DESCR : str
            Description of the data set, with licence and citation.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If there is no such category, or a defective image has no mask. The message says what was
        found and what to do.
    ValueError
        If a folder has no images, `subset` is none, or `random_state` is no seed.

    Notes
    -----
    With `unaligned`, images of training and test are resized to 256 x 256, turned about the centre
    by an angle from -10 to 10 degrees, and cropped to 224 x 224 at a random place: a detector for
    them has ``image_size=224`` and no crop. The paper does not say what fills the corners that a
    turned image leaves open: here they are black. A defective image stays one if its defect is
    cropped away, and its mask is then empty, as with a crop of the centre. The mean of five seeds
    is what the paper gives.

    References
    ----------
    .. [1] Bergmann, Fauser, Sattlegger & Steger, "MVTec AD - A Comprehensive Real-World Dataset
       for Unsupervised Anomaly Detection", CVPR 2019.
    .. [2] Defard, Setkov, Loesch & Audigier, "PaDiM: a Patch Distribution Modeling Framework for
       Anomaly Detection and Localization", 2020, arXiv 2011.08785, section IV-A.

    Examples
    --------
    >>> from skpadim.datasets import load_mvtec_ad
    >>> train = load_mvtec_ad("data", "bottle", subset="train")  # doctest: +SKIP
    >>> detector = PadimDetector().fit(train.data)               # doctest: +SKIP
    """
    return _MVTEC_AD.load(root, category, subset, return_X_y, as_frame, unaligned, random_state)


def load_mvtec_loco(
    root,
    category,
    *,
    subset="all",
    return_X_y=False,
    as_frame=False,
    unaligned=False,
    random_state=0,
) -> Bunch | tuple:
    """Load a category of MVTec LOCO AD [1]_: structural and logical anomalies.

    An image can have several masks, ``ground_truth/<kind>/<name>/000.png`` and so on, one for
    each place where its defect could be mended. Here they are united, which is what pixel AUROC
    and AUPRO are about; sPRO (:func:`skpadim.metrics.auspro_score`) needs them one by one, with
    the saturation thresholds of the data set's ``defects_config.json``.

    Parameters
    ----------
    root, category : path, str
        As for :func:`load_mvtec_ad`.
    subset : {"train", "validation", "test", "all"}, default="all"
        Split to load. The images of "train" and "validation" are all good.
    return_X_y, as_frame, unaligned : bool, default=False
        As for :func:`load_mvtec_ad`.
    random_state : int, default=0
        As for :func:`load_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_mvtec_ad`. Items of ``masks`` are None or objects that become arrays
        when they are used: True where any of the image's masks is not 0. The ``mask`` of `frame`
        is the folder that holds these.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError, ValueError
        As :func:`load_mvtec_ad`.

    References
    ----------
    .. [1] Bergmann, Batzner, Fauser, Sattlegger & Steger, "Beyond Dents and Scratches: Logical
       Constraints in Unsupervised Anomaly Detection and Localization", IJCV 130, 2022.

    Examples
    --------
    >>> from skpadim.datasets import load_mvtec_loco
    >>> test = load_mvtec_loco("data", "pushpins", subset="test")  # doctest: +SKIP
    """
    return _MVTEC_LOCO.load(root, category, subset, return_X_y, as_frame, unaligned, random_state)


def load_mvtec_ad_2(
    root,
    category,
    *,
    subset="all",
    return_X_y=False,
    as_frame=False,
    unaligned=False,
    random_state=0,
) -> Bunch | tuple:
    """Load a category of MVTec AD 2 [1]_.

    Parameters
    ----------
    root, category : path, str
        As for :func:`load_mvtec_ad`.
    subset : {"train", "validation", "test", "test_private", "test_private_mixed", "all"}, \
            default="all"
        Split to load. The images of "train" and "validation" are all good; "test" is the public
        test set. The truth about the private ones is not published: their `target` is 0, their
        kind "unknown", and "all" leaves them out.
    return_X_y, as_frame, unaligned : bool, default=False
        As for :func:`load_mvtec_ad`.
    random_state : int, default=0
        As for :func:`load_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_mvtec_ad`.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError, ValueError
        As :func:`load_mvtec_ad`.

    References
    ----------
    .. [1] Heckler-Kram, Neudeck, Scheler, König & Steger, "The MVTec AD 2 Dataset: Advanced
       Scenarios for Unsupervised Anomaly Detection", arXiv 2503.21622.

    Examples
    --------
    >>> from skpadim.datasets import load_mvtec_ad_2
    >>> test = load_mvtec_ad_2("data", "can", subset="test")  # doctest: +SKIP
    """
    return _MVTEC_AD_2.load(root, category, subset, return_X_y, as_frame, unaligned, random_state)


def load_btad(
    root,
    category,
    *,
    subset="all",
    return_X_y=False,
    as_frame=False,
    unaligned=False,
    random_state=0,
) -> Bunch | tuple:
    """Load a category of BTAD [1]_, one of the products "01", "02" and "03".

    Only names are read, not the images: ``<root>/<category>/train/ok``, ``test/ok``, ``test/ko``,
    and ``ground_truth/ko``. Images are ``.bmp`` or ``.png``, and masks need not be the same.

    Parameters
    ----------
    root, category : path, str
        As for :func:`load_mvtec_ad`.
    subset : {"train", "test", "all"}, default="all"
        Split to load. The training images are all good.
    return_X_y, as_frame, unaligned : bool, default=False
        As for :func:`load_mvtec_ad`.
    random_state : int, default=0
        As for :func:`load_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_mvtec_ad`. The kinds are "good" and "ko".

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError, ValueError
        As :func:`load_mvtec_ad`.

    References
    ----------
    .. [1] Mishra, Verk, Fornasier, Piciarelli & Foresti, "VT-ADL: A Vision Transformer Network
       for Image Anomaly Detection and Localization", ISIE 2021, arXiv 2104.10036.

    Examples
    --------
    >>> from skpadim.datasets import load_btad
    >>> train = load_btad("BTech_Dataset_transformed", "01", subset="train")  # doctest: +SKIP
    """
    return _BTAD.load(root, category, subset, return_X_y, as_frame, unaligned, random_state)


def load_visa(
    root,
    category,
    *,
    subset="all",
    return_X_y=False,
    as_frame=False,
    unaligned=False,
    random_state=0,
) -> Bunch | tuple:
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
    return_X_y, as_frame, unaligned : bool, default=False
        As for :func:`load_mvtec_ad`.
    random_state : int, default=0
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
    return _VISA.load(root, category, subset, return_X_y, as_frame, unaligned, random_state)
