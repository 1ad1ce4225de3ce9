"""
Regions to ignore
=================

A label that is new in every image is no defect, but it is nothing that the detector has
seen before. With ``roi`` what lies outside of a region has no influence.
"""

# %%
# Capsules beside a label
# -----------------------
# A strip at the bottom of each photograph has a code of its own.

import matplotlib.pyplot as plt
import numpy as np

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.plotting import AnomalyMapDisplay

SIZE = 128
parts = make_defects(
    80, 20, part="capsule", difficulty=0.2, image_size=SIZE, random_state=0
)
rng = np.random.default_rng(0)
images = parts.data.copy()
for image in images:
    code = rng.integers(0, 2, size=(3, 24)) * 255
    image[108:120, 16:112] = code.repeat(4, axis=0).repeat(4, axis=1)[..., None]

good, bad = images[parts.target == 1], images[parts.target == -1]
train, new = good[:50], good[50:]

# %%
# With the label and without it
# -----------------------------
# The region is a polygon: corners (x, y) in pixels of the images.

corners = [(0, 0), (127, 0), (127, 103), (0, 103)]
whole = PadimDetector("filter_bank", image_size=SIZE, random_state=0).fit(train)
region = PadimDetector(
    "filter_bank", image_size=SIZE, roi=[corners], random_state=0
).fit(train)
for name, detector in (("whole image", whole), ("region", region)):
    flagged, found = (np.mean(detector.predict(X) == -1) for X in (new, bad))
    print(f"{name:12} good flagged {flagged:4.0%}, defects found {found:4.0%}")

# %%
# What is not inspected is hatched, and NaN in maps.

AnomalyMapDisplay.from_estimator(region, bad[:4])
plt.show()

# %%
# Another code changes nothing at all.

again = new.copy()
again[:, 108:120, 16:112] = 0
np.array_equal(region.score_samples(again), region.score_samples(new))
