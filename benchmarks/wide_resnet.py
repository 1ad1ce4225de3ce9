"""Time and memory with wide_resnet50_2 and 550 features, beside anomalib's torch model.

Usage: python benchmarks/wide_resnet.py [--runs 5] [--images 100] [--size 256]
                                        [--precisions float32 bfloat16]

Three parts. The Gaussian stage of a fit alone, on embeddings of 100 images in memory: ours with
the leave-one-out threshold and the factors that scoring needs, anomalib's with its inverse
covariances. A whole fit and a score, with their peak memory. Both parts start a process for each
side and run, in turn: anomalib's fit takes about 21 GB. The third part times scoring in batches of
32 and one image at a time; anomalib's model there has matrices of full size made up, for want of
memory to fit it beside ours: the time does not depend on their values. Weights are random.
"""

from __future__ import annotations

import numpy as np
import torch
from _peers import fit_anomalib, made_up_anomalib, normalise, score_anomalib
from _processes import is_child, measure, run_child
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
from anomalib.models.components.stats import MultiVariateGaussian

from skpadim import PadimDetector, PatchGaussian

BACKBONE, N_FEATURES = "wide_resnet50_2", 550
GAUSSIAN_BAR, MEMORY_BAR = 20, 0.25
SCORE_BARS = {"float32": 1.6, "bfloat16": 3.0}


def steps(work, side, *numbers):
    """What a child does; see `_processes`."""
    return {"gaussian": gaussian_steps, "fit": fit_steps}[work](side, *numbers)


def gaussian_steps(side, n_images, grid):
    fit = fit_our_gaussian if side == "skpadim" else fit_anomalibs_gaussian
    fit(make_embeddings(side, 5, 2))  # threads are started, libraries loaded
    embeddings = make_embeddings(side, int(n_images), int(grid))
    yield "fit", lambda: fit(embeddings)


def fit_steps(side, n_images, image_size, crop_size, n_features):
    images = make_images(int(n_images), int(image_size))
    if side == "anomalib":
        tensors = normalise(images)
        del images
        model = []
        yield "fit", lambda: model.append(fit_anomalib(tensors, BACKBONE))
        yield "score", lambda: score_anomalib(model[0], tensors[:32])
    else:
        ours = make_ours(
            int(image_size),
            crop_size=int(crop_size),
            n_features=None if n_features == "None" else int(n_features),
        )
        yield "fit", lambda: ours.fit(images)
        yield "score", lambda: ours.score_samples(images[:32])


def make_ours(image_size, **parameters):
    settings = {"crop_size": None, "image_size": image_size, "random_state": 0, **parameters}
    return PadimDetector(BACKBONE, weights=None, **settings)


def make_images(n_images, size):
    return np.random.default_rng(0).integers(0, 256, (n_images, size, size, 3), dtype=np.uint8)


def make_embeddings(side, n_images, grid):
    """Positive numbers, as rectified features are, laid out as each side has them."""
    shape = (grid, grid, N_FEATURES) if side == "skpadim" else (N_FEATURES, grid, grid)
    embeddings = torch.empty(n_images, *shape)
    return embeddings.exponential_(generator=torch.Generator().manual_seed(0))


def fit_our_gaussian(embeddings):
    PatchGaussian(calibration="leave_one_out").fit(embeddings).mahalanobis(embeddings[:1])


def fit_anomalibs_gaussian(embeddings):
    MultiVariateGaussian().fit(embeddings)


def print_gaussians(n_images, grid, runs):
    """Gaussian stage; returns how many times faster we are, None if memory ran out."""
    sides = {"skpadim": [], "anomalib": []}
    for _ in range(runs):
        for side, found in sides.items():
            found.append(measure(__file__, "gaussian", side, n_images, grid))
    print(f"\nGaussian stage of the fit, {n_images} images, {grid} x {grid} positions")
    print_header("side", "seconds", "peak memory with the embeddings, MiB")
    for side, found in sides.items():
        if None in found:
            print_row(side, "out of memory", "")
        else:
            seconds, peaks = (column(found, f"fit {unit}") for unit in ("seconds", "MiB"))
            print_row(side, spread(seconds, 2), spread(peaks, 0))
    if any(None in found for found in sides.values()):
        return None
    ours, theirs = (column(found, "fit seconds") for found in sides.values())
    return times_faster(ours, theirs)


