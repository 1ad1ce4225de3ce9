"""
Choosing layers with a grid search
==================================

Which layers of the network, and how much regularisation? With a few labelled defects
at hand, scikit-learn's own tools answer that.
"""

# %%
# Labels are +1 for good and -1 for defective parts, as for scikit-learn's other outlier
# detectors. ``NormalFold`` trains each fold on good parts only, and tests it on its
# share of the others and of the defects.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.model_selection import NormalFold

parts = make_defects(n_good=45, n_defective=12, image_size=128, random_state=0)

# %%
# Every backbone has ``layer1`` to ``layer3``, from fine to coarse.

choices = [("layer1",), ("layer1", "layer2"), ("layer1", "layer2", "layer3")]
search = GridSearchCV(
    PadimDetector("filter_bank", image_size=128, random_state=0),
    {"layers": choices, "regularization": [0.01, 0.1]},
    cv=NormalFold(3, shuffle=True, random_state=0),
    scoring="roc_auc",
).fit(parts.data, parts.target)

table = pd.DataFrame(search.cv_results_)[
    [
        "param_layers",
        "param_regularization",
        "mean_test_score",
        "std_test_score",
    ]
]
table.round(3)

# %%
# The best one has been fitted again, on all good parts: ``fit`` leaves out what is
# labelled -1.

detector = search.best_estimator_
print(search.best_params_, "threshold", round(float(detector.offset_), 2))

# %%
# Bars are one standard deviation over the folds, of four defects each. The weaker
# regularisation is better throughout; the layers differ by no more than the bars are
# long, and where they tie, fewer of them are faster.

figure, axis = plt.subplots(layout="constrained")
for shift, (regularization, marker) in enumerate(((0.01, "o"), (0.1, "s"))):
    rows = table[table.param_regularization == regularization]
    axis.errorbar(
        np.arange(len(rows)) + 0.1 * shift,
        rows.mean_test_score,
        rows.std_test_score,
        marker=marker,
        linestyle="none",
        capsize=4,
        label=f"regularization={regularization}",
    )
axis.set_xticks(range(len(choices)), [" + ".join(layers) for layers in choices])
axis.set(ylabel="image AUROC")
axis.legend()
plt.show()
