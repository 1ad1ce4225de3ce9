"""Where the time of a score and of a fit goes, stage by stage.

Usage: python benchmarks/stages.py [--runs 5] [--images 64] [--fit-images 200]

resnet18, 256 x 256, float32, random weights, images already decoded, on the CPU. Clocks are put
around the layers of the network and around the functions that the other stages are made of; what
none of them has seen is "the rest". Operations are those of a plain convolution, also where
Winograd's needs fewer. The peak is that of a product of matrices of 2048 x 2048, the best of the
runs. First come the first convolution and the 3 x 3 ones of resnet18's layers alone, torch's and
ours, with the rectification after them, and the distances of all positions.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
import torch
from _limits import matrix_product
from _setting import print_setting
from _timing import alternate, parse_arguments, print_header, print_row, times_faster

import skpadim.embedding._network
import skpadim.embedding._patch_embedder
import skpadim.gaussian._linalg
import skpadim.streaming._learning
import skpadim.streaming._scoring
from skpadim import PadimDetector, PatchEmbedder
from skpadim.backbones.winograd import WinogradConv2d
from skpadim.embedding._network import CPU_PART
from skpadim.gaussian._leave_one_out import TrainingDistances
from skpadim.gaussian._mahalanobis import Whitening, whitening_factors

SIZE = 256
STAGES = (
    (PatchEmbedder, "fit", "building the network"),
    (skpadim.streaming._learning, "state_to_share", "means and scatters"),
    (TrainingDistances, "distances", "leave-one-out distances"),
    (Whitening, "distances", "distances"),
    (skpadim.streaming._scoring, "anomaly_maps", "maps"),
    (skpadim.embedding._patch_embedder, "join", "joining the layers' maps"),
)


class Clocks:
    """Seconds and operations by stage."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self.operations = defaultdict(float)

    def around(self, function, stage):
        """Return the function with a clock for the stage around it."""

        def timed(*arguments, **options):
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - start

        return timed

    def watch(self, network):
        """Put clocks around the layers of a network."""
        for layer in network.modules():
            stage = name_of(layer)
            if stage is not None:
                layer.forward = self.around(layer.forward, stage)
                if hasattr(layer, "kernel_size") and hasattr(layer, "in_channels"):
                    layer.register_forward_hook(self._count)
        return network

    def _count(self, layer, _inputs, output):
        n_multiplications = output.numel() * layer.in_channels * np.prod(layer.kernel_size)
        self.operations[name_of(layer)] += 2 * n_multiplications


def name_of(layer):
    if isinstance(layer, torch.nn.Conv2d):
        height, width = layer.kernel_size
        winograd = ", Winograd's" if isinstance(layer, WinogradConv2d) else ""
        return f"convolutions {height} x {width}, stride {layer.stride[0]}{winograd}"
    if isinstance(layer, torch.nn.MaxPool2d | torch.nn.ReLU):
        return "pooling and rectification"
    return None


@contextmanager
def clocks_running():
    clocks, make_ready = Clocks(), skpadim.embedding._network.make_ready

    def watched(*arguments, **options):
        network = make_ready(*arguments, **options)
        clocks.watch(network)
        return network

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(skpadim.embedding._network, "make_ready", watched))
        for owner, name, stage in STAGES:
            timed = clocks.around(getattr(owner, name), stage)
            stack.enter_context(mock.patch.object(owner, name, timed))
        yield clocks


def print_stages(title, work, n_images, runs, clocks, peak):
    """Table of one work: milliseconds an image, share of the whole, and rate of arithmetic."""
    work()  # loads, warms up
    clocks.seconds.clear()
    clocks.operations.clear()
    start = time.perf_counter()
    for _ in range(runs):
        work()
    whole = time.perf_counter() - start
    stages = sorted(clocks.seconds.items(), key=lambda item: -item[1])
    print(f"\n{title}, mean of {runs} runs")
    print_header("stage", "ms an image", "share", "GFLOP/s", "of the peak")
    for stage, seconds in [*stages, ("the rest", whole - sum(clocks.seconds.values()))]:
        rate = clocks.operations[stage] / seconds if stage in clocks.operations else None
        print_row(
            stage,
            f"{seconds / (runs * n_images) * 1e3:.2f}",
            f"{seconds / whole:.1%}",
            "" if rate is None else f"{rate / 1e9:.0f}",
            "" if rate is None else f"{rate / peak:.0%}",
        )
    print_row("all", f"{whole / (runs * n_images) * 1e3:.2f}", "100.0%", "", "")


