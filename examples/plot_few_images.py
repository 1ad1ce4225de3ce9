"""
Few images of a part that does not lie still
============================================

With eight pictures of good parts there is little to learn at each place, the less if
the part shifts and turns. ``sharing="neighbourhood"`` lets a place learn from those
around it.
"""

# %%
# Washers on a table, each at another place and angle.

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.metrics import aupro_score
from skpadim.plotting import AnomalyMapDisplay, PatchGaussianDisplay

train = make_defects(n_good=16, n_defective=0, random_state=0)
new = make_defects(n_good=25, n_defective=25, random_state=1)

# %%
# More and more images
# --------------------
# The threshold is left out (``calibration=None``), as only ranks are compared here.
# With ``memory`` each picture goes through the network once.

cache = tempfile.TemporaryDirectory()
counts = (4, 8, 16)
results, detectors = {}, {}
for sharing in ("position", "neighbourhood", "image"):
    results[sharing] = []
    for count in counts:
        detector = PadimDetector(
            "filter_bank",
            sharing=sharing,
            calibration=None,
            memory=cache.name,
            random_state=0,
        ).fit(train.data[:count])
        maps = detector.anomaly_map(new.data)
        image = roc_auc_score(new.target, -maps.max(axis=(1, 2)))
        region = aupro_score(new.masks, maps)
        results[sharing].append((image, region))
        detectors[sharing, count] = detector
        print(
            f"{sharing:13} {count:2} images: "
            f"AUROC {image:.3f}, AUPRO {region:.3f}"
        )

figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for sharing, style in zip(results, ("o-", "s--", "^:"), strict=True):
    for axis, values in zip(axes, np.transpose(results[sharing]), strict=True):
        axis.plot(counts, values, style, label=sharing)
for axis, name in zip(axes, ("image AUROC", "AUPRO"), strict=True):
    axis.set(xlabel="images to learn from", ylabel=name, xscale="log")
    axis.set_xticks(counts, counts)
    axis.minorticks_off()
axes[0].legend(title="sharing")

# %%
# One Gaussian for all places (``"image"``) is for textures. On a part it cannot tell
# what is normal in one place and a defect in another, and more images do not help.
#
# What eight images teach
# -----------------------
# Alone, each place has seen eight values of each feature, and the picture of where good
# parts vary is ragged. Neighbourhoods have seen up to seventy-two. They
# are laxer too, since what is around an edge differs from it.

for sharing in ("position", "neighbourhood"):
    display = PatchGaussianDisplay.from_estimator(
        detectors[sharing, 8], position=(8, 16)
    )
    display.figure_.suptitle(f"sharing={sharing!r}, eight images")

# %%
# What is found with a threshold
# ------------------------------
# Eight leave-one-out scores allow for a share of 1 in 9 flagged good parts, and no
# less.

detector = PadimDetector(
    "filter_bank",
    sharing="neighbourhood",
    contamination=1 / 9,
    random_state=0,
).fit(train.data[:8])
AnomalyMapDisplay.from_estimator(
    detector, new.data, new.target, new.masks, max_images=12, n_columns=6
)
plt.show()
# sphinx_gallery_thumbnail_number = 4
