"""Fit and score on a CUDA GPU, by network, precision and batch size.

Usage: python benchmarks/gpu.py [-o FILE.csv] [--runs 5] [--minutes 7.5]

Random weights, input of 256 x 256, images already decoded: a uint8 tensor (n, 3, 256, 256) on the
GPU, or in pinned host memory. "float32" has TF32 switched off everywhere, "tf32" on everywhere.
anomalib's torch model, where it is installed, gets float32 tensors on the GPU, and runs in turn
with ours. The limits are a measured product of matrices and a measured copy. What runs out of
memory is reported and the rest goes on; what does not fit the minutes is left out with a line.
Without a GPU the script says so and ends.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections import deque
from contextlib import nullcontext
from functools import partial

import numpy as np
import pandas as pd
import torch
from _limits import LAYERS, copy, count_work, matrix_product, synchronize
from _setting import print_setting
from _timing import alternate, print_header, print_row, spread
from sklearn.base import clone

from skpadim import PadimDetector
from skpadim._anomaly_map import anomaly_maps
from skpadim._images import Images
from skpadim.backbones import load_backbone

BACKBONES = ("resnet18", "wide_resnet50_2")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
HAS_ANOMALIB = importlib.util.find_spec("anomalib") is not None


class Record:
    """Rows of the table, printed and written as they come; and the time that is left."""

    def __init__(self, options):
        self.path, self.rows = options.output, []
        self.end = time.monotonic() + 60 * options.minutes

    def start(self, title, *columns):
        """Begin a table."""
        print(f"\n{title}")
        print_header(*columns, "result", "unit", "share of the limit")

    def add(self, section, labels, values, unit, limit=None, digits=1):
        """Add a row: several values (median and range are given), or why there are none."""
        row = {"section": section, "labels": " / ".join(map(str, labels)), "unit": unit}
        share = ""
        if isinstance(values, str):
            row["note"] = text = values
        else:
            text = spread(values, digits)
            row |= {"median": np.median(values), "min": np.min(values), "max": np.max(values)}
            if limit is not None:
                row |= {"limit": limit, "share": row["median"] / limit}
                share = f"{row['share']:.2f}"
        print_row(*labels, text, unit, share)
        self.rows.append(row)
        if self.path:
            pd.DataFrame(self.rows).to_csv(self.path, index=False)

    def attempt(self, section, labels, work):
        """What `work` returns, or None with a row that says why."""
        if time.monotonic() > self.end:
            self.add(section, labels, "left out: no time", "")
            return None
        try:
            return work()
        except (torch.OutOfMemoryError, MemoryError):
            self.add(section, labels, "out of memory", "")
        except RuntimeError as error:  # one configuration must not end the others
            self.add(section, labels, f"failed: {str(error).splitlines()[0]:.80}", "")
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return None


def set_precision(name: str) -> str:
    """Switch TF32 for all that follows; returns the detector's `precision`."""
    tf32 = name == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    return "float32" if tf32 else name


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, "float32" if name == "tf32" else name)


def make_images(n_images, options):
    shape = (n_images, 3, options.size, options.size)
    generator = torch.Generator(options.device).manual_seed(0)
    return torch.randint(256, shape, dtype=torch.uint8, device=options.device, generator=generator)


def make_detector(backbone, name, options, **parameters):
    return PadimDetector(
        backbone,
        weights=None,
        image_size=options.size,
        crop_size=None,
        precision=set_precision(name),
        device=options.device,
        random_state=0,
        **parameters,
    )


def normalised(images):
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None]
        for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    return (images / 255 - mean) / std


def measure_peaks(record, options):
    """Peaks of the device, by precision, and of its memory; best of the runs."""
    record.start("measured peaks", "work")
    peaks = {}
    size, n_bytes = (512, 2**24) if options.quick else (8192, 2**31)
    for name in PRECISIONS:
        set_precision(name)
        work, amount = matrix_product(dtype_of(name), options.device, size)
        rates = amount / alternate({"": work}, 10)[""] / 1e12
        peaks[name] = 1e12 * rates.max()
        record.add("peak", [f"{name}, matrix product"], rates, "TFLOP/s", digits=2)
    work, amount = copy(options.device, n_bytes)
    rates = amount / alternate({"": work}, 10)[""] / 1e9
    peaks["copy"] = 1e9 * rates.max()
    record.add("peak", ["copy on the device"], rates, "GB/s")
    return peaks


