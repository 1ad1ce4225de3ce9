"""
Metrics of any detector's maps
==============================

The metrics take arrays, whoever made them. Here two maps that need no network are
compared: the distance to the mean picture, and the error of a reconstruction by
principal components.
"""

# %%
# Two simple detectors
# --------------------

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.metrics import pixel_metrics
from skpadim.plotting import AnomalyMapDisplay, ProCurveDisplay

train = make_defects(60, 0, part="transistor", image_size=128, random_state=0)
new = make_defects(
    30, 30, part="transistor", difficulty=0.1, image_size=128, random_state=1
)


def flat(images):
    return images.reshape(len(images), -1) / 255


def as_maps(errors):
    """Squared errors of all pixels to smooth maps."""
    errors = (errors**2).reshape(new.data.shape).sum(axis=3)
    return gaussian_filter(np.sqrt(errors), (0, 2, 2)).astype(np.float32)


pca = PCA(n_components=20, random_state=0).fit(flat(train.data))
rebuilt = pca.inverse_transform(pca.transform(flat(new.data)))
maps = {
    "mean picture": as_maps(flat(new.data) - flat(train.data).mean(axis=0)),
    "PCA": as_maps(flat(new.data) - rebuilt),
}

# %%
# And skpadim's own, for comparison.

detector = PadimDetector("filter_bank", image_size=128, random_state=0)
detector.fit(train.data)
maps["PaDiM"] = detector.anomaly_map(new.data)

# %%
# All metrics at once
# -------------------
# Exact, from one count. The masks are those of the generated parts.

table = pd.DataFrame(
    {name: pixel_metrics(new.masks, m) for name, m in maps.items()}
)
shown = [
    "image_roc_auc",
    "pixel_roc_auc",
    "pixel_average_precision",
    "aupro_0.3",
]
table.T[shown].round(3)

# %%
# The PRO curve gives each region the same weight, however large it is; pixels' AUROC is
# that of the large ones.

axis = None
for name, each in maps.items():
    display = ProCurveDisplay.from_predictions(
        new.masks, each, name=name, ax=axis, plot_chance_level=name == "PaDiM"
    )
    axis = display.ax_

# %%
# Maps of another detector in pictures
# ------------------------------------
# The threshold is the level that 19 in 20 of the good new parts stay below. (In
# earnest, take other good parts for that.)

highest = maps["PCA"].max(axis=(1, 2))[new.target == 1]
AnomalyMapDisplay.from_predictions(
    new.data,
    maps["PCA"],
    threshold=float(np.quantile(highest, 0.95)),
    y=new.target,
    masks=new.masks,
    max_images=8,
)
plt.show()
# sphinx_gallery_thumbnail_number = 2
