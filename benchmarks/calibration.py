"""What the leave-one-out threshold adds to a fit.

Usage: python benchmarks/calibration.py [--runs 5]

Whole fits of decoded images of 256 x 256 pixels, default crop, random weights, with and without
the threshold: of fewer images than features, of as many as keep their embeddings in memory, and of
so many that they take a second pass through the network, for which no bar is set.
"""

from __future__ import annotations

import numpy as np
from _setting import print_setting
from _timing import alternate, parse_arguments, print_bars, print_header, print_row, spread

from skpadim import PadimDetector

WORKS = (("filter_bank", 60), ("filter_bank", 300), ("resnet18", 60), ("resnet18", 300))
SECOND_PASS = ("resnet18", 1000)  # more than 1 GiB of embeddings
BAR = 1.3


def fit(backbone, images, calibration):
    return PadimDetector(
        backbone,
        weights="imagenet" if backbone == "filter_bank" else None,
        calibration=calibration,
        random_state=0,
    ).fit(images)


def print_fits(backbone, n_images, runs):
    """Row of the table; returns how many times longer a fit takes with the threshold."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n_images, 256, 256, 3), dtype=np.uint8)
    ways = (None, "leave_one_out")
    works = {way: lambda way=way: fit(backbone, images, way) for way in ways}
    alone, with_threshold = alternate(works, runs).values()
    ratio = float(np.median(with_threshold / alone))
    print_row(backbone, n_images, spread(alone, 2), spread(with_threshold, 2), f"{ratio:.2f}")
    return ratio


def main():
    options = parse_arguments(__doc__, runs=5)
    print_setting("skpadim", "torchvision")
    print(f"{options.runs} alternating runs, median (min to max); ratio: median of the pairs")
    print_header("backbone", "images", "fit alone, s", "with the threshold, s", "ratio")
    ratios = {work: print_fits(*work, options.runs) for work in WORKS}
    print_fits(*SECOND_PASS, 1)
    print_bars(
        (f"{backbone}, {n_images} images", ratio, "<=", BAR)
        for (backbone, n_images), ratio in ratios.items()
    )


if __name__ == "__main__":
    main()
