"""Anomalous regions, and files of them for the tools that people annotate images with."""

from skpadim.regions._coco import to_coco
from skpadim.regions._label_studio import LABEL_STUDIO_CONFIG, to_label_studio

__all__ = ["LABEL_STUDIO_CONFIG", "to_coco", "to_label_studio"]
