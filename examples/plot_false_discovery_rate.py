"""
P-values and the false discovery rate
=====================================

A threshold bounds the share of *good* parts that are flagged. Where few parts are bad,
most of what it flags may be good. P-values bound the share of good parts *among the
flagged* instead.
"""

# %%
# Three hundred parts, of which twenty are bad
# --------------------------------------------
# The smallest p-value is 1 / (n + 1) for n training images, so that rare defects need
# many images to learn from. The pictures here are small, and quickly drawn.

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import false_discovery_control

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.plotting import AnomalyMapDisplay

train = make_defects(600, 0, part="bottle", image_size=64, random_state=0)
new = make_defects(
    280, 20, part="bottle", difficulty=0, image_size=64, random_state=1
)
detector = PadimDetector(
    "filter_bank", image_size=64, contamination=0.05, random_state=0
)
detector.fit(train.data)

# %%
# The p-value of a part is the share of good parts that look as odd as it does, or more.

p_values = detector.p_values(new.data)
defective = new.target == -1
print("smallest p-value:", p_values.min().round(5))

# %%
# Two ways to flag
# ----------------
# The procedure of Benjamini and Hochberg holds for such p-values: of what it flags, at
# most 10 % are good, on average over many such lots.

by_threshold = p_values <= 0.05
by_discovery = false_discovery_control(p_values, method="bh") <= 0.1
for how, flagged in (
    ("contamination 5 %", by_threshold),
    ("false discovery rate 10 %", by_discovery),
):
    wrong = (flagged & ~defective).sum()
    print(
        f"{how:26} {flagged.sum():3} flagged, {wrong} of them good "
        f"({wrong / max(1, flagged.sum()):.0%}); "
        f"{(flagged & defective).sum()} of 20 defects found"
    )

# %%
# P-values of good parts are spread over 0 to 1, as they should be. Those of defective
# ones pile up at 0. Sorted, all are flagged up to the last one below the line.

figure, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4), layout="constrained"
)
bins = np.linspace(0, 1, 21)
left.hist(p_values[~defective], bins, label="good", facecolor="#56b4e9")
left.hist(
    p_values[defective],
    bins,
    label="defective",
    facecolor="#d55e00",
    hatch="///",
)
left.set(xlabel="p-value", ylabel="parts")
left.legend()
order = np.argsort(p_values)[:50]
ranks = np.arange(1, 51)
for kind, marker, colour in ((False, "o", "#0072b2"), (True, "x", "#d55e00")):
    of_kind = defective[order] == kind
    right.plot(
        ranks[of_kind],
        p_values[order][of_kind],
        marker,
        color=colour,
        label="defective" if kind else "good",
    )
right.plot(ranks, 0.1 * ranks / 300, color="black", label="10 % of rank / 300")
right.axhline(0.05, color="black", linestyle="--", label="contamination 5 %")
right.set(xlabel="rank", ylabel="p-value")
right.legend()

# %%
# Parts that the threshold alone flags in error:

extra = np.flatnonzero(by_threshold & ~by_discovery & ~defective)
AnomalyMapDisplay.from_estimator(
    detector, new.data[extra], new.target[extra], max_images=4
)
plt.show()
