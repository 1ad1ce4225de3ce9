"""Draw the picture of the first page.

Usage: python doc/_landing_picture.py

Generated parts above, and below them the same with what a detector finds in colours; the first is
good. Writes _static/landing.webp.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.plotting._colours import outline, overlay

# Part, its kind of defect, and which of the images with it.
SHOWN = [("capsule", "good", 0), ("transistor", "bent", 0), ("bottle", "crack", 0)]
SHOWN += [("leather", "scratch", 0), ("wood", "crack", 1)]
SIDE, GAP = 256, 12


def column(part, kind, which):
    """An image of a part, and the same with its map and the outline of its regions."""
    train = make_defects(80, 0, part=part, random_state=0)
    new = make_defects(4, 24, part=part, difficulty=0.3, random_state=1)
    detector = PadimDetector("filter_bank", contamination=0.02, random_state=0).fit(train.data)
    image = new.data[np.flatnonzero(new.kinds == kind)[which]]
    anomaly_map, threshold = detector.anomaly_map([image])[0], -detector.offset_
    pixels = np.round(image * 255).astype(np.uint8) if image.dtype != np.uint8 else image
    shown = overlay(pixels, anomaly_map, threshold)
    shown[outline(anomaly_map > threshold, 2)] = (45, 10, 80)
    return np.concatenate([pixels, np.full((GAP, SIDE, 3), 255, np.uint8), shown])


def main():
    columns = [column(*shown) for shown in SHOWN]
    gap = np.full((len(columns[0]), GAP, 3), 255, np.uint8)
    joined = [part for one in columns for part in (gap, one)][1:]
    pixels = np.concatenate(joined, axis=1)
    alpha = np.full(pixels.shape[:2], 255, np.uint8)  # gaps are transparent, for the dark theme
    alpha[SIDE : SIDE + GAP] = 0
    for place in range(1, len(SHOWN)):
        start = place * (SIDE + GAP) - GAP
        alpha[:, start : start + GAP] = 0
    picture = Image.fromarray(np.dstack([pixels, alpha]))
    picture.save(Path(__file__).parent / "_static" / "landing.webp", quality=80, method=6)


if __name__ == "__main__":
    main()
