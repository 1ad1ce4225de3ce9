"""
Small defects in large images
=============================

A scratch of ten pixels is gone when a large photograph is made small. With
``tile_size`` the network sees it as it is, tile by tile.
"""

# %%
# A board of 768 x 1024 pixels
# ----------------------------

import matplotlib.pyplot as plt
import numpy as np

from skpadim import PadimDetector
from skpadim.plotting import AnomalyMapDisplay

SIZE = (768, 1024)
rng = np.random.default_rng(0)
board = rng.uniform(0.35, 0.45, size=SIZE).astype(np.float32)
for _ in range(60):
    top, left = rng.integers(0, SIZE[0] - 90), rng.integers(0, SIZE[1] - 90)
    height, width = rng.integers(20, 90, size=2)
    board[top : top + height, left : left + width] = rng.uniform(0.2, 0.8)


def photograph(scratched=False):
    """The board in another light, with noise; or with a scratch, too."""
    image = board * rng.uniform(0.95, 1.05)
    image = image + rng.normal(0, 0.02, SIZE).astype(np.float32)
    if scratched:
        row, column = rng.integers(60, 700, size=2)
        for step in range(10):
            image[row + step, column + step : column + step + 2] += 0.12
    return (image.clip(0, 1) * 255).astype(np.uint8)


train = [photograph() for _ in range(12)]
good = [photograph() for _ in range(4)]
bad = [photograph(scratched=True) for _ in range(4)]

# %%
# Made small, and in tiles
# ------------------------

settings = {"contamination": 0.1, "random_state": 0}
small = PadimDetector("filter_bank", **settings).fit(train)
tiles = PadimDetector(
    "filter_bank", image_size=SIZE, tile_size=256, **settings
).fit(train)
for name, detector in (("256 x 256", small), ("in tiles", tiles)):
    flagged, found = (np.sum(detector.predict(X) == -1) for X in (good, bad))
    print(
        f"{name:10} good flagged {flagged} of 4, scratches found {found} of 4"
    )

# %%
# There is one map of the whole image.

AnomalyMapDisplay.from_estimator(tiles, bad[:2])
plt.show()