def limit_of(backbone, name, peaks, options):
    """Images/s that the network's operations and bytes allow."""
    n_operations, n_bytes = count_work(backbone, options.size, dtype_of(name).itemsize)
    return min(peaks[name] / n_operations, peaks["copy"] / n_bytes)


def print_scores(backbone, record, peaks, options):
    record.start(f"score, {backbone}", "side", "precision", "batch", "images in")
    for name in PRECISIONS:
        fit = partial(fitted_sides, backbone, name, options)
        sides = record.attempt("score", ["fit", name, "", ""], fit)
        if sides is None:
            continue
        limit = limit_of(backbone, name, peaks, options)
        for batch_size in options.batches:
            score = partial(score_rates, *sides, batch_size, options)
            rates = record.attempt("score", ["all", name, batch_size, ""], score) or {}
            for (side, where), values in rates.items():
                shown = [f"{side}, {backbone}", name, batch_size, where]
                record.add("score", shown, values, "images/s", limit)


def fitted_sides(backbone, name, options):
    """Our detector, and anomalib's model in the precisions that it has, with made-up matrices."""
    detector = make_detector(backbone, name, options, calibration=None)
    detector.fit(make_images(options.train, options))
    theirs = None
    if HAS_ANOMALIB and name in ("float32", "tf32"):
        from _peers import made_up_anomalib

        theirs = made_up_anomalib(backbone, detector.embedder_.grid_, options.device)
    return detector, theirs


def score_rates(detector, theirs, batch_size, options):
    n_images = 32 if batch_size == 1 else max(4 * batch_size, 256)
    n_images = 2 * batch_size if options.quick else n_images
    detector.set_params(batch_size=batch_size)
    images = make_images(n_images, options)
    works = {("skpadim", "device"): lambda: detector.score_samples(images)}
    if options.device == "cuda":
        pinned = images.cpu().pin_memory()
        works["skpadim", "pinned"] = lambda: detector.score_samples(pinned)
    if theirs is not None:
        from _peers import score_anomalib

        tensors = normalised(images)
        works["anomalib", "device"] = lambda: torch.cat(
            score_anomalib(theirs, tensors, batch_size)
        ).cpu()
    return {key: n_images / s for key, s in alternate(works, options.runs).items()}


def print_stages(backbone, record, options):
    """Time of each stage of scoring a batch; the whole is score_samples of as many images."""
    batch_size = options.batches[-2]
    record.start(f"stages of a score, {backbone}, batch of {batch_size}", "precision", "stage")
    for name in PRECISIONS:
        measure = partial(stage_times, backbone, name, batch_size, options)
        for stage, values in (record.attempt("stage", [name, ""], measure) or {}).items():
            record.add("stage", [name, stage], 1e3 * values, "ms a batch", digits=2)


@torch.no_grad()
def stage_times(backbone, name, batch_size, options):
    detector = make_detector(backbone, name, options, calibration=None, batch_size=batch_size)
    detector.fit(make_images(options.train, options))
    embedder, gaussian = detector.embedder_, detector.gaussian_
    device = torch.device(options.device)
    images = make_images(batch_size, options)
    network = load_backbone(backbone, None).cut(LAYERS).for_inference().to(device)
    pixels = normalised(images).to(memory_format=torch.channels_last)
    autocast = nullcontext()
    if detector.precision != "float32":
        autocast = torch.autocast(device.type, dtype_of(name))
    embeddings = embedder.embed(images, device)
    distances = gaussian.mahalanobis(embeddings)

    def run_network():
        with autocast:
            network(pixels, LAYERS)

    works = {
        "network": run_network,
        "embed": lambda: embedder.embed(images, device),
        "Gaussian: distances": lambda: gaussian.mahalanobis(embeddings),
        "map": lambda: anomaly_maps(distances, embedder.input_size_, 4.0),
    }
    times = event_seconds(works, options)
    whole = alternate({"": lambda: detector.score_samples(images)}, options.runs)[""]
    times["normalise and reduce (embed - network)"] = times.pop("embed") - times["network"]
    return times | {"whole, score_samples": whole}


