"""Image AUROC, pixel AUROC and AUPRO on real photographs, per kind of defect.

Usage: python benchmarks/magnetic_tiles.py CATEGORY_FOLDER [--backbone filter_bank]
       [--crop-size 224] [--regularization 0.01]

A kind's figures are those of its images against the good test images. AUPRO has the limit 0.3.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _setting import print_setting, read_category, read_masks
from sklearn.metrics import roc_auc_score

from skpadim import PadimDetector
from skpadim.metrics import aupro_score, pixel_roc_auc_score


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--backbone", default="filter_bank")
    parser.add_argument("--crop-size", type=int, default=224)
    parser.add_argument("--regularization", type=float, default=0.01)
    options = parser.parse_args()
    print_setting("skpadim")
    train, test = read_category(options.root)
    detector = PadimDetector(
        options.backbone,
        weights=None if options.backbone != "filter_bank" else "imagenet",
        crop_size=options.crop_size,
        regularization=options.regularization,
        random_state=42,
    ).fit(train)
    maps = detector.anomaly_map(test["path"])
    scores, masks = maps.max(axis=(1, 2)), read_masks(test["mask"], 256, options.crop_size)
    flagged = scores > -detector.offset_
    print(f"{detector}\n{len(train)} training images\n")
    print("| kind | images | flagged | image AUROC | pixel AUROC | AUPRO |")
    print("|---|---|---|---|---|---|")
    kinds = [kind for kind in test["kind"].unique() if kind != "good"]
    good = (test["kind"] == "good").to_numpy()
    for kind in [*kinds, "all"]:
        defective = ~good if kind == "all" else (test["kind"] == kind).to_numpy()
        chosen = good | defective
        figures = (
            roc_auc_score(defective[chosen], scores[chosen]),
            pixel_roc_auc_score(masks[chosen], maps[chosen]),
            aupro_score(masks[chosen], maps[chosen]),
        )
        cells = " | ".join(f"{figure:.3f}" for figure in figures)
        print(f"| {kind} | {defective.sum()} | {flagged[defective].sum()} | {cells} |")
    print(f"\ngood test images flagged: {flagged[good].sum()} of {good.sum()}")


if __name__ == "__main__":
    main()
