"""Accuracy with few training images, by what positions share; and with a chosen regularization.

Usage: python benchmarks/few_images.py [CATEGORY_FOLDER] [--backbone filter_bank] [--draws 2]
       [--only sharing]

Generated parts and textures, and real photographs where a folder of them is given, laid out as a
category of MVTec AD. Whole images of 256 x 256 pixels, each embedded once, networks with random
weights; the training images are drawn anew, and figures are means over the draws. AUPRO has the
limit 0.3.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _setting import print_setting, read_category, read_masks
from _timing import print_header, print_row
from sklearn.metrics import roc_auc_score
from torch import from_numpy

from skpadim import PatchEmbedder, PatchGaussian
from skpadim._anomaly_map import anomaly_maps
from skpadim.datasets import make_defects
from skpadim.metrics import aupro_score

PARTS = ("disc", "transistor", "fabric")
COUNTS = (1, 2, 4, 8, 16)
SHARING = ("position", "neighbourhood", "image")
MANY = (8, 30, 300)
REGULARIZATIONS = (0.01, "auto")
N_TEST = 80  # half of them good
SIZE, SIGMA = 256, 4.0


def make_part(part):
    """Training images, test images, which are defective, and masks."""
    train = make_defects(60, 0, part=part, difficulty=0.6, random_state=1)
    n = N_TEST // 2
    test = make_defects(n, n, part=part, difficulty=0.6, random_state=2)
    return train.data, test.data, test.target == -1, test.masks


def read_photographs(root):
    train, test = read_category(root)
    good = test["kind"] == "good"
    test = test.groupby(good, group_keys=False).sample(N_TEST // 2, random_state=0)
    masks = read_masks(test["mask"].where(test["kind"] != "good", None), SIZE, SIZE)
    return train, list(test["path"]), (test["kind"] != "good").to_numpy(), masks


def figures_of(embedder, gaussian, new, defective, masks):
    """Image AUROC and AUPRO."""
    distances = from_numpy(gaussian.mahalanobis(new))
    maps = anomaly_maps(distances, embedder.input_size_, SIGMA).numpy()
    return roc_auc_score(defective, maps.max(axis=(1, 2))), aupro_score(masks, maps)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--backbone", default="filter_bank")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--only", choices=("sharing", "regularization"), help="one table of two")
    options = parser.parse_args()
    print_setting("skpadim")
    weights = "imagenet" if options.backbone == "filter_bank" else None
    embedder = PatchEmbedder(
        options.backbone, weights=weights, image_size=SIZE, crop_size=None, random_state=42
    )
    print(f"{options.backbone}, {options.draws} draws; image AUROC / AUPRO")
    data = dict.fromkeys(PARTS, make_part)
    if options.root:
        data[options.root.name] = lambda _: read_photographs(options.root)
    chosen_rows = []
    if options.only != "regularization":
        print_header("images", "training images", *(f"sharing: {sharing}" for sharing in SHARING))
    for name, make in data.items():
        train, test, *truth = make(name)
        embedder.fit(train)
        known, new = embedder.transform(train), embedder.transform(test)

        def cell(n, known=known, new=new, truth=truth, **parameters):
            draws = []
            for draw in range(options.draws):
                chosen = np.random.default_rng(draw).permutation(len(known))[:n]
                gaussian = PatchGaussian(calibration=None, **parameters).fit(known[chosen])
                draws.append((*figures_of(embedder, gaussian, new, *truth), gaussian))
            auroc, aupro = np.mean([each[:2] for each in draws], axis=0)
            return f"{auroc:.3f} / {aupro:.3f}", draws[0][2].regularization_

        for n in COUNTS if options.only != "regularization" else ():
            cells = (
                "none" if n == 1 and sharing == "position" else cell(n, sharing=sharing)[0]
                for sharing in SHARING
            )
            print_row(name, n, *cells)
        counts = sorted({min(n, len(known)) for n in MANY})
        for n in counts if options.only != "sharing" else ():
            of_paper, chosen = (cell(n, regularization=each) for each in REGULARIZATIONS)
            chosen_rows.append((name, n, of_paper[0], chosen[0], f"{chosen[1]:.2g}"))
    if chosen_rows:
        print_header("images", "training images", *map(str, REGULARIZATIONS), "chosen")
    for row in chosen_rows:
        print_row(*row)


if __name__ == "__main__":
    main()
