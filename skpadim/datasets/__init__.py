"""Images to try things on."""

from skpadim.datasets._generated import make_defects
from skpadim.datasets._save_defects import save_defects

__all__ = ["make_defects", "save_defects"]