def column(reports, name):
    return np.array([report[name] for report in reports])


def print_fits(n_images, size):
    """Whole fits and a score; returns our peak over anomalib's, None if a process was killed."""
    central = size * 7 // 8  # the default crop
    print("\nfit of decoded images, then a score of 32, each row a process")
    print_header(
        "side", "images", "pixels", "features", "fit, s", "fit, MiB", "score, s", "score, MiB"
    )
    rows = [
        ("skpadim", n_images, size, N_FEATURES),
        ("anomalib", n_images, size, N_FEATURES),
        ("skpadim", 2 * n_images, size, N_FEATURES),
        ("skpadim", 2 * n_images, central, N_FEATURES),
        ("skpadim", n_images, central, None),
    ]
    peaks = []
    for side, number, pixels, n_features in rows:
        found = measure(__file__, "fit", side, number, size, pixels, n_features)
        cells = ["out of memory", "", "", ""]
        if found is not None:
            cells = [f"{value:,.{0 if 'MiB' in name else 2}f}" for name, value in found.items()]
        print_row(side, number, f"{pixels}²", n_features or "all", *cells)
        peaks.append(found and found["fit MiB"])
    return None if None in peaks[:2] else peaks[0] / peaks[1]


def print_scores(n_images, size, precisions, runs):
    """Scoring; returns how many times faster we are in batches of 32, by precision."""
    images = make_images(n_images, size)
    ours = {p: make_ours(size, precision=p).fit(images) for p in precisions}
    theirs = made_up_anomalib(BACKBONE, ours[precisions[0]].embedder_.grid_)
    images = images[:64]
    tensors = normalise(images)
    works = {p: lambda d=detector: d.score_samples(images) for p, detector in ours.items()}
    works["anomalib, float32"] = lambda: score_anomalib(theirs, tensors)
    title = f"after {n_images} training images"
    ratios = print_rates(f"score in batches of 32, {title}", works, len(images), runs)
    works = {
        p: lambda d=detector: [d.score_samples(images[i : i + 1]) for i in range(8)]
        for p, detector in ours.items()
    }
    works["anomalib, float32"] = lambda: score_anomalib(theirs, tensors[:8], batch_size=1)
    print_rates(f"score one image at a time, {title}", works, 8, runs)
    return ratios


def print_rates(title, works, n_images, runs):
    """Images per second of each side; returns how many times faster than anomalib ours are."""
    seconds = alternate(works, runs)
    theirs = seconds["anomalib, float32"]
    ratios = {side: times_faster(values, theirs) for side, values in seconds.items()}
    print(f"\n{title}")
    print_header("side", "images/s", "ratio to anomalib")
    for side, values in seconds.items():
        print_row(side, spread(n_images / values, 2), f"{ratios[side]:.2f}")
    return {side: ratio for side, ratio in ratios.items() if side in SCORE_BARS}


def main():
    options = parse_arguments(__doc__, runs=5, images=100, size=256, precisions=SCORE_BARS)
    n_images, size = options.images, options.size
    print_setting("skpadim", "anomalib", "timm", "torchvision")
    print(f"{options.runs} alternating runs, median (min to max); ratio: median of the pairs")
    gaussian = print_gaussians(n_images, size // 4, options.runs)
    share = print_fits(n_images, size)
    bars = []
    if gaussian is not None:
        bars.append(("Gaussian stage, times anomalib", gaussian, ">=", GAUSSIAN_BAR))
    if share is not None:
        bars.append(("peak memory of fit, ours over anomalib's", share, "<=", MEMORY_BAR))
    ratios = print_scores(n_images, size, options.precisions, options.runs)
    for precision, ratio in ratios.items():
        bar = SCORE_BARS[precision]
        bars.append((f"score, {precision}, times anomalib", ratio, ">=", bar))
    print_bars(bars)


if __name__ == "__main__":
    run_child(steps) if is_child() else main()
