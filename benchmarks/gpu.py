"""Fit and score on a CUDA GPU, by network, precision and batch size.

Usage: python benchmarks/gpu.py [-o FILE.csv] [--runs 5] [--minutes 7.5]
                                [--backbones resnet18 wide_resnet50_2]

Random weights, input of 256 x 256, images already decoded: a uint8 tensor (n, 3, 256, 256) on the
GPU, or in the host's memory. "float32" has TF32 switched off everywhere, "tf32" on everywhere.
anomalib's torch model, where it can be imported, gets float32 tensors on the GPU, and runs in turn
with ours. The limits are a measured product of matrices and a measured copy. There are more
training images than features, so all have covariances of full rank.

What the bars are about comes first, in bfloat16. What fails is reported and the rest goes on; what
does not fit the minutes is left out with a line. Without a GPU the script says so and ends.
"""

from __future__ import annotations

import argparse
import time
from collections import deque
from contextlib import contextmanager
from functools import cache, partial
from unittest import mock

import numpy as np
import pandas as pd
import torch
from _limits import LAYERS, copy, count_work, matrix_product, synchronize
from _setting import print_setting
from _timing import alternate, print_bars, print_header, print_row, spread
from sklearn.base import clone

from skpadim import PadimDetector
from skpadim._anomaly_map import anomaly_maps
from skpadim._padim import map_maker
from skpadim.images._batches import Images
from skpadim.machine._devices import full_float32, resolve_device
from skpadim.streaming import _learning

try:
    import _peers
except Exception as error:  # it is not there, or something that it needs is not
    _peers = None
    print(f"without anomalib: {type(error).__name__}: {error}")

BACKBONES = ("resnet18", "wide_resnet50_2")
TARGETED, OTHERS = "bfloat16", ("float32", "tf32", "float16")
N_TRAIN = {"resnet18": 200, "wide_resnet50_2": 600}  # more than features
SCORE_BARS = {"resnet18": 15_000, "wide_resnet50_2": 3_000}  # images/s on an H200
ANOMALIB_BAR, GAUSSIAN_BAR = 4, 0.2  # times anomalib; share of a fit of many images


class Record:
    """Rows of the table, printed and written as they come; and the time that is left."""

    def __init__(self, options):
        self.path, self.rows, self.best = options.output, [], {}
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
            best = self.best.get((section, labels[0]), 0)
            self.best[section, labels[0]] = max(best, float(np.median(values)))
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
        except Exception as error:  # one configuration must not end the others
            text = " ".join(str(error).split())
            self.add(section, labels, f"failed: {type(error).__name__}: {text:.80}", "")
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
    for name in (TARGETED, *OTHERS):
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
    n_operations, n_bytes = work_of(backbone, options.size, dtype_of(name).itemsize)
    return min(peaks[name] / n_operations, peaks["copy"] / n_bytes)


work_of = cache(count_work)


def print_scores(backbone, names, record, peaks, options):
    record.start(f"score, {backbone}", "side", "precision", "batch", "images in")
    for name in names:
        fit = partial(fitted_sides, backbone, name, options)
        sides = record.attempt("score", ["fit", name, "", ""], fit)
        if sides is None:
            continue
        limit = limit_of(backbone, name, peaks, options)
        for batch_size in reversed(options.batches):
            score = partial(score_rates, *sides, batch_size, options)
            rates = record.attempt("score", ["all", name, batch_size, ""], score) or {}
            for (side, where), values in rates.items():
                shown = [f"{side}, {backbone}", name, batch_size, where]
                record.add("score", shown, values, "images/s", limit)


def fitted_sides(backbone, name, options):
    """Our detector, and anomalib's model with made-up matrices."""
    detector = make_detector(backbone, name, options, calibration=None)
    detector.fit(make_images(options.train[backbone], options))
    theirs = None
    if _peers is not None:
        theirs = _peers.made_up_anomalib(backbone, detector.embedder_.grid_, options.device)
    return detector, theirs