def event_seconds(works, options):
    """As `alternate`, but seconds on the device, by events of its stream."""
    if options.device != "cuda":
        return alternate(works, options.runs)
    seconds = {name: [] for name in works}
    for run in range(options.runs + 1):
        for name, work in works.items():
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            work()
            last.record()
            synchronize("cuda")
            if run > 0:
                seconds[name].append(first.elapsed_time(last) / 1e3)
    return {name: np.array(values) for name, values in seconds.items()}


def print_fits(backbone, record, peaks, options):
    record.start(f"fit, {backbone}", "side", "precision", "images")
    for n_images in (options.fit, options.many):
        for name in ("bfloat16",) if n_images == options.many else PRECISIONS:
            labels = [f"skpadim, {backbone}", name, n_images]
            found = record.attempt(
                "fit", labels, partial(fit_times, backbone, name, n_images, options)
            )
            if found is not None:
                limit = limit_of(backbone, name, peaks, options)
                record.add("fit", labels, n_images / found.pop("fit"), "images/s", limit)
                for stage, values in found.items():
                    record.add("fit", [stage, *labels[1:]], values, "s", digits=3)
        if HAS_ANOMALIB:
            labels = [f"anomalib, {backbone}", "float32", n_images]
            fit = partial(fit_anomalibs, backbone, n_images, options)
            rates = record.attempt("fit", labels, fit)
            if rates is not None:
                record.add("fit", labels, rates, "images/s")


def runs_of(n_images, options):
    return 1 if n_images == options.many else options.runs


def fit_times(backbone, name, n_images, options):
    """Seconds of a fit and of its parts.

    What a fit without threshold takes beyond a new network and the embedding is the Gaussians';
    the threshold is what the whole fit takes beyond that, a second pass over the images included.
    """
    images = make_images(n_images, options)
    make = partial(make_detector, backbone, name, options, batch_size=options.batches[-2])
    embedder = make(calibration=None).fit(images[: options.train]).embedder_
    works = {
        "fit": lambda: make().fit(images),
        "without threshold": lambda: make(calibration=None).fit(images),
        "set-up": lambda: embed_all(clone(embedder).fit(), images[:1], options),
        "embedding": lambda: embed_all(embedder, images, options),
    }
    found = alternate(works, runs_of(n_images, options))
    bare = found.pop("without threshold")
    return found | {
        "Gaussians (the rest without threshold)": bare - found["set-up"] - found["embedding"],
        "threshold": found["fit"] - bare,
    }


def embed_all(embedder, images, options):
    deque(embedder.iter_embeddings(Images(images)), maxlen=0)
    synchronize(options.device)


def fit_anomalibs(backbone, n_images, options):
    from _peers import fit_anomalib

    set_precision("float32")
    tensors = normalised(make_images(n_images, options))

    def fit():
        fit_anomalib(tensors, backbone, options.batches[-2])
        synchronize(options.device)

    return n_images / alternate({"": fit}, runs_of(n_images, options))[""]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", help="CSV file for all rows")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=7.5, help="start nothing after these")
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA GPU here: nothing is measured.")
        return
    sizes = (256, (1, 32, 128, 512), 200, 1000, 10_000)
    if options.quick:
        sizes = (64, (1, 4, 8), 8, 12, 24)
    options.size, options.batches, options.train, options.fit, options.many = sizes
    print_setting("skpadim", "torchvision", "anomalib")
    print(f"{options.runs} runs, median (min to max); {options.many:,} images: one run")
    record = Record(options)
    peaks = measure_peaks(record, options)
    for backbone in BACKBONES:
        print_stages(backbone, record, options)
        print_scores(backbone, record, peaks, options)
    for backbone in BACKBONES:
        print_fits(backbone, record, peaks, options)


if __name__ == "__main__":
    main()
