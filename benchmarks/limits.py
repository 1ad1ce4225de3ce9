"""Images per second that this machine's arithmetic and memory allow, beside what is reached.

Usage: python benchmarks/limits.py [--runs 5] [--images 64] [--train 100]

The arithmetic is that of a product of matrices of 2048 x 2048, the memory that of a copy of
256 MiB, both measured here; operations and bytes are those of the network up to layer3 for an
image of 256 x 256. Reached is `score_samples` in batches of 32 on decoded images: the network,
the Gaussians and the map.
"""

from __future__ import annotations

import numpy as np
import torch
from _limits import count_work, peak_bytes, peak_operations
from _setting import print_setting
from _timing import alternate, parse_arguments, print_header, print_row, spread

from skpadim import PadimDetector

BACKBONES = ("resnet18", "wide_resnet50_2")
PRECISIONS = ("float32", "bfloat16")
SIZE = 256


def main():
    options = parse_arguments(__doc__, runs=5, images=64, train=100)
    print_setting("skpadim", "torchvision")
    operations = {p: peak_operations(getattr(torch, p), "cpu", 2048) for p in PRECISIONS}
    bandwidth = peak_bytes("cpu", 2**28)
    print_header("peak", "measured")
    for precision, peak in operations.items():
        print_row(f"{precision}, matrix product", f"{peak / 1e9:,.0f} GFLOP/s")
    print_row("copy", f"{bandwidth / 1e9:.1f} GB/s")

    n_images = max(options.images, options.train)
    images = np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE, 3), dtype=np.uint8)
    settings = {"weights": None, "crop_size": None, "random_state": 0}
    print_header(
        "network", "precision", "GFLOP an image", "MB an image", "images/s by operations",
        "images/s by bytes", "reached, images/s", "share of the lower limit",
    )  # fmt: skip
    for backbone in BACKBONES:
        works = {}
        for precision in PRECISIONS:
            detector = PadimDetector(backbone, precision=precision, **settings)
            detector.fit(images[: options.train])
            works[precision] = lambda d=detector: d.score_samples(images[: options.images])
        seconds = alternate(works, options.runs)
        for precision in PRECISIONS:
            n_operations, n_bytes = count_work(backbone, SIZE, getattr(torch, precision).itemsize)
            limits = operations[precision] / n_operations, bandwidth / n_bytes
            reached = options.images / seconds[precision]
            print_row(
                backbone,
                precision,
                f"{n_operations / 1e9:.2f}",
                f"{n_bytes / 1e6:.0f}",
                *(f"{limit:.0f}" for limit in limits),
                spread(reached),
                f"{np.median(reached) / min(limits):.2f}",
            )


if __name__ == "__main__":
    main()
