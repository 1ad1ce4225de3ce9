"""Scoring large image files: decoding alone, the model alone, and both at once.

Usage: python benchmarks/decoding.py [--runs 5] [--images 96] [--size 1024]
                                     [--precisions float32 bfloat16]

resnet18, random weights, input of 256 x 256. The files hold generated parts of 1024 x 1024 pixels,
as PNG and as JPEG. Pillow alone opens and decodes the files, in as many threads, and throws the
pixels away; decoding alone makes batches of the input's size of them. If decoding alone and the
model alone each kept all cores busy, both together could do 1 / (1/a + 1/b) images per second; what
either leaves idle, the other can use, so a little more may be reached.
"""

from __future__ import annotations

import tempfile
from collections import deque
from pathlib import Path

import numpy as np
from _setting import print_setting
from _timing import alternate, parse_arguments, print_header, print_row, spread
from PIL import Image

from skpadim import PadimDetector
from skpadim.datasets import make_defects
from skpadim.images._batches import Images, image_batches, read_ahead

FORMATS = {"PNG": {}, "JPEG": {"quality": 90}}
INPUT = (256, 256)
BATCH_SIZE = 32


def write_parts(folder, n_images, size):
    """Paths by format. A few parts, turned and mirrored, make many files of real content."""
    parts = make_defects(-(-n_images // 8), 0, image_size=size, random_state=0).data
    paths = {name: [] for name in FORMATS}
    for index in range(n_images):
        turned = np.rot90(parts[index // 8], index % 4)
        image = Image.fromarray(np.ascontiguousarray(turned[:, :: 1 if index % 8 < 4 else -1]))
        for name, options in FORMATS.items():
            path = Path(folder) / f"{index:04}.{name.lower()}"
            image.save(path, name, **options)
            paths[name].append(path)
    return paths


def decode(paths):
    return image_batches(Images(paths), BATCH_SIZE, INPUT, None)


def load(path):
    with Image.open(path) as image:
        image.load()


def only_load(paths):
    return read_ahead(lambda index: load(paths[index]), len(paths), BATCH_SIZE)


def exhaust(batches):
    deque(batches, maxlen=0)


def fit(images, precision):
    return PadimDetector(
        "resnet18",
        weights=None,
        crop_size=None,
        batch_size=BATCH_SIZE,
        precision=precision,
        random_state=0,
    ).fit(images)


def measure(paths, precision, runs):
    """Images per second of each work in each run."""
    decoded = np.concatenate([b.permute(0, 2, 3, 1).numpy() for b in decode(paths["PNG"])])
    detector = fit(decoded, precision)
    works = {"model": lambda: detector.score_samples(decoded)}
    for name, files in paths.items():
        works[f"load {name}"] = lambda f=files: exhaust(only_load(f))
        works[f"decode {name}"] = lambda f=files: exhaust(decode(f))
        works[f"score {name}"] = lambda f=files: detector.score_samples(f)
    return {work: len(decoded) / seconds for work, seconds in alternate(works, runs).items()}


def main():
    options = parse_arguments(
        __doc__, runs=5, images=96, size=1024, precisions=("float32", "bfloat16")
    )
    print_setting("skpadim", "pillow", "torchvision")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_parts(folder, options.images, options.size)
        rates = {p: measure(paths, p, options.runs) for p in options.precisions}
    print(f"\n{options.images} files of {options.size} x {options.size}; images/s, median (range)")
    print_header(
        "files", "model", "Pillow alone", "a: decoding alone", "b: model alone",
        "1 / (1/a + 1/b)", "score of the files", "share (median of the runs)",
    )  # fmt: skip
    for precision in options.precisions:
        for name in FORMATS:
            loaded, decoded, model, reached = (
                rates[precision][work]
                for work in (f"load {name}", f"decode {name}", "model", f"score {name}")
            )
            bound = 1 / (1 / decoded + 1 / model)
            columns = map(spread, (loaded, decoded, model, bound, reached))
            print_row(name, precision, *columns, f"{np.median(reached / bound):.2f}")


if __name__ == "__main__":
    main()
