"""
Learning as parts come in
=========================

``partial_fit`` adds images to a model, as if all had been given to one ``fit``. What is
kept does not grow with their number.
"""

# %%
# A first lot
# -----------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.plotting import PatchGaussianDisplay, ScoreHistogramDisplay

parts = make_defects(160, 0, image_size=96, random_state=0)
held_out = make_defects(120, 0, image_size=96, random_state=2)
new = make_defects(120, 40, difficulty=0.2, image_size=96, random_state=1)
detector = PadimDetector(
    "filter_bank", image_size=96, contamination=0.05, random_state=0
)

# %%
# Lot by lot
# ----------
# The threshold belongs to the model, and goes when that changes. Parts that were held
# out set it anew.

counts, found, flagged, ranked = [], [], [], []
for lot in np.split(parts.data, 8):
    detector.partial_fit(lot)
    detector.calibrate(held_out.data)
    scores = detector.score_samples(new.data)
    labels = np.where(scores >= detector.offset_, 1, -1)
    counts.append(detector.n_samples_seen_)
    found.append((labels[new.target == -1] == -1).mean())
    flagged.append((labels[new.target == 1] == -1).mean())
    ranked.append(roc_auc_score(new.target, scores))
    print(
        f"{counts[-1]:3} images: AUROC {ranked[-1]:.3f}, "
        f"{found[-1]:.0%} of the defects found, "
        f"{flagged[-1]:.0%} of the good parts flagged"
    )

# %%
# The same model as by one fit
# ----------------------------

whole = PadimDetector("filter_bank", image_size=96, random_state=0).fit(
    parts.data
)
difference = np.abs(whole.score_samples(new.data) / scores - 1).max()
print(f"largest difference of a score: {difference:.1e} of it")

# %%
# More images, better ranks
# -------------------------
# Whatever the model, no more than the 5 % asked for of the good parts are flagged,
# since the parts that set the threshold were held out.

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.plot(counts, ranked, "o-", label="image AUROC")
axis.plot(counts, found, "s--", label="defects found")
axis.plot(counts, flagged, "^:", label="good parts flagged (5 % asked for)")
axis.set(xlabel="images learned from", ylim=(0, 1))
axis.legend()

# %%
ScoreHistogramDisplay.from_estimator(detector, new.data, new.target)

# %%
# What it expects now, at the place where good parts vary most:

PatchGaussianDisplay.from_estimator(detector)
plt.show()
