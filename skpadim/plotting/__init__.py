"""Pictures of what a detector finds: displays, and the report."""

from typing import TYPE_CHECKING

from skpadim._lazy import imported_on_use

if TYPE_CHECKING:
    from skpadim.plotting._anomaly_map_display import AnomalyMapDisplay
    from skpadim.plotting._patch_gaussian_display import PatchGaussianDisplay
    from skpadim.plotting._pro_curve_display import ProCurveDisplay
    from skpadim.plotting._score_histogram_display import ScoreHistogramDisplay
    from skpadim.plotting.report._report import InspectionReport

__all__ = [
    "AnomalyMapDisplay",
    "InspectionReport",
    "PatchGaussianDisplay",
    "ProCurveDisplay",
    "ScoreHistogramDisplay",
]

# Imported when they are first asked for: some need torch, which takes seconds.
_HOMES = {
    "AnomalyMapDisplay": "skpadim.plotting._anomaly_map_display",
    "InspectionReport": "skpadim.plotting.report._report",
    "PatchGaussianDisplay": "skpadim.plotting._patch_gaussian_display",
    "ProCurveDisplay": "skpadim.plotting._pro_curve_display",
    "ScoreHistogramDisplay": "skpadim.plotting._score_histogram_display",
}

__getattr__, __dir__ = imported_on_use(globals(), _HOMES)
