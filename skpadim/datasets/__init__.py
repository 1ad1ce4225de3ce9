"""Images to try things on."""

from skpadim.datasets._generated import make_defects

__all__ = ["make_defects"]
