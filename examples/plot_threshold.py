"""
A threshold that holds
======================

How many new good parts does a detector flag, where a share was asked for? Thresholds
are set from good images alone: from their leave-one-out scores, or, as is common
elsewhere, from the scores of the training images themselves.
"""

# %%
# Good parts only
# ---------------
# Their embeddings are computed once. Gaussians are then fitted to many random choices
# of them, and the parts that are left are new ones.

import warnings

import matplotlib.pyplot as plt
import numpy as np

from skpadim import PatchEmbedder, PatchGaussian
from skpadim.datasets import make_defects

parts = make_defects(n_good=360, n_defective=0, image_size=64, random_state=0)
embedder = PatchEmbedder(
    "filter_bank", image_size=64, layers=("layer2", "layer3")
)
embeddings = embedder.fit_transform(parts.data)
print(embeddings.shape)

# %%
# Flagged and asked for
# ---------------------
# The same model gets all thresholds: ``calibrate`` without samples sets another one
# from the scores that the fit has left.

asked_for = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3])
rng = np.random.default_rng(0)


def flagged(calibration, n_train, n_repetitions=8):
    """Share of new good parts that is flagged, for each share asked for."""
    shares = np.empty((n_repetitions, len(asked_for)))
    for row in shares:
        order = rng.permutation(len(embeddings))
        train, new = embeddings[order[:n_train]], embeddings[order[n_train:]]
        gaussian = PatchGaussian(
            calibration=calibration, contamination=0.5
        ).fit(train)
        for column, contamination in enumerate(asked_for):
            gaussian.set_params(contamination=contamination)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # 30 images are too few for 2 %
                gaussian.calibrate()
            row[column] = (gaussian.predict(new) == -1).mean()
    return shares.mean(axis=0)


figure, axis = plt.subplots(figsize=(6, 4.5), layout="constrained")
axis.plot(
    [0, 0.3], [0, 0.3], color="black", linewidth=1, label="what was asked for"
)
styles = {"leave_one_out": ("#0072b2", "-"), "training": ("#d55e00", "--")}
for n_train, marker in ((30, "o"), (100, "s"), (200, "^")):
    for calibration, (colour, line) in styles.items():
        shares = flagged(calibration, n_train)
        print(f"{n_train:3} images, {calibration:13}:", np.round(shares, 3))
        label = f"{calibration.replace('_', ' ')}, {n_train} images"
        axis.plot(
            asked_for, shares, line, color=colour, marker=marker, label=label
        )
axis.set(
    xlabel="share asked for",
    ylabel="share of new good parts that is flagged",
    ylim=(0, 1),
)
axis.legend(fontsize="small")
plt.show()
