"""Fit on a cluster of two workers beside one process, and what that says of larger clusters.

Usage: python benchmarks/cluster.py [--runs 5] [--images 600] [--check 2000]

resnet18, 256 x 256, random weights, images in PNG files. A Dask cluster on this machine, two
processes of one thread each, beside one process of one thread, whose reading threads are kept on
the same core (on Linux). Then the parts of a cost model,
measured one by one: seconds an image takes on a core, bytes of a part of the state, seconds that
the parent needs to take one in. The model predicts a fit of more images on the two workers, which
is run to see how far it is off, and fits that are too large to be run here.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from _setting import print_setting
from _timing import (
    alternate,
    parse_arguments,
    print_bars,
    print_header,
    print_row,
    spread,
    times_faster,
)
from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from PIL import Image

from skpadim import PadimDetector
from skpadim._padim import make_embedder
from skpadim.gaussian._leave_one_out import TrainingDistances
from skpadim.gaussian._moments import Moments
from skpadim.images._batches import Images
from skpadim.streaming._chunks import batch_and_unit
from skpadim.streaming._learning import learn
from skpadim.streaming._parallel import chunk_size, part_size
from skpadim.streaming._scoring import MapMaker, score_images

SIZE = 256
BAR = 1.7


def write_images(folder, n_images):
    """Paths of PNG files; a few pictures, so that the files stay in the system's cache."""
    rng = np.random.default_rng(0)
    for index in range(20):
        pixels = rng.integers(0, 256, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        image.save(Path(folder) / f"{index:02}.png")
    paths = sorted(Path(folder).iterdir())
    return [paths[i % len(paths)] for i in range(n_images)]


def make_detector(**parameters):
    return PadimDetector("resnet18", weights=None, crop_size=None, random_state=0, **parameters)


def fit_alone(paths):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with on_one_core():
            return make_detector(n_jobs=1).fit(paths)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def on_one_core():
    """Keep this thread, and those that it starts, on one core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def fit_on_cluster(paths):
    with parallel_config("dask"):
        return make_detector().fit(paths)


def seconds_of(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure_parts(paths):
    """Seconds and bytes that the cost model is made of, with one thread."""
    embedder = make_embedder(make_detector())
    images = Images(paths)
    with parallel_config("sequential"):
        torch.set_num_threads(1)
        learn, state = seconds_of(lambda: moments_of(embedder, images))
        measure = TrainingDistances(state, 0.01, "leave_one_out", torch.float32)
        factors, _ = seconds_of(lambda: measure.distances(torch.zeros(1, *state.mean.shape)))
        maker = MapMaker(embedder, measure, 4.0)
        calibrate, _ = seconds_of(lambda: score_images(maker, images, 1, ""))
        torch.set_num_threads(2)
        part = pickle.dumps(state, protocol=5)
        total = state.copy()
        take, _ = seconds_of(lambda: total.merge(pickle.loads(part)))
    return {
        "learn": learn / len(images),
        "calibrate": calibrate / len(images),
        "take": take,
        "factors": factors,
        "part": len(part),
        "network": len(pickle.dumps(embedder)),
        "state": len(pickle.dumps(measure)),
    }


def moments_of(embedder, images):
    state = learn(embedder, images, n_jobs=1).state
    return state if isinstance(state, Moments) else Moments.of(state.rows)


def predict(parts, n_images, n_workers, embedder):
    """Seconds of a fit in two passes; and bytes that the parent receives and sends."""
    numbers = n_images, n_workers, *batch_and_unit(embedder)
    size = part_size(*numbers, embedder.n_features_out_)
    n_parts, images_each = shares(n_images, size, n_workers)
    learning = max(images_each * parts["learn"], n_parts * parts["take"]) + parts["take"]
    n_chunks, images_each = shares(n_images, chunk_size(*numbers), n_workers)
    second_pass = parts["factors"] + images_each * parts["calibrate"]
    sent = min(n_workers, n_parts) * parts["network"] + min(n_workers, n_chunks) * parts["state"]
    return learning + second_pass, n_parts * parts["part"], sent


def shares(n_images, size, n_workers):
    """Number of chunks of a size, and images of the worker that is the last to finish."""
    n_chunks = -(-n_images // size)
    return n_chunks, -(-n_chunks // n_workers) * size


def duration(seconds):
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def main():
    options = parse_arguments(__doc__, runs=5, images=600, check=2000)
    print_setting("skpadim", "dask", "distributed", "joblib", "torchvision")
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(**settings) as cluster,
        Client(cluster),
    ):
        paths = write_images(folder, max(options.images, options.check))
        few = paths[: options.images]
        works = {
            "one process, one thread": lambda: fit_alone(few),
            "cluster of two workers": lambda: fit_on_cluster(few),
        }
        seconds = alternate(works, options.runs)
        ratio = times_faster(seconds["cluster of two workers"], seconds["one process, one thread"])
        print(f"\nfit, {len(few)} images, {options.runs} alternating runs, median (min to max)")
        print_header("side", "seconds", "images/s")
        for side, values in seconds.items():
            print_row(side, spread(values, 2), spread(len(few) / values))

        parts = measure_parts(paths[: min(len(paths), 320)])
        print("\nparts of the cost model")
        print_header("part", "value", "unit")
        for name, key, factor, unit in (
            ("learn from an image, one core", "learn", 1e3, "ms"),
            ("score an image in the second pass, one core", "calibrate", 1e3, "ms"),
            ("take a part of the state in, parent", "take", 1, "s"),
            ("factors of the second pass, each worker", "factors", 1, "s"),
            ("a part of the state", "part", 2**-20, "MiB"),
            ("the network", "network", 2**-20, "MiB"),
            ("the state, for the second pass", "state", 2**-20, "MiB"),
        ):
            print_row(name, f"{parts[key] * factor:.3g}", unit)

        embedder = make_embedder(make_detector())
        predicted, *_ = predict(parts, options.check, 2, embedder)
        measured, _ = seconds_of(lambda: fit_on_cluster(paths[: options.check]))
        print(
            f"\nfit of {options.check} images on two workers: predicted {predicted:.1f} s, ", end=""
        )
        print(f"measured {measured:.1f} s")

        print("\npredicted fits")
        print_header(
            "images", "workers", "time", "received by the parent", "sent", "its network, MB/s"
        )
        for n_images in (10**5, 10**7):
            for n_workers in (2, 16, 100, 1000):
                total, received, sent = predict(parts, n_images, n_workers, embedder)
                print_row(
                    f"{n_images:,}",
                    f"{n_workers:,}",
                    duration(total),
                    f"{received / 1e9:,.1f} GB",
                    f"{sent / 1e9:,.1f} GB",
                    f"{(received + sent) / total / 1e6:,.1f}",
                )
    print_bars([("fit on two workers, times one process with one thread", ratio, ">=", BAR)])


if __name__ == "__main__":
    main()
