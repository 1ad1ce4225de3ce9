"""The data sets that can be loaded category by category, and the categories below a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sklearn.utils import Bunch

from skpadim.datasets._btad import BTAD, load_btad
from skpadim.datasets._layout import Layout, list_categories
from skpadim.datasets._mvtec import (
    MVTEC_AD,
    MVTEC_AD_2,
    MVTEC_LOCO,
    load_mvtec_ad,
    load_mvtec_ad_2,
    load_mvtec_loco,
)
from skpadim.datasets._visa import VISA, load_visa


@dataclass(frozen=True)
class DataSet:
    """A data set of categories.

    Attributes
    ----------
    name : str
        Its key in :data:`DATASETS`.
    load : callable
        ``load(root, category, subset=...)`` gives a Bunch.
    layout : Layout
        Where a category's images lie.
    """

    name: str
    load: Callable[..., Bunch]
    layout: Layout

    @property
    def title(self) -> str:
        """Name for people."""
        return self.layout.title

    @property
    def categories(self) -> tuple[str, ...]:
        """Its own categories, in the usual order of tables."""
        return self.layout.categories


DATASETS = {
    dataset.name: dataset
    for dataset in (
        DataSet("mvtec_ad", load_mvtec_ad, MVTEC_AD),
        DataSet("btad", load_btad, BTAD),
        DataSet("visa", load_visa, VISA),
        DataSet("mvtec_loco", load_mvtec_loco, MVTEC_LOCO),
        DataSet("mvtec_ad_2", load_mvtec_ad_2, MVTEC_AD_2),
    )
}


def find_categories(dataset: DataSet, root) -> list[str]:
    """Categories of a data set below a folder.

    Parameters
    ----------
    dataset : DataSet
    root : path

    Returns
    -------
    categories : list of str
        Every folder that is laid out as the data set's categories are: the known ones in their
        usual order, then the others, sorted.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If there are none; the message says what is there instead.
    """
    return list_categories(dataset.layout, root)
