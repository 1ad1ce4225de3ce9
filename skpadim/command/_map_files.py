"""Anomaly maps in colours, and as files for `skpadim score --maps`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from skpadim._files import written_whole

# Anchors of a colour scale whose lightness rises evenly from black to pale yellow.
_COLOURS = np.array(
    [(0, 0, 4), (50, 10, 94), (120, 28, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26),
     (252, 255, 164)]
)  # fmt: skip


def colour_map(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour a map (uint8), `low` and below black, `high` and above pale yellow."""
    position = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1) * (len(_COLOURS) - 1)
    anchors = np.arange(len(_COLOURS))
    channels = [np.interp(position, anchors, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def write_map(target: Path, anomaly_map: np.ndarray, image: np.ndarray, high: float) -> None:
    """Write a map twice: its values as .tiff; and, beside the image, in colours from 0 as .png."""
    target.parent.mkdir(parents=True, exist_ok=True)
    coloured = np.hstack([image, colour_map(anomaly_map, 0, high)])
    for pixels, suffix in ((anomaly_map, "tiff"), (coloured, "png")):
        # The suffix comes after that of the image: a.png and a.jpg must not overwrite each other.
        with written_whole(target.with_name(f"{target.name}.{suffix}"), durable=False) as part:
            Image.fromarray(pixels).save(part, format=suffix)
