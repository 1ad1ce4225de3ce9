"""Images to try things on: data sets on disk, folders of your own, generated parts."""

from skpadim.datasets._btad import load_btad
from skpadim.datasets._fetch import fetch_btad, fetch_mvtec_ad, fetch_visa, get_data_home
from skpadim.datasets._folder import load_folder
from skpadim.datasets._generated import make_defects
from skpadim.datasets._masks import read_masks
from skpadim.datasets._mvtec import load_mvtec_ad, load_mvtec_ad_2, load_mvtec_loco
from skpadim.datasets._save_defects import save_defects
from skpadim.datasets._visa import load_visa

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
