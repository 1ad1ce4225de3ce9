"""Which backbone for my parts: accuracy on photographs, speed, and size of the model.

Usage: python benchmarks/backbones.py [CATEGORY_FOLDER] [--runs 3]

The folder is laid out as a category of MVTec AD. The whole image at 256 x 256 pixels, all else by
default; resnet18 has random weights, where its ImageNet weights are not on the machine. AUPRO has
the limit 0.3. Speeds are those of 64 decoded images, and of one, the best of the runs, in turn.
"""

from __future__ import annotations

import argparse
import pickle
import time
from pathlib import Path

import numpy as np
from _setting import print_setting, read_category
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.images._masks import read_mask
from skpadim.metrics import aupro_score
from skpadim.metrics._geometry import Window

BACKBONES = {
    "filter_bank": {},
    "efficientnet_lite0": {},
    "efficientnet_lite0+filter_bank": {},
    "resnet18": {"weights": None},
}
WHOLE = Window((256, 256), (0, 0), (256, 256))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    options = parser.parse_args()
    print_setting("skpadim")
    images = np.random.default_rng(0).integers(0, 256, (64, 256, 256, 3), dtype=np.uint8)
    speeds = {name: [] for name in options.backbones}
    sizes = {}
    for _ in range(options.runs + 1):
        for name in options.backbones:
            detector = make_detector(name)
            fit = seconds(lambda: detector.fit(images))  # noqa: B023
            score = seconds(lambda: detector.score_samples(images))  # noqa: B023
            one = min(seconds(lambda: detector.score_samples(images[:1])) for _ in range(10))  # noqa: B023
            speeds[name].append((fit, score, one))
            sizes[name] = len(pickle.dumps(detector))
    print("\n| backbone | features | image AUROC | AUPRO | fit | score | one image | model |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.backbones:
        fit, score, one = np.min(speeds[name][1:], axis=0)
        detector, accuracy = measure_accuracy(name, options.root)
        print(
            f"| `{name}` | {detector.embedder_.n_features_out_} | {accuracy} | {64 / fit:.0f}/s "
            f"| {64 / score:.0f}/s | {1000 * one:.1f} ms | {sizes[name] / 2**20:.0f} MiB |",
            flush=True,
        )


def make_detector(name):
    return PadimDetector(name, random_state=42, **BACKBONES.get(name, {}))


def measure_accuracy(name, root):
    """The fitted detector, and the cells of image AUROC and AUPRO."""
    if root is None:
        images = np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
        return make_detector(name).fit(images), " | "
    train, test = read_category(root)
    detector = make_detector(name).fit(train)
    maps = detector.anomaly_map(test["path"])
    masks = np.zeros(maps.shape, dtype=bool)
    for index, path in enumerate(test["mask"]):
        if path is not None:
            masks[index] = WHOLE.crop_mask(read_mask(path, index))
    defective = (test["kind"] != "good").to_numpy()
    image_auroc = roc_auc_score(defective, maps.max(axis=(1, 2)))
    return detector, f"{image_auroc:.3f} | {aupro_score(masks, maps):.3f}"


def seconds(work):
    """Time that a work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