@torch.no_grad()
def print_convolutions(runs):
    """Table of one convolution of each kind, in parts of a batch as large as the network's."""
    print(
        f"\nconvolutions and rectification, {CPU_PART} images at a time, median of {runs} rounds, "
        "ms an image"
    )
    print_header("convolution", "maps", "torch's", "ours", "ratio (median of the pairs)")
    for n_in, n_out, size, options in (
        (3, 64, SIZE, {"kernel_size": 7, "padding": 3, "stride": 2}),
        *((n, n, 64 * 64 // n, {"kernel_size": 3, "padding": 1}) for n in (64, 128, 256)),
    ):
        images = torch.rand(CPU_PART, n_in, size, size).to(memory_format=torch.channels_last)
        plain = torch.nn.Conv2d(n_in, n_out, **options).requires_grad_(False)
        plain = plain.to(memory_format=torch.channels_last)
        ours = WinogradConv2d(plain, rectifies=True)
        works = {"plain": lambda plain=plain, images=images: torch.relu_(plain(images))}
        works["ours"] = lambda ours=ours, images=images: ours(images)
        kernel = f"{options['kernel_size']} x {options['kernel_size']}, {n_in} to {n_out} channels"
        print_times(works, runs, CPU_PART, kernel, f"{size} x {size}")


def print_distances(runs):
    """Table of the distances at all positions of some images, by torch's operations and by ours."""
    print(f"\nMahalanobis distances, 4,096 positions, 100 features, median of {runs} rounds")
    print_header("images", "torch's, ms an image", "ours", "ratio (median of the pairs)")
    scatter = torch.eye(100, dtype=torch.float64)[tuple(torch.tril_indices(100, 100))]
    scatter = scatter.repeat(4096, 1)
    ours = Whitening(torch.zeros(4096, 100), whitening_factors(scatter, 1, 0.0, torch.float32))
    for n_images in (1, 32):
        embeddings = torch.rand(n_images, 4096, 100)
        works = {
            "plain": lambda embeddings=embeddings: plain_distances(embeddings, ours),
            "ours": lambda embeddings=embeddings: ours.distances(embeddings),
        }
        print_times(works, runs, n_images, n_images)


def plain_distances(embeddings, whitening):
    """As where there is no Numba."""
    with mock.patch.object(skpadim.gaussian._linalg, "_kernels", return_value=None):
        return whitening.distances(embeddings)


def print_times(works, runs, n_images, *names):
    seconds = alternate(works, runs)
    each = (f"{1e3 * np.median(s) / n_images:.2f}" for s in seconds.values())
    print_row(*names, *each, f"{times_faster(seconds['ours'], seconds['plain']):.2f}")


def main():
    options = parse_arguments(__doc__, runs=5, images=64, fit_images=200)
    print_setting("skpadim", "torchvision")
    work, n_operations = matrix_product(torch.float32, "cpu", 2048)
    peak = n_operations / alternate({"product": work}, options.runs)["product"].min()
    print(f"peak: {peak / 1e9:.0f} GFLOP/s")
    print_convolutions(20 * options.runs)
    print_distances(20 * options.runs)
    n_images = max(options.images, options.fit_images)
    images = np.random.default_rng(0).integers(0, 256, (n_images, SIZE, SIZE, 3), dtype=np.uint8)
    some, of_fit = images[: options.images], images[: options.fit_images]
    with clocks_running() as clocks:
        detector = PadimDetector(
            "resnet18", weights=None, crop_size=None, device="cpu", random_state=0
        )
        fitted = detector.fit(of_fit)
        works = (
            ("score in batches of 32", lambda: fitted.score_samples(some), len(some)),
            ("score of one image", lambda: fitted.score_samples(some[:1]), 1),
            ("fit", lambda: detector.fit(of_fit), len(of_fit)),
        )
        for title, work, n in works:
            runs = options.runs if n > 1 else 20 * options.runs
            print_stages(title, work, n, runs, clocks, peak)


if __name__ == "__main__":
    main()
