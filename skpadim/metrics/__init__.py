"""Exact metrics of anomaly maps and image scores, for any detector's arrays."""

from skpadim.metrics._evaluate import evaluate
from skpadim.metrics._pixel_metrics import PixelMetrics, pixel_metrics
from skpadim.metrics._saturation import auspro_score, spro_curve
from skpadim.metrics._scorers import aupro_scorer, pixel_roc_auc_scorer
from skpadim.metrics._scores import (
    aupro_score,
    image_f1_max,
    pixel_average_precision_score,
    pixel_f1_max,
    pixel_roc_auc_score,
    pro_curve,
    pro_score,
)

__all__ = [
    "PixelMetrics",
    "aupro_score",
    "aupro_scorer",
    "auspro_score",
    "evaluate",
    "image_f1_max",
    "pixel_average_precision_score",
    "pixel_f1_max",
    "pixel_metrics",
    "pixel_roc_auc_score",
    "pixel_roc_auc_scorer",
    "pro_curve",
    "pro_score",
    "spro_curve",
]
