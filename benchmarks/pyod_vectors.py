"""PyOD's detectors, on one vector an image, beside a Gaussian at each place of the image.

Usage: python benchmarks/pyod_vectors.py CATEGORY_FOLDER

The folder is laid out as a category of MVTec AD. All get the same network's features
(EfficientNet-Lite0, layer2 and layer4, 152 features); PyOD's detectors, with their defaults, get
their mean and their maximum over the image, standardised. Seconds are of fit and scores, without
those of the network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from _setting import print_setting, read_category
from pyod.models.ecod import ECOD
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from pyod.models.lof import LOF
from pyod.models.ocsvm import OCSVM
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from skpadim import PadimDetector, PatchEmbedder

DETECTORS = {
    "ECOD": ECOD(),
    "IForest": IForest(random_state=0),
    "KNN": KNN(),
    "LOF": LOF(),
    "OCSVM": OCSVM(),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    options = parser.parse_args()
    print_setting("skpadim", "pyod")
    train, test = read_category(options.root)
    embedder = PatchEmbedder(random_state=42).fit(train)
    scaler = StandardScaler().fit(vectors(embedder, train))
    train_vectors, test_vectors = (
        scaler.transform(vectors(embedder, paths)) for paths in (train, test["path"])
    )
    anomalous = test["kind"] != "good"
    print(f"\n{len(train)} images to learn from, {len(anomalous)} to score\n")
    print("| detector | image AUROC | tells where | seconds |")
    print("|---|---|---|---|")
    for name, detector in DETECTORS.items():
        start = time.perf_counter()
        scores = detector.fit(train_vectors).decision_function(test_vectors)
        seconds = time.perf_counter() - start
        print(f"| PyOD {name} | {roc_auc_score(anomalous, scores):.3f} | no | {seconds:.1f} |")
    detector = PadimDetector(random_state=42).fit(train)
    scores = -detector.score_samples(test["path"])
    print(f"| skpadim | {roc_auc_score(anomalous, scores):.3f} | yes | |")


def vectors(embedder, paths):
    """Mean and maximum of each feature over the image: (n_images, 2 * n_features)."""
    pooled = []
    for embeddings in embedder.iter_embeddings(list(paths)):
        pooled.append(np.hstack([embeddings.mean(dim=(1, 2)), embeddings.amax(dim=(1, 2))]))
    return np.concatenate(pooled)


if __name__ == "__main__":
    main()
