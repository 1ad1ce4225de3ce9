"""
A first detector
================

Learn from pictures of good parts, then find defects in new ones and show where they
are.
"""

# %%
# The pictures
# ------------
# Sixty good parts to learn from; new ones, half of them defective, to inspect.

import matplotlib.pyplot as plt
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.plotting import AnomalyMapDisplay, ScoreHistogramDisplay

train = make_defects(n_good=60, n_defective=0, random_state=0)
new = make_defects(n_good=15, n_defective=15, difficulty=0.2, random_state=1)

figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
for axis, index in zip(axes, (0, 15, 16, 17), strict=True):
    axis.imshow(new.data[index])
    axis.set(title=new.kinds[index], xticks=[], yticks=[])

# %%
# Fit and predict
# ---------------
# ``contamination`` is the share of new good parts that may be flagged by mistake.
# Labels follow scikit-learn: +1 is good, -1 anomalous.

detector = PadimDetector("filter_bank", contamination=0.05, random_state=0)
detector.fit(train.data)
labels = detector.predict(new.data)
print("good parts flagged:", (labels[new.target == 1] == -1).sum(), "of 15")
print("defects found:     ", (labels[new.target == -1] == -1).sum(), "of 15")

# %%
# Scores
# ------
# Higher is more normal. The threshold was set from the training images, each scored as
# by a model that had not seen it: the dashed outline.

scores = detector.score_samples(new.data)
print("image AUROC:", round(roc_auc_score(new.target, scores), 3))
ScoreHistogramDisplay.from_estimator(detector, new.data, new.target)

# %%
# Maps
# ----
# Where the anomaly is. Colours begin at the threshold, so what is good stays as it is.
# The worst come first. The masks are known, since the parts are generated.

AnomalyMapDisplay.from_estimator(
    detector, new.data, new.target, new.masks, max_images=20, n_columns=5
)
plt.show()
# sphinx_gallery_thumbnail_number = 3
