"""The data sets of MVTec: MVTec AD, MVTec LOCO AD and MVTec AD 2."""

from __future__ import annotations

from sklearn.utils import Bunch

from skpadim.datasets._bunch import check_subset, make_bunch
from skpadim.datasets._layout import Layout, find_category_folder
from skpadim.datasets._samples import (
    GOOD,
    UNKNOWN,
    Sample,
    images_in,
    match_mask_folders,
    read_good,
    read_splits,
    read_test,
    some_images,
)
from skpadim.images._masks import MaskFiles

MVTEC_AD = Layout(
    "MVTec AD",
    # In the order of the paper's tables: textures, then objects.
    (
        "carpet",
        "grid",
        "leather",
        "tile",
        "wood",
        "bottle",
        "cable",
        "capsule",
        "hazelnut",
        "metal_nut",
        "pill",
        "screw",
        "toothbrush",
        "transistor",
        "zipper",
    ),
    (("train/good", "test"),),
)
MVTEC_LOCO = Layout(
    "MVTec LOCO AD",
    ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
    (("train/good", "validation/good", "test"),),
)
MVTEC_AD_2 = Layout(
    "MVTec AD 2",
    ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"),
    (("train/good", "test_public"),),
)

_LICENCE = (
    "Licence: Creative Commons Attribution-NonCommercial-ShareAlike 4.0 (CC BY-NC-SA 4.0),\n"
    "MVTec Software GmbH. Commercial use is not allowed.\n\n"
)
_DESCR_AD = (
    "MVTec AD: 5,354 photographs of 5 textures and 10 objects, with masks of 73 kinds of defect.\n"
    "https://www.mvtec.com/company/research/datasets/mvtec-ad\n\n"
    + _LICENCE
    + "Citation: P. Bergmann, M. Fauser, D. Sattlegger, C. Steger, 'MVTec AD - A Comprehensive\n"
    "Real-World Dataset for Unsupervised Anomaly Detection', CVPR 2019, 9584-9592; P. Bergmann,\n"
    "K. Batzner, M. Fauser, D. Sattlegger, C. Steger, 'The MVTec Anomaly Detection Dataset: A\n"
    "Comprehensive Real-World Dataset for Unsupervised Anomaly Detection', International Journal\n"
    "of Computer Vision 129(4), 1038-1059, 2021."
)
_DESCR_LOCO = (
    "MVTec LOCO AD: photographs of 5 scenes, with structural defects (scratches, dents) and\n"
    "logical ones (a part is missing, or in the wrong place).\n"
    "https://www.mvtec.com/company/research/datasets/mvtec-loco\n\n"
    + _LICENCE
    + "Citation: P. Bergmann, K. Batzner, M. Fauser, D. Sattlegger, C. Steger, 'Beyond Dents and\n"
    "Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization',\n"
    "International Journal of Computer Vision 130, 947-969, 2022, doi 10.1007/s11263-022-01578-9."
)
_DESCR_AD_2 = (
    "MVTec AD 2: 8 objects under several lightings. Of the test images a part is public; the\n"
    "truth about the others is kept by the evaluation server, https://benchmark.mvtec.com.\n"
    "https://www.mvtec.com/research-teaching/datasets/mvtec-ad-2\n\n"
    + _LICENCE
    + "Citation: L. Heckler-Kram, J.-H. Neudeck, U. Scheler, R. König, C. Steger, 'The MVTec AD\n"
    "2 Dataset: Advanced Scenarios for Unsupervised Anomaly Detection', arXiv 2503.21622."
)


def load_mvtec_ad(
    root, category, *, subset="all", return_X_y=False, as_frame=False
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

    Returns
    -------
    images : Bunch
        data : Series of str (or DataFrame)
            Paths of the images: training images, then the good test images, then the defective
            ones, by kind and name.
        target : ndarray of int (or Series)
            +1 good, -1 defective.
        masks : Series of object
            None for good images; for defective ones what :func:`skpadim.metrics.evaluate` takes:
            here the path of an image, defective where not black. See :func:`read_masks`.
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
        If a folder has no images, or `subset` is none.

    References
    ----------
    .. [1] Bergmann, Fauser, Sattlegger & Steger, "MVTec AD - A Comprehensive Real-World Dataset
       for Unsupervised Anomaly Detection", CVPR 2019.

    Examples
    --------
    >>> from skpadim.datasets import load_mvtec_ad
    >>> train = load_mvtec_ad("data", "bottle", subset="train")  # doctest: +SKIP
    >>> detector = PadimDetector().fit(train.data)               # doctest: +SKIP
    """
    splits = check_subset(subset, ("train", "test"))
    folder = find_category_folder(MVTEC_AD, root, category)
    samples = read_splits(folder, splits)
    return make_bunch(
        samples,
        return_X_y=return_X_y,
        as_frame=as_frame,
        category=category,
        root=str(root),
        subset=subset,
        DESCR=_DESCR_AD,
    )


def load_mvtec_loco(
    root, category, *, subset="all", return_X_y=False, as_frame=False
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
    return_X_y, as_frame : bool, default=False
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
    splits = check_subset(subset, ("train", "validation", "test"))
    folder = find_category_folder(MVTEC_LOCO, root, category)
    samples = []
    for split in splits:
        if split == "test":
            truth = folder / "ground_truth"
            samples += read_test(folder / split, truth, match=match_mask_folders)
        else:
            samples += read_good(folder / split / GOOD, split)
    return make_bunch(
        samples,
        return_X_y=return_X_y,
        as_frame=as_frame,
        read=lambda folder: MaskFiles(tuple(images_in(folder))),
        category=category,
        root=str(root),
        subset=subset,
        DESCR=_DESCR_LOCO,
    )


def load_mvtec_ad_2(
    root, category, *, subset="all", return_X_y=False, as_frame=False
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
    return_X_y, as_frame : bool, default=False
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
    private = ("test_private", "test_private_mixed")
    splits = check_subset(subset, ("train", "validation", "test"), private)
    folder = find_category_folder(MVTEC_AD_2, root, category)
    samples = []
    for split in splits:
        if split == "test":
            test = folder / "test_public"
            samples += read_test(test, test / "ground_truth")
        elif split in private:
            samples += [Sample(path, split, UNKNOWN) for path in some_images(folder / split)]
        else:
            samples += read_good(folder / split / GOOD, split)
    return make_bunch(
        samples,
        return_X_y=return_X_y,
        as_frame=as_frame,
        category=category,
        root=str(root),
        subset=subset,
        DESCR=_DESCR_AD_2,
    )
