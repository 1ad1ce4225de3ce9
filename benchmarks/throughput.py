"""Images per second of fit and score beside anomalib's torch model and the same in OpenVINO.

Usage: python benchmarks/throughput.py [--runs 5] [--images 128] [--fit-images 200]
                                       [--precisions float32 bfloat16]

resnet18, 256 x 256, random weights, images already decoded. The peers get normalised tensors; we
get 8-bit arrays, and normalise them as part of the work. Our fit includes the leave-one-out
threshold; anomalib's has none. anomalib computes in float32; OpenVINO runs anomalib's model in
our precision, in batches of 32 (LATENCY hint) and as single images at once (THROUGHPUT hint), of
which the quicker counts. One image at a time, it runs under the LATENCY hint.
"""

from __future__ import annotations

import numpy as np
from _peers import OpenVinoPadim, fit_anomalib, normalise, score_anomalib
from _setting import print_setting
from _timing import (
    alternate,
    parse_arguments,
    print_bars,
    print_header,
    print_row,
    quickest,
    spread,
    times_faster,
)

from skpadim import PadimDetector

# Ours, and OpenVINO's name of the same.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
# How many times faster we want to be.
FIT_BARS = {"float32": 3.5, "bfloat16": 6.5}
SCORE_BARS = {"float32": (3.5, 1.3), "bfloat16": (6.5, 1.4)}  # anomalib's, OpenVINO's
ONE_IMAGE_BAR = 1.3  # OpenVINO's
FILTER_BANK_BAR = 100  # images/s


def fit_ours(images, precision="float32", backbone="resnet18"):
    return PadimDetector(
        backbone,
        weights=None if backbone != "filter_bank" else "imagenet",
        crop_size=None,
        precision=precision,
        random_state=0,
    ).fit(images)


def score_one_by_one(score, images):
    for index in range(len(images)):
        score(images[index : index + 1])


def measure_scoring(ours, theirs, openvino, images, tensors, runs):
    works = {precision: lambda d=detector: d.score_samples(images) for precision, detector in ours}
    works["anomalib"] = lambda: score_anomalib(theirs, tensors)
    for precision, _ in ours:
        name = PRECISIONS[precision]
        works[f"{name}, LATENCY, batches of 32"] = openvino.latency(name, tensors, 32)
        works[f"{name}, THROUGHPUT, single images"] = openvino.throughput(name, tensors)
    return alternate(works, runs)


def measure_one_by_one(ours, theirs, openvino, images, tensors, runs):
    works = {
        precision: lambda d=detector: score_one_by_one(d.score_samples, images)
        for precision, detector in ours
    }
    works["anomalib"] = lambda: score_anomalib(theirs, tensors, batch_size=1)
    for precision, _ in ours:
        name = PRECISIONS[precision]
        works[f"{name}, LATENCY, one image"] = openvino.latency(name, tensors, 1)
    return alternate(works, runs)


def print_scoring(title, seconds, n_images):
    """Table of one way to score; returns how many times faster we are than each peer."""
    print(f"\n{title}, images/s")
    print_header("skpadim", "images/s", "anomalib", "ratio", "OpenVINO's best", "images/s", "ratio")
    ratios = {}
    for precision in (precision for precision in PRECISIONS if precision in seconds):
        name = PRECISIONS[precision]
        best = quickest(seconds, [way for way in seconds if way.startswith(f"{name},")])
        ratios[precision] = [times_faster(seconds[precision], seconds["anomalib"])]
        ratios[precision].append(times_faster(seconds[precision], seconds[best]))
        rates = [spread(n_images / seconds[side]) for side in (precision, "anomalib", best)]
        to_anomalib, to_openvino = (f"{ratio:.2f}" for ratio in ratios[precision])
        print_row(precision, rates[0], rates[1], to_anomalib, best, rates[2], to_openvino)
    return ratios


def print_fit(images, tensors, precisions, runs):
    works = {p: lambda p=p: fit_ours(images, p) for p in precisions}
    seconds = alternate(works | {"anomalib": lambda: fit_anomalib(tensors)}, runs)
    print(f"\nfit, {len(images)} images, images/s")
    print_header("skpadim", "images/s", "anomalib", "ratio")
    ratios = {p: times_faster(seconds[p], seconds["anomalib"]) for p in precisions}
    rates = {side: spread(len(images) / values) for side, values in seconds.items()}
    for precision, ratio in ratios.items():
        print_row(precision, rates[precision], rates["anomalib"], f"{ratio:.2f}")
    return ratios


def print_filter_bank(images, runs):
    bank = fit_ours(images, backbone="filter_bank")
    works = {
        "fit": lambda: fit_ours(images, backbone="filter_bank"),
        "score": lambda: bank.score_samples(images),
        "score, one image at a time": lambda: score_one_by_one(bank.score_samples, images[:16]),
    }
    seconds = alternate(works, runs)
    print_header("skpadim, filter bank, float32", "images/s")
    for work, values in seconds.items():
        print_row(work, spread((16 if "one" in work else len(images)) / values))
    return len(images) / np.median(seconds["score"])


def main():
    options = parse_arguments(__doc__, runs=5, images=128, fit_images=200, precisions=PRECISIONS)
    print_setting("skpadim", "anomalib", "openvino", "timm", "torchvision")
    print(f"{options.runs} alternating runs, median (min to max); ratio: median of the pairs")
    n_images = max(options.images, options.fit_images)
    images = np.random.default_rng(0).integers(0, 256, (n_images, 256, 256, 3), dtype=np.uint8)
    tensors = normalise(images)
    fit_images, fit_tensors = images[: options.fit_images], tensors[: options.fit_images]
    images, tensors = images[: options.images], tensors[: options.images]

    ours = [(precision, fit_ours(fit_images, precision)) for precision in options.precisions]
    theirs = fit_anomalib(tensors)
    openvino = OpenVinoPadim(theirs, tensors[:1])
    seconds = measure_scoring(ours, theirs, openvino, images, tensors, options.runs)
    score = print_scoring("score in batches of 32", seconds, len(images))
    few, few_tensors = images[:16], tensors[:16]
    seconds = measure_one_by_one(ours, theirs, openvino, few, few_tensors, options.runs)
    one = print_scoring("score one image at a time", seconds, len(few))
    fit = print_fit(fit_images, fit_tensors, options.precisions, options.runs)
    bank = print_filter_bank(images, options.runs)

    bars = []
    for precision in options.precisions:
        peers = zip(("anomalib", "OpenVINO"), score[precision], SCORE_BARS[precision], strict=True)
        for peer, ratio, bar in peers:
            bars.append((f"score, {precision}, times {peer}", ratio, ">=", bar))
        bars.append(
            (f"one image, {precision}, times OpenVINO", one[precision][1], ">=", ONE_IMAGE_BAR)
        )
        bars.append(
            (f"fit, {precision}, times anomalib", fit[precision], ">=", FIT_BARS[precision])
        )
    print_bars([*bars, ("filter bank, score, images/s", bank, ">=", FILTER_BANK_BAR)])


if __name__ == "__main__":
    main()