def score_rates(detector, theirs, batch_size, options):
    n_images = 32 if batch_size == 1 else max(4 * batch_size, 256)
    n_images = 2 * batch_size if options.quick else n_images
    detector.set_params(batch_size=batch_size)
    images = make_images(n_images, options)
    works = {("skpadim", "device"): lambda: detector.score_samples(images)}
    if options.device == "cuda":
        on_host = images.cpu()
        works["skpadim", "host"] = lambda: detector.score_samples(on_host)
    if theirs is not None:
        tensors = normalised(images)

        def score_theirs():
            # It computes in float32: beside our half precisions, with the TF32 that torch allows.
            before = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = detector.precision != "float32" or before
            torch.cat(_peers.score_anomalib(theirs, tensors, batch_size)).cpu()
            torch.backends.cudnn.allow_tf32 = before

        works["anomalib", "device"] = score_theirs
    return {key: n_images / s for key, s in alternate(works, options.runs).items()}


def print_stages(backbone, record, options):
    """Time of each stage of scoring a batch; the whole is score_samples of as many images."""
    batch_size = options.batches[-2]
    record.start(f"stages of a score, {backbone}, batch of {batch_size}", "precision", "stage")
    for name in (TARGETED, *OTHERS):
        measure = partial(stage_times, backbone, name, batch_size, options)
        for stage, values in (record.attempt("stage", [name, ""], measure) or {}).items():
            record.add("stage", [name, stage], 1e3 * values, "ms a batch", digits=2)


