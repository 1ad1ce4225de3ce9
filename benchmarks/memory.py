"""Peak memory of fit with 200 and with 2,000 images, each in a process of its own.

Usage: python benchmarks/memory.py

The images are PNG files, as on a user's disk, so that the array of images does not count.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from _setting import print_setting
from PIL import Image

BACKBONES = ("resnet18", "filter_bank")


def fit(folder, n_images, backbone):
    """Fit in this process and print its peak memory in MiB."""
    from skpadim import PadimDetector

    weights = None if backbone == "resnet18" else "imagenet"
    paths = sorted(Path(folder).iterdir())[:n_images]
    PadimDetector(backbone, weights=weights, random_state=0).fit(paths)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    print_setting("skpadim", "torchvision")
    rng = np.random.default_rng(0)
    print("\n| backbone | 200 images | 2,000 images | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for index in range(2000):
            pixels = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{index:04}.png", compress_level=0)
        for backbone in BACKBONES:
            peaks = [
                float(subprocess.check_output([sys.executable, __file__, folder, str(n), backbone]))
                for n in (200, 2000)
            ]
            cells = " | ".join(f"{peak:,.0f} MiB" for peak in peaks)
            print(f"| {backbone} | {cells} | {peaks[1] / peaks[0]:.3f} |", flush=True)


if __name__ == "__main__":
    main() if len(sys.argv) == 1 else fit(sys.argv[1], int(sys.argv[2]), sys.argv[3])
