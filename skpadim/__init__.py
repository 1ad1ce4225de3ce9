"""Find and localise defects in images with PaDiM, in scikit-learn's manner."""

from typing import TYPE_CHECKING

from skpadim._lazy import imported_on_use
from skpadim._version import __version__

if TYPE_CHECKING:
    from skpadim._inspection import Inspection
    from skpadim._padim import PadimDetector
    from skpadim.alignment._image_aligner import ImageAligner
    from skpadim.embedding._patch_embedder import PatchEmbedder
    from skpadim.gaussian._patch_gaussian import PatchGaussian
    from skpadim.images._unreadable import UnreadableImageError
    from skpadim.plotting.report._report import InspectionReport

__all__ = [
    "ImageAligner",
    "Inspection",
    "InspectionReport",
    "PadimDetector",
    "PatchEmbedder",
    "PatchGaussian",
    "UnreadableImageError",
    "__version__",
]

# The estimators need torch, which takes seconds to import; skpadim.metrics does not. So they are
# imported when they are first asked for.
_HOMES = {
    "ImageAligner": "skpadim.alignment._image_aligner",
    "Inspection": "skpadim._inspection",
    "InspectionReport": "skpadim.plotting.report._report",
    "PadimDetector": "skpadim._padim",
    "PatchEmbedder": "skpadim.embedding._patch_embedder",
    "PatchGaussian": "skpadim.gaussian._patch_gaussian",
    "UnreadableImageError": "skpadim.images._unreadable",
}

__getattr__, __dir__ = imported_on_use(globals(), _HOMES)
