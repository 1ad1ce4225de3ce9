"""
A first detector
================

Learn from pictures of good parts, then find defects in new ones and show where they are.
"""

# %%
# The pictures
# ------------
# Sixty good parts to learn from; new ones, half of them defective, to inspect.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.datasets import make_defects

train = make_defects(n_good=60, n_defective=0, random_state=0)
new = make_defects(n_good=15, n_defective=15, difficulty=0.2, random_state=1)

figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for axis, index in zip(axes, (0, 15, 16, 17), strict=True):
    axis.imshow(new.data[index])
    axis.set(title=new.kinds[index], xticks=[], yticks=[])

# %%
# Fit and predict
# ---------------
# ``contamination`` is the share of new good parts that may be flagged by mistake. Labels follow
# scikit-learn: +1 is good, -1 anomalous.

detector = PadimDetector("filter_bank", contamination=0.05, random_state=0).fit(train.data)
labels = detector.predict(new.data)
print("good parts flagged:", (labels[new.target == 1] == -1).sum(), "of 15")
print("defects found:     ", (labels[new.target == -1] == -1).sum(), "of 15")

# %%
# Scores
# ------
# Higher is more normal. The threshold was set from the training images, each scored as by a model
# that had not seen it.

scores = detector.score_samples(new.data)
print("image AUROC:", round(roc_auc_score(new.target, scores), 3))

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
bins = np.linspace(scores.min(), scores.max(), 25)
for kind in dict.fromkeys(new.kinds):
    axis.hist(scores[new.kinds == kind], bins, label=kind, alpha=0.7)
axis.axvline(detector.offset_, color="black", linestyle="--", label="threshold")
axis.set(xlabel="score", ylabel="images")
axis.legend()

# %%
# Maps
# ----
# Where the anomaly is: smoothed distances, higher is more anomalous.

maps = detector.anomaly_map(new.data)
figure, axes = plt.subplots(2, 4, figsize=(10, 5), layout="constrained")
for (top, bottom), index in zip(axes.T, (0, 15, 16, 17), strict=True):
    top.imshow(new.data[index][16:-16, 16:-16])  # the centre that is inspected
    shown = bottom.imshow(maps[index], cmap="inferno", vmin=0, vmax=-2 * detector.offset_)
    top.set(title=new.kinds[index], xticks=[], yticks=[])
    bottom.set(xticks=[], yticks=[])
figure.colorbar(shown, ax=axes[1], label="distance")
plt.show()
