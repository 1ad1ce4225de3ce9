"""Find and localise defects in images with PaDiM, in scikit-learn's manner."""

from skpadim._embedding import PatchEmbedder
from skpadim._gaussian import PatchGaussian
from skpadim._padim import PadimDetector
from skpadim._version import __version__

__all__ = ["PadimDetector", "PatchEmbedder", "PatchGaussian", "__version__"]
