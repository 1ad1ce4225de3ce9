"""
Choosing layers with a grid search
==================================

Which layers of the network, and how much regularisation? With a few labelled defects at hand,
scikit-learn's own tools answer that.
"""

# %%
# Labels are +1 for good and -1 for defective parts, as for scikit-learn's other outlier detectors.
# A detector takes every image that it is fitted on as good, whatever its label, so each fold is
# split here by hand: it trains on good parts only, and tests on the others and on the defects.

import pandas as pd
from sklearn.model_selection import GridSearchCV, KFold

from skpadim import PadimDetector
from skpadim.datasets import make_defects

parts = make_defects(n_good=45, n_defective=12, image_size=128, random_state=0)
good, defective = (parts.target == 1).nonzero()[0], (parts.target == -1).nonzero()[0]
folds = [
    (good[train], [*good[test], *defective])
    for train, test in KFold(3, shuffle=True, random_state=0).split(good)
]

# %%
# Every backbone has ``layer1`` to ``layer3``, from fine to coarse.

search = GridSearchCV(
    PadimDetector("filter_bank", image_size=128, crop_size=None, random_state=0),
    {
        "layers": [("layer1",), ("layer1", "layer2"), ("layer1", "layer2", "layer3")],
        "regularization": [0.01, 0.1],
    },
    cv=folds,
    scoring="roc_auc",
).fit(parts.data, parts.target)

table = pd.DataFrame(search.cv_results_)[
    ["param_layers", "param_regularization", "mean_test_score", "std_test_score"]
]
table.round(3)

# %%
# The best one has been fitted again on all images; the defects among them would be learned as
# good, so fit it on the good parts instead.

detector = search.best_estimator_.fit(parts.data[good])
print(search.best_params_, "threshold", round(detector.offset_, 2))
