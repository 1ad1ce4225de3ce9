"""
The two halves in a pipeline
============================

:class:`~skpadim.PatchEmbedder` makes features of images, and
:class:`~skpadim.PatchGaussian` learns what is normal in them. In a pipeline there is
room for steps of your own between the two.
"""

# %%
# Images, embeddings, distances
# -----------------------------

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skpadim import PatchEmbedder, PatchGaussian
from skpadim.datasets import make_defects
from skpadim.plotting import (
    AnomalyMapDisplay,
    PatchGaussianDisplay,
    ScoreHistogramDisplay,
)

train = make_defects(60, 0, part="capsule", image_size=128, random_state=0)
new = make_defects(
    20, 20, part="capsule", difficulty=0.2, image_size=128, random_state=1
)
embedder = PatchEmbedder("filter_bank", image_size=128, random_state=0)
gaussian = PatchGaussian(calibration="leave_one_out", contamination=0.05)
plain = make_pipeline(embedder, gaussian).fit(train.data)
embeddings = plain[:-1].transform(new.data)
print("embeddings:", embeddings.shape)
print("distances: ", plain[-1].mahalanobis(embeddings).shape)

# %%
# What it has learned
# -------------------
# Where good parts vary, at the ends and edges of the capsule, the model is lax;
# elsewhere it is strict. At the marked place it expects these values of the features.

PatchGaussianDisplay.from_estimator(plain)

# %%
# A step between
# --------------
# Mean over two by two places: a coarser grid, a quarter of the model, and what is small
# is blurred.


def pool(embeddings):
    """Halve the grid (n_samples, height, width, n_features)."""
    n, height, width, n_features = embeddings.shape
    blocks = embeddings.reshape(n, height // 2, 2, width // 2, 2, n_features)
    return np.ascontiguousarray(blocks.mean(axis=(2, 4)))


gaussian = PatchGaussian(calibration="leave_one_out", contamination=0.05)
pooled = make_pipeline(embedder, FunctionTransformer(pool), gaussian).fit(
    train.data
)
pipelines = {"plain": plain, "pooled": pooled}
figure, axes = plt.subplots(2, 1, figsize=(7, 6), layout="constrained")
for axis, (name, pipeline) in zip(axes, pipelines.items(), strict=True):
    display = ScoreHistogramDisplay.from_estimator(
        pipeline, new.data, new.target, ax=axis
    )
    auroc = roc_auc_score(new.target, display.scores)
    axis.set_title(f"{name}: image AUROC {auroc:.3f}")

# %%
# Maps
# ----
# A pipeline scores images, and makes no maps: those are the distances of the last step,
# a number a place. (:class:`~skpadim.PadimDetector` enlarges and smooths them.)

distances = pooled[-1].mahalanobis(pooled[:-1].transform(new.data))
AnomalyMapDisplay.from_predictions(
    new.data,
    distances,
    threshold=-pooled[-1].offset_,
    y=new.target,
    masks=new.masks,
    max_images=8,
)
plt.show()
# sphinx_gallery_thumbnail_number = 3
