"""Images per second that this machine's arithmetic and memory allow, beside what is reached.

Usage: python benchmarks/limits.py [--runs 5] [--images 64] [--train 100]

The arithmetic is that of a product of matrices of 2048 x 2048, the memory that of a copy of
256 MiB, both measured in the same rounds as the networks; the best of the rounds counts. On a
machine that others use, too, a share above 1 says that the peak was disturbed. Operations and
bytes are those of the network up to layer3 for an image of 256 x 256. Reached is `score_samples`
in batches of 32 on decoded images: the network, the Gaussians and the map.
"""

from __future__ import annotations

import numpy as np
import torch
from _limits import copy, count_work, matrix_product
from _setting import print_setting
from _timing import alternate, parse_arguments, print_header, print_row, spread

from skpadim import PadimDetector

BACKBONES = ("resnet18", "wide_resnet50_2")
PRECISIONS = ("float32", "bfloat16")
SIZE = 256


def main():
    options = parse_arguments(__doc__, runs=5, images=64, train=100)
    print_setting("skpadim", "torchvision")
    works, amounts = {}, {}
    for precision in PRECISIONS:
        works[precision], amounts[precision] = matrix_product(
            getattr(torch, precision), "cpu", 2048
        )
    works["copy"], amounts["copy"] = copy("cpu", 2**28)
    n_images = max(options.images, options.train)
    images = np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE, 3), dtype=np.uint8)
    settings = {"weights": None, "crop_size": None, "random_state": 0}
    for backbone in BACKBONES:
        for precision in PRECISIONS:
            detector = PadimDetector(backbone, precision=precision, **settings)
            detector.fit(images[: options.train])
            works[backbone, precision] = lambda d=detector: d.score_samples(
                images[: options.images]
            )
    seconds = alternate(works, options.runs)
    # A limit is what the machine can do when nothing is in the way: the best of the rounds.
    peaks = {name: amount / seconds[name].min() for name, amount in amounts.items()}
    print_header("work", "best", "median (min to max)")
    for name, amount in amounts.items():
        unit = "GB/s" if name == "copy" else "GFLOP/s"
        rates = spread(amount / seconds[name] / 1e9)
        print_row(name, f"{peaks[name] / 1e9:.1f} {unit}", rates)
    print_header(
        "network", "precision", "GFLOP an image", "MB an image", "images/s by operations",
        "images/s by bytes", "reached, images/s", "best over the lower limit",
    )  # fmt: skip
    for backbone in BACKBONES:
        for precision in PRECISIONS:
            n_operations, n_bytes = count_work(backbone, SIZE, getattr(torch, precision).itemsize)
            limits = peaks[precision] / n_operations, peaks["copy"] / n_bytes
            reached = options.images / seconds[backbone, precision]
            print_row(
                backbone,
                precision,
                f"{n_operations / 1e9:.2f}",
                f"{n_bytes / 1e6:.0f}",
                *(f"{limit:.0f}" for limit in limits),
                spread(reached),
                f"{reached.max() / min(limits):.2f}",
            )


if __name__ == "__main__":
    main()
