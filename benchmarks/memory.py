"""Peak memory of fit with 200 and with 5,000 images, each in a process of its own.

Usage: python benchmarks/memory.py [--few 200] [--many 5000]

The images are PNG files, as on a user's disk, so that the array of images does not count.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from _processes import is_child, measure, run_child
from _setting import print_setting
from _timing import parse_arguments, print_bars, print_header, print_row
from PIL import Image

BACKBONES = ("resnet18", "filter_bank")
BAR = 1.05


def steps(folder, n_images, backbone):
    from skpadim import PadimDetector

    weights = None if backbone == "resnet18" else "imagenet"
    paths = sorted(Path(folder).iterdir())[: int(n_images)]
    detector = PadimDetector(backbone, weights=weights, random_state=0)
    yield "fit", lambda: detector.fit(paths)


def write_images(folder, n_images):
    rng = np.random.default_rng(0)
    for index in range(n_images):
        pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{folder}/{index:05}.png", compress_level=0)


def main():
    options = parse_arguments(__doc__, few=200, many=5000)
    numbers = (options.few, options.many)
    print_setting("skpadim", "torchvision")
    bars = []
    with tempfile.TemporaryDirectory() as folder:
        write_images(folder, max(numbers))
        print_header("backbone", *(f"{number:,} images" for number in numbers), "ratio")
        for backbone in BACKBONES:
            peaks = [measure(__file__, folder, number, backbone)["fit MiB"] for number in numbers]
            ratio = peaks[1] / peaks[0]
            print_row(backbone, *(f"{peak:,.0f} MiB" for peak in peaks), f"{ratio:.3f}")
            bars.append((f"{backbone}, many images over few", ratio, "<=", BAR))
    print_bars(bars)


if __name__ == "__main__":
    run_child(steps) if is_child() else main()
