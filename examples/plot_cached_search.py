"""
A search with cached features
=============================

In a grid search the same image goes through the network again for every fold and
candidate. With ``memory`` it goes through once, and its features are kept in a folder.
"""

# %%
# Maps are what the search is for
# -------------------------------
# Masks reach the scorer of maps by scikit-learn's metadata routing.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import sklearn
from sklearn.model_selection import GridSearchCV

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.metrics import aupro_scorer
from skpadim.model_selection import NormalFold
from skpadim.plotting import AnomalyMapDisplay

parts = make_defects(40, 20, part="leather", image_size=128, random_state=0)
cache = tempfile.TemporaryDirectory()
sigmas, projections = (1.0, 2.0, 4.0, 8.0), ("random", "semi_orthogonal")
with sklearn.config_context(enable_metadata_routing=True):
    search = GridSearchCV(
        PadimDetector(
            "filter_bank",
            image_size=128,
            n_features=40,
            memory=cache.name,
            random_state=0,
        ),
        {"sigma": sigmas, "projection": projections},
        cv=NormalFold(4),
        scoring={
            "image": "roc_auc",
            "aupro": aupro_scorer.set_score_request(masks=True),
        },
        refit="aupro",
    ).fit(parts.data, parts.target, masks=parts.masks)

# %%
# Eight candidates in four folds are 32 fits. What is kept is the features of 60 images.

files = [path for path in Path(cache.name).rglob("*") if path.is_file()]
print(
    len(files),
    "files,",
    sum(file.stat().st_size for file in files) // 2**20,
    "MB",
)

# %%
# What is best for images, and what for maps
# ------------------------------------------
# Bars are one standard deviation over the folds, of five defects each. Images are
# ranked better by the semi-orthogonal projection and, if anything, with little
# smoothing. Maps hardly depend on either.

table = pd.DataFrame(search.cv_results_)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for axis, metric, title in zip(
    axes, ("image", "aupro"), ("image AUROC", "AUPRO"), strict=True
):
    for projection, style in zip(projections, ("o-", "s--"), strict=True):
        rows = table[table.param_projection == projection]
        axis.errorbar(
            np.array(sigmas) * (1.04 if style == "s--" else 1),
            rows[f"mean_test_{metric}"],
            rows[f"std_test_{metric}"],
            fmt=style,
            capsize=3,
            label=projection,
        )
    axis.set(xscale="log", xlabel="sigma (pixels)", title=title)
    axis.set_xticks(sigmas, sigmas)
    axis.minorticks_off()
axes[0].legend(title="projection")
print(search.best_params_)

# %%
# The best detector
# -----------------
# It is fitted on the good images. New ones need not be kept.

detector = search.best_estimator_.set_params(memory=None)
new = make_defects(8, 8, part="leather", image_size=128, random_state=1)
AnomalyMapDisplay.from_estimator(
    detector, new.data, new.target, new.masks, max_images=8
)
plt.show()
# sphinx_gallery_thumbnail_number = 2
