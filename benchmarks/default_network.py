"""The default network, EfficientNet-Lite0, beside anomalib's model of the same through timm.

Usage: python benchmarks/default_network.py [--runs 3] [--images 64]

256 x 256, float32, the same two layers and all of their 152 features, images already decoded. The
peers have random weights and get normalised tensors; we get 8-bit arrays. Our fit includes the
leave-one-out threshold; anomalib's has none. OpenVINO runs anomalib's model in batches of 32
(LATENCY hint) and as single images at once (THROUGHPUT hint), and one image under the LATENCY hint.
"""

from __future__ import annotations

import numpy as np
from _peers import OpenVinoPadim, fit_anomalib, normalise, score_anomalib
from _setting import print_setting
from _timing import alternate, parse_arguments, print_header, print_row, spread

from skpadim import PadimDetector

NETWORK, LAYERS, N_FEATURES = "tf_efficientnet_lite0", ["blocks.2", "blocks.4"], 152
N_ALONE = 16


def main():
    options = parse_arguments(__doc__, runs=3, images=64)
    print_setting("skpadim", "anomalib", "openvino", "timm")
    print(f"{options.runs} alternating runs, median (min to max)")
    images = np.random.default_rng(0).integers(0, 256, (options.images, 256, 256, 3), np.uint8)
    tensors = normalise(images)

    def fit_theirs():
        return fit_anomalib(tensors, NETWORK, layers=LAYERS, n_features=N_FEATURES)

    detector, theirs = PadimDetector(random_state=0).fit(images), fit_theirs()
    openvino, few = OpenVinoPadim(theirs, tensors[:1]), tensors[:N_ALONE]

    def score_alone():
        for index in range(N_ALONE):
            detector.score_samples(images[index : index + 1])

    print_header("work", "by", "images/s")
    for work, sides in {
        "score in batches": {
            "skpadim": lambda: detector.score_samples(images),
            "anomalib": lambda: score_anomalib(theirs, tensors),
            "OpenVINO, batches of 32": openvino.latency("f32", tensors, 32),
            "OpenVINO, single images at once": openvino.throughput("f32", tensors),
        },
        "score one image at a time": {
            "skpadim": score_alone,
            "anomalib": lambda: score_anomalib(theirs, few, batch_size=1),
            "OpenVINO": openvino.latency("f32", few, 1),
        },
        "fit": {
            "skpadim": lambda: PadimDetector(random_state=0).fit(images),
            "anomalib": fit_theirs,
        },
    }.items():
        n_images = N_ALONE if "one" in work else len(images)
        for side, seconds in alternate(sides, options.runs).items():
            print_row(work, side, spread(n_images / seconds))


if __name__ == "__main__":
    main()