@torch.no_grad()
def stage_times(backbone, name, batch_size, options):
    detector = make_detector(backbone, name, options, calibration=None, batch_size=batch_size)
    detector.fit(make_images(options.train[backbone], options))
    maker = map_maker(detector)
    embedder, device = maker.embedder, resolve_device(options.device)
    images = make_images(batch_size, options)
    embeddings = embedder.embed(images, device)
    network, *_ = embedder._network_on(device, embedder.layers_, True)
    pixels = normalised(images).to(memory_format=torch.channels_last)
    flat = embeddings.flatten(1, 2)
    distances = maker.measure.distances(flat).reshape(len(flat), *embedder.grid_)

    def run_network():
        with (
            full_float32(device)
            if detector.precision == "float32"
            else torch.autocast(device.type, dtype_of(name))
        ):
            network(pixels, LAYERS)

    works = {
        "network": run_network,
        "embed": lambda: embedder.embed(images, device),
        "Gaussian: distances": lambda: maker.measure.distances(flat),
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


def print_fits(backbone, n_images, names, record, peaks, options):
    record.start(f"fit, {backbone}", "side", "precision", "images")
    for name in names:
        labels = [f"skpadim, {backbone}", name, n_images]
        found = record.attempt("fit", labels, partial(fit_times, backbone, name, n_images, options))
        if found is not None:
            limit = limit_of(backbone, name, peaks, options)
            record.add("fit", labels, n_images / found["fit"], "images/s", limit)
            for stage, values in found.items():
                record.add("fit", [stage, *labels[1:]], values, "s", digits=3)
            share = found["Gaussians"] / found["fit without threshold"]
            record.add("share", [backbone, *labels[1:]], share, "Gaussians' share", digits=3)
    if _peers is not None:
        labels = [f"anomalib, {backbone}", "float32", n_images]
        fit = partial(fit_anomalibs, backbone, n_images, options)
        rates = record.attempt("fit", labels, fit)
        if rates is not None:
            record.add("fit", labels, rates, "images/s")


def fit_times(backbone, name, n_images, options):
    """Seconds of a fit and of its parts.

    The Gaussians' are those of the fit without threshold, with a wait for the GPU before and after
    each update of the state. The threshold is what the whole fit takes beyond that.
    """
    images = make_images(n_images, options)
    make = partial(make_detector, backbone, name, options, batch_size=options.batches[-2])
    embedder = make(calibration=None).fit(images[: options.batches[-2]]).embedder_
    gaussians = []

    def fit_and_clock():
        with gaussians_clocked(options.device) as seconds:
            make(calibration=None).fit(images)
        gaussians.append(sum(seconds))

    works = {
        "fit": lambda: make().fit(images),
        "fit without threshold": fit_and_clock,
        "set-up": lambda: embed_all(clone(embedder).fit(), images[:1], options),
        "embedding": lambda: embed_all(embedder, images, options),
    }
    found = alternate(works, 1 if n_images == options.many else min(options.runs, 3))
    found["Gaussians"] = np.array(gaussians[1:])
    return found | {"threshold": found["fit"] - found["fit without threshold"]}


@contextmanager
def gaussians_clocked(device):
    """Seconds of each update of the state in the fits inside."""
    seconds = []

    def clocked(function):
        def call(*arguments, **options):
            synchronize(device)
            start = time.perf_counter()
            result = function(*arguments, **options)
            synchronize(device)
            seconds.append(time.perf_counter() - start)
            return result

        return call

    with (
        mock.patch.object(
            _learning,
            "state_to_share",
            clocked(_learning.state_to_share),
        ),
        mock.patch.object(_learning, "_add", clocked(_learning._add)),
    ):
        yield seconds


def embed_all(embedder, images, options):
    deque(embedder.iter_embeddings(Images(images)), maxlen=0)
    synchronize(options.device)


def fit_anomalibs(backbone, n_images, options):
    set_precision("tf32")  # torch's default for convolutions
    tensors = normalised(make_images(n_images, options))

    def fit():
        _peers.fit_anomalib(tensors, backbone, options.batches[-2])
        synchronize(options.device)

    return n_images / alternate({"": fit}, 1)[""]


def print_targets(record, options):
    """What the bars ask for, of what was measured."""
    bars = []
    for backbone in options.backbones:
        ours = record.best.get(("score", f"skpadim, {backbone}"))
        theirs = record.best.get(("score", f"anomalib, {backbone}"))
        share = record.best.get(("share", backbone))
        if ours is not None:
            bars.append((f"score, {backbone}, images/s", ours, ">=", SCORE_BARS[backbone]))
        if ours is not None and theirs is not None:
            bars.append((f"score, {backbone}, times anomalib", ours / theirs, ">=", ANOMALIB_BAR))
        if share is not None:
            name = f"fit, {backbone}, largest share of the Gaussians"
            bars.append((name, share, "<=", GAUSSIAN_BAR))
    print_bars(bars)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", help="CSV file for all rows")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=7.5, help="start nothing after these")
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=BACKBONES)
    parser.add_argument("--device", default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA GPU here: nothing is measured.")
        return
    options.size, options.batches, options.fit, options.many = 256, (1, 32, 128, 512), 1000, 10_000
    options.train = N_TRAIN
    if options.quick:
        options.size, options.batches, options.fit, options.many = 64, (1, 4, 8), 12, 24
        options.train = dict.fromkeys(BACKBONES, 8)
    print_setting("skpadim", "torchvision", "anomalib")
    print(f"{options.runs} runs, median (min to max); {options.many:,} images: one run")
    record = Record(options)
    peaks = measure_peaks(record, options)
    for backbone in options.backbones:
        print_scores(backbone, [TARGETED], record, peaks, options)
    for backbone in options.backbones:
        print_fits(backbone, options.many, [TARGETED], record, peaks, options)
    for backbone in options.backbones:
        print_stages(backbone, record, options)
        print_scores(backbone, OTHERS, record, peaks, options)
    for backbone in options.backbones:
        print_fits(backbone, options.fit, (TARGETED, *OTHERS), record, peaks, options)
    print_targets(record, options)


if __name__ == "__main__":
    main()
