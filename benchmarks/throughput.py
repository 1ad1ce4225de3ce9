"""Images per second of fit and score, beside anomalib's torch model called directly.

Usage: python benchmarks/throughput.py [--runs 5] [--images 128]

resnet18, 256 x 256, random weights, float32, images already decoded. anomalib gets normalised
tensors; we get 8-bit arrays, and normalise them as part of the work. Our fit includes the
leave-one-out threshold; anomalib's has none.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from _setting import print_setting
from anomalib.models.image.padim.torch_model import PadimModel

from skpadim import PadimDetector


def fit_ours(images, backbone="resnet18"):
    return PadimDetector(
        backbone,
        weights=None if backbone != "filter_bank" else "imagenet",
        crop_size=None,
        random_state=0,
    ).fit(images)


def fit_anomalib(tensors):
    model = PadimModel("resnet18", ["layer1", "layer2", "layer3"], pre_trained=False)
    model.train()
    model.feature_extractor.eval()
    for batch in tensors.split(32):
        model(batch)
    model.fit()
    return model.eval()


def score_anomalib(model, tensors, batch_size=32):
    with torch.no_grad():
        for batch in tensors.split(batch_size):
            model(batch)


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--images", type=int, default=128)
    options = parser.parse_args()
    n = options.images
    print_setting("skpadim", "anomalib", "timm", "torchvision")
    images = np.random.default_rng(0).integers(0, 256, (n, 256, 256, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tensors = ((torch.from_numpy(images) / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
    one, one_tensor = images[:1], tensors[:1]

    times = {}
    for run in range(options.runs + 1):  # the first is a warm-up
        row = {}
        row["fit", "ours"], ours = timed(fit_ours, images)
        row["fit", "anomalib"], theirs = timed(fit_anomalib, tensors)
        row["score", "ours"], _ = timed(ours.score_samples, images)
        row["score", "anomalib"], _ = timed(score_anomalib, theirs, tensors)
        row["score one image", "ours"], _ = timed(ours.score_samples, one)
        row["score one image", "anomalib"], _ = timed(score_anomalib, theirs, one_tensor)
        row["fit", "filter bank"], bank = timed(fit_ours, images, "filter_bank")
        row["score", "filter bank"], _ = timed(bank.score_samples, images)
        row["score one image", "filter bank"], _ = timed(bank.score_samples, one)
        for key, seconds in row.items():
            if run > 0:
                count = 1 if key[0] == "score one image" else n
                times.setdefault(key, []).append(count / seconds)

    print(f"\nimages/s, median of {options.runs} alternating runs (min to max), {n} images\n")
    columns = ("work", "skpadim resnet18", "anomalib resnet18", "ratio (median of pairs)")
    print(f"| {' | '.join(columns)} | skpadim filter bank |")
    print("|---|---|---|---|---|")
    for work in ("fit", "score", "score one image"):
        cells = [
            f"{np.median(times[work, side]):.1f} ({min(times[work, side]):.1f} to "
            f"{max(times[work, side]):.1f})"
            for side in ("ours", "anomalib", "filter bank")
        ]
        ratio = np.median(np.array(times[work, "ours"]) / np.array(times[work, "anomalib"]))
        print(f"| {work} | {cells[0]} | {cells[1]} | {ratio:.2f} | {cells[2]} |")


if __name__ == "__main__":
    main()
