"""Images to try things on: data sets on disk, folders of your own, generated parts."""

from skpadim.datasets._fetch import fetch_btad, fetch_mvtec_ad, fetch_visa, get_data_home
from skpadim.datasets._folder import load_folder
from skpadim.datasets._generated import make_defects, save_defects
from skpadim.datasets._public import (
    load_btad,
    load_mvtec_ad,
    load_mvtec_ad_2,
    load_mvtec_loco,
    load_visa,
)
from skpadim.images._masks import read_masks

__all__ = [
    "fetch_btad",
    "fetch_mvtec_ad",
    "fetch_visa",
    "get_data_home",
    "load_btad",
    "load_folder",
    "load_mvtec_ad",
    "load_mvtec_ad_2",
    "load_mvtec_loco",
    "load_visa",
    "make_defects",
    "read_masks",
    "save_defects",
]
