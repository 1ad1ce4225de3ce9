"""Time, memory and error of the metrics beside ADEval, anomalib, MVTec's code and scikit-learn.

Usage: python benchmarks/metrics.py [--runs 7] [--slow-runs 3] [--images 100]

Maps of 256 x 256 and 900 x 900 with 2 % anomalous pixels, in two squares an image; the scores
overlap. "smooth" maps are blurred as anomaly maps are, in "noise" maps every pixel is independent,
the harder case. Each side gets arrays in the form it likes best, prepared outside of the timing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
from scipy.ndimage import gaussian_filter

from skpadim.metrics import (
    PixelMetrics,
    aupro_score,
    pixel_average_precision_score,
    pixel_metrics,
    pixel_roc_auc_score,
)

SIZES = (256, 900)


def make_maps(n, size, kind="smooth", seed=0):
    """Masks, bool, and maps, float32."""
    rng = np.random.default_rng(seed)
    side = round(0.1 * size)
    masks = np.zeros((n, size, size), dtype=bool)
    maps = rng.standard_normal(masks.shape, dtype=np.float32)
    for mask, one in zip(masks, maps, strict=True):
        top, left, right = rng.integers(0, size // 2 - side, 3)
        mask[top : top + side, left : left + side] = True
        mask[size // 2 + top :, size // 2 + right :][:side, :side] = True
        if kind == "smooth":
            gaussian_filter(one, 4, output=one)
            one /= one.std()
        one += 8 + 2 * mask
    return masks, maps


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def peers_of(masks, maps):
    """What is timed, by name, on arrays that are ready for it; also the values it gives."""
    import torch
    from anomalib.metrics.aupro import _AUPRO
    from sklearn.metrics import roc_auc_score

    adeval, mvtec = import_adeval()
    bytes_, ints = masks.view(np.uint8), masks.astype(np.int64)
    tensors = torch.from_numpy(maps), torch.from_numpy(ints)

    def anomalib():
        metric = _AUPRO()
        metric.update(*tensors)
        return metric.compute().item()

    fast = {
        "skpadim, all": lambda: pixel_metrics(masks, maps),
        "skpadim, AUPRO": lambda: aupro_score(masks, maps),
        "skpadim, AUROC": lambda: pixel_roc_auc_score(masks, maps),
        "skpadim, accumulator": lambda: PixelMetrics().update(masks, maps).compute(),
        "skpadim, histogram": lambda: PixelMetrics(exact=False).update(masks, maps).compute(),
        "ADEval, approximate AUROC, AP, AUPRO": lambda: adeval.auroc_aupr_aupro(maps, bytes_),
    }
    slow = {
        "MVTec's code, AUPRO, 100 thresholds": lambda: mvtec.calculate_au_pro(ints, maps)[0],
        "anomalib, AUPRO": anomalib,
        "scikit-learn, roc_auc_score": lambda: roc_auc_score(masks.ravel(), maps.ravel()),
    }
    return fast, slow


def import_adeval():
    if not hasattr(np, "trapz"):  # which NumPy 2.4 took away
        np.trapz = np.trapezoid  # noqa: NPY201
    import adeval
    from adeval import au_pro

    return adeval, au_pro


def median_times(functions, runs):
    """Seconds of alternating runs, after one that is not counted where there are several."""
    times = {name: [] for name in functions}
    for run in range(runs + (runs > 1)):
        for name, function in functions.items():
            seconds, _ = timed(function)
            if run > 0 or runs == 1:
                times[name].append(seconds)
    return {name: np.array(seconds) for name, seconds in times.items()}


def print_times(options):
    verdicts = []
    for size in SIZES:
        for kind in ("smooth", "noise"):
            masks, maps = make_maps(options.images, size, kind)
            fast, slow = peers_of(masks, maps)
            times = median_times(fast, options.runs)
            if kind == "smooth":
                times |= median_times(slow, options.slow_runs)
            ours = np.median(times["skpadim, all"])
            print(f"\n{options.images} maps of {size} x {size}, {kind}\n")
            print("| work | seconds, median (min to max) | times skpadim's all |\n|---|---|---|")
            for name, seconds in times.items():
                cell = f"{np.median(seconds):.3f} ({seconds.min():.3f} to {seconds.max():.3f})"
                print(f"| {name} | {cell} | {np.median(seconds) / ours:.2f} |", flush=True)
            adeval = times["ADEval, approximate AUROC, AP, AUPRO"]
            share = np.median(times["skpadim, all"] / adeval)
            limit = 1.0 if size == 256 else 0.7
            verdicts.append((f"all over ADEval's three, {size}, {kind}", share, "<=", limit))
            if kind == "smooth":
                medians = {name: np.median(seconds) for name, seconds in times.items()}
                ratio = medians["anomalib, AUPRO"] / medians["skpadim, AUPRO"]
                verdicts.append((f"anomalib's AUPRO over ours, {size}", ratio, ">=", 8))
                ratio = medians["scikit-learn, roc_auc_score"] / medians["skpadim, AUROC"]
                verdicts.append((f"scikit-learn's AUROC over ours, {size}", ratio, ">=", 20))
                print_errors(size, masks, maps, fast, slow)
    return verdicts


def print_errors(size, masks, maps, fast, slow):
    """How far the others are off the exact values."""
    _, mvtec = import_adeval()
    print(f"\nerror of the others, {size} x {size}, smooth\n")
    print("| metric | exact | other | error |\n|---|---|---|---|")
    exact = aupro_score(masks, maps), aupro_score(masks, maps, max_fpr=0.05)
    auc, precision = pixel_roc_auc_score(masks, maps), pixel_average_precision_score(masks, maps)
    adeval = fast["ADEval, approximate AUROC, AP, AUPRO"]()
    rows = [
        ("AUROC", "scikit-learn", auc, slow["scikit-learn, roc_auc_score"]()),
        ("AUROC", "ADEval", auc, adeval[0]),
        ("AP", "ADEval", precision, adeval[1]),
        ("AUPRO 0.3", "ADEval", exact[0], adeval[2]),
        ("AUPRO 0.3", "anomalib", exact[0], slow["anomalib, AUPRO"]()),
    ]
    ints = masks.astype(np.int64)
    for n_thresholds in (100, 1000, 10000) if size == 256 else (100,):
        for limit, value in zip((0.3, 0.05), exact, strict=True):
            found = mvtec.calculate_au_pro(ints, maps, limit, n_thresholds)[0]
            rows.append((f"AUPRO {limit}", f"MVTec, {n_thresholds} thresholds", value, found))
    for metric, name, value, found in rows:
        print(f"| {metric} | {value:.6f} | {name} {found:.6f} | {found - value:+.1e} |", flush=True)


def status_bytes(field):
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure_memory(work, size, n, allocated):
    """Print the peak above the input of this process, and the input's bytes.

    The peak is that of the arrays allocated, or that of the process, in which the allocator also
    keeps what it will use again.
    """
    masks, maps = make_maps(n if work != "stream" else 100, size, "noise")
    warm = make_maps(2, 64)  # imports and threads are not the input's
    aupro_score(*warm)
    pixel_metrics(*warm)
    PixelMetrics().update(*warm).compute()
    if allocated:
        tracemalloc.start()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = status_bytes("VmRSS")
    if work == "stream":
        metrics = PixelMetrics(exact=False)
        for index in range(n):
            one = slice(index % 100, index % 100 + 1)
            metrics.update(masks[one], maps[one])
        metrics.compute()
    elif work == "accumulator":
        # What it holds, before anything is computed.
        metrics = PixelMetrics()
        for index in range(n):
            metrics.update(masks[index : index + 1], maps[index : index + 1])
    else:
        {"all": pixel_metrics, "AUPRO": aupro_score}[work](masks, maps)
    peak = tracemalloc.get_traced_memory()[1] if allocated else status_bytes("VmHWM") - before
    # Functions on arrays are measured by their input, masks and maps; an accumulator by the maps.
    print(peak, maps.nbytes + (masks.nbytes if work in ("all", "AUPRO") else 0))


def print_memory(options):
    verdicts = []
    print("\npeak memory above the input, each in a process of its own\n")
    print("| work | arrays, MB | process, MB | input, MB | share | share of the process |")
    print("|---|---|---|---|---|---|")
    works = [(work, size, options.images) for size in SIZES for work in ("all", "AUPRO")]
    works += [("accumulator", 900, options.images), ("stream", 256, 100), ("stream", 256, 10000)]
    for work, size, n in works:
        command = [sys.executable, __file__, "--memory", work, str(size), str(n)]
        process, n_bytes = map(int, subprocess.check_output(command).split()[-2:])
        peak, _ = map(int, subprocess.check_output([*command, "--allocated"]).split()[-2:])
        n_bytes = n * size * size * 4 if work == "stream" else n_bytes
        name = f"{work}, {n} maps of {size}²"
        cells = (f"{peak / 1e6:.1f}", f"{process / 1e6:.1f}", f"{n_bytes / 1e6:.0f}")
        shares = (f"{peak / n_bytes:.3f}", f"{process / n_bytes:.3f}")
        print(f"| {name} | {' | '.join(cells + shares)} |", flush=True)
        if work == "stream":
            verdicts.append((f"histogram's peak in MB, {n} maps", process / 1e6, "<=", 100))
        else:
            limit = 1.0 if work == "accumulator" else 0.5
            for kind, found in (("arrays", peak), ("process", process)):
                verdicts.append(
                    (f"share of the input, {kind}: {name}", found / n_bytes, "<=", limit)
                )
    return verdicts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--slow-runs", type=int, default=3)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--memory", nargs=3, metavar=("WORK", "SIZE", "N"))
    parser.add_argument("--allocated", action="store_true")
    parser.add_argument("--only-memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        work, size, n = options.memory
        measure_memory(work, int(size), int(n), options.allocated)
        return
    from _setting import print_setting

    print_setting("numpy", "scipy", "scikit-learn", "adeval", "anomalib")
    print(f"load of the machine before the run: {os.getloadavg()[0]:.2f}")
    verdicts = [] if options.only_memory else print_times(options)
    verdicts += print_memory(options)
    print("\n| bar | measured | wanted | met |\n|---|---|---|---|")
    for name, value, sign, limit in verdicts:
        met = value <= limit if sign == "<=" else value >= limit
        print(f"| {name} | {value:.2f} | {sign} {limit} | {'yes' if met else 'NO'} |")
    print(f"\nload of the machine after the run: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
