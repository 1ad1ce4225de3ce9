"""BTAD, the data set of beanTech."""

from __future__ import annotations

from sklearn.utils import Bunch

from skpadim.datasets._bunch import check_subset, make_bunch
from skpadim.datasets._layout import Layout, find_category_folder
from skpadim.datasets._samples import read_splits

BTAD = Layout("BTAD", ("01", "02", "03"), (("train/ok", "test"),))

_DESCR = """\
BTAD, beanTech Anomaly Detection: 2,540 photographs of three industrial products, with masks.

Licence: CC BY-SA, says the data set's own README; beanTech srl, https://www.beantech.it.

Citation: P. Mishra, R. Verk, D. Fornasier, C. Piciarelli, G. L. Foresti, 'VT-ADL: A Vision
Transformer Network for Image Anomaly Detection and Localization', 30th IEEE/IES International
Symposium on Industrial Electronics (ISIE), Kyoto, 2021."""


def load_btad(root, category, *, subset="all", return_X_y=False, as_frame=False) -> Bunch | tuple:
    """Load a category of BTAD [1]_, one of the products "01", "02" and "03".

    Only names are read, not the images: ``<root>/<category>/train/ok``, ``test/ok``, ``test/ko``,
    and ``ground_truth/ko``. Images are ``.bmp`` or ``.png``, and masks need not be the same.

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
    splits = check_subset(subset, ("train", "test"))
    folder = find_category_folder(BTAD, root, category)
    return make_bunch(
        read_splits(folder, splits, good="ok"),
        return_X_y=return_X_y,
        as_frame=as_frame,
        category=category,
        root=str(root),
        subset=subset,
        DESCR=_DESCR,
    )
