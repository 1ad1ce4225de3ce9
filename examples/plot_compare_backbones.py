"""
Comparing backbones
===================

Three ways to features that come with skpadim: the default network, the filter bank,
and both together. Which one suits depends on the parts.
"""

# %%
# Three kinds of parts
# --------------------
# Generated ones, and so of one style: measure on pictures of your own before you
# choose.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.metrics import evaluate
from skpadim.plotting import AnomalyMapDisplay

backbones = (
    "filter_bank",
    "efficientnet_lite0",
    "efficientnet_lite0+filter_bank",
)
rows, detectors = [], {}
for part in ("disc", "wood", "grid"):
    train = make_defects(40, 0, part=part, image_size=128, random_state=0)
    test = make_defects(20, 20, part=part, image_size=128, random_state=1)
    for backbone in backbones:
        detector = PadimDetector(backbone, image_size=128, random_state=0)
        detector.fit(train.data)
        values = evaluate(detector, test.data, test.target, test.masks)
        rows.append(
            {
                "part": part,
                "backbone": backbone,
                "image AUROC": values["image_roc_auc"],
                "AUPRO": values["aupro_0.3"],
            }
        )
        detectors[part, backbone] = detector
table = pd.DataFrame(rows).pivot(index="part", columns="backbone")
table.round(3)

# %%
# In a picture
# ------------
# With twenty good and twenty defective parts of each kind, differences of a few
# hundredths are chance. The network is ahead of the bank on all three; both together
# are no better than the network alone.

figure, axes = plt.subplots(
    1, 2, figsize=(10, 4), sharey=True, layout="constrained"
)
places = np.arange(len(table))
for axis, metric in zip(axes, ("image AUROC", "AUPRO"), strict=True):
    for shift, backbone in enumerate(backbones):
        axis.bar(
            places + 0.27 * (shift - 1),
            table[metric, backbone],
            width=0.25,
            label=backbone,
            color=("#56b4e9", "#d55e00", "#009e73")[shift],
            hatch=("", "///", "..")[shift],
            edgecolor="black",
        )
    axis.set(title=metric, ylim=(0.4, 1.0))
    axis.set_xticks(places, table.index)
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3
)

# %%
# What each of them sees
# ----------------------
# The worst eight of the last kind, by the bank and by the network.

for backbone in backbones[:2]:
    display = AnomalyMapDisplay.from_estimator(
        detectors["grid", backbone],
        test.data,
        test.target,
        test.masks,
        max_images=8,
    )
    display.figure_.suptitle(backbone)
plt.show()
