"""Cases drawn at random, in each area beside brute force: the formulas, or one plain reading.

Each area has a function that draws a case from a generator and returns what it is and what is wrong
with it. A fault is shown with the command that repeats it; the script then ends with 1.

Usage: python benchmarks/fuzz.py [--minutes M] [--seed S] [--area NAME [--case N]]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _image_writers import UPRIGHT, as_pil, png, stored_as, tiff, write_by_pillow
from _timing import print_header, print_row
from PIL import Image
from scipy import ndimage

from skpadim import PatchEmbedder, PatchGaussian
from skpadim.images._batches import Images
from skpadim.images._masks import read_mask
from skpadim.metrics import auspro_score, image_f1_max, pixel_metrics, pro_curve, spro_curve
from skpadim.model_selection import NormalFold, NormalGroupFold


def images(rng):
    """A file and all that can be made of its pixels are the same image."""
    form = rng.choice(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "PNG by hand", "TIFF by hand"])
    bits = int(rng.choice([8, 16])) if form.endswith("hand") else 8
    n_channels = int(rng.choice([1, 3] if form in ("JPEG", "BMP", "TIFF by hand") else [1, 3, 4]))
    turn = int(rng.integers(1, 9)) if form != "BMP" else 1
    shape = (*rng.integers(5, 40, 2).tolist(), n_channels)
    stored = rng.integers(0, 2**bits, shape).astype(f"u{bits // 8}")
    stored = stored[..., 0] if n_channels == 1 else stored
    case = f"{form}, {bits} bits, shape {stored.shape}, orientation {turn}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"image.{form.split()[0].lower()}"
        if form == "PNG by hand":
            path.write_bytes(png(stored, turn))
        elif form == "TIFF by hand":
            path.write_bytes(tiff(stored, turn, big_endian=bool(rng.integers(2))))
        else:
            write_by_pillow(path, stored, form, turn)
        if form in ("JPEG", "WEBP"):  # of what a codec has made of the pixels
            with Image.open(path) as image:
                stored = np.asarray(image)
        return case, different_images(path, np.ascontiguousarray(UPRIGHT[turn](stored)), rng)


def different_images(path, pixels, rng):
    """Ways in by which an image comes out unlike its upright pixels."""
    rgb = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels[..., :3]
    expected = rgb.astype(np.float64) / np.iinfo(pixels.dtype).max
    channels_first = torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1)
    read_only = pixels.copy()
    read_only.flags.writeable = False
    with Image.open(path) as opened, Image.open(path) as loaded:
        ways = {
            "path": [str(path)],
            "Path": [path],
            "array of paths": np.array([[str(path)]]),
            "Series": pd.Series([path], index=[7]),
            "column": pd.DataFrame({"path": [str(path)]}),
            "folder": path.parent,
            "PIL image": [opened],
            "array": [pixels],
            "stack": pixels[None],
            "Fortran order": [np.asfortranarray(pixels)],
            "flipped twice": [pixels[:, ::-1].copy()[:, ::-1]],
            "read-only": [read_only],
            "floats": [(pixels / np.iinfo(pixels.dtype).max).astype(np.float32)],
            "tensor": [channels_first],
            "stack of tensors": channels_first[None],
        }
        if pixels.dtype == np.uint8:
            loaded.load()
            ways |= {"loaded PIL image": [loaded], "PIL image of an array": [as_pil(pixels)]}
        embedder = PatchEmbedder("filter_bank", image_size=32, crop_size=None, random_state=0)
        reference = embedder.fit().transform([pixels])
        # All of them as pixels, and two as what becomes of them. (Of floats, 8 bits are resized
        # without rounding.)
        embedded = rng.choice([name for name in ways if name != "floats"], 2, replace=False)
        wrong = []
        for name, X in ways.items():
            got = Images(X)[0].permute(1, 2, 0).numpy()
            got = got / 255.0 if got.dtype == np.uint8 else got
            if got.shape != expected.shape or np.abs(got - expected).max() > 1e-6:
                wrong.append(f"{name}: other pixels")
            elif name in embedded and np.abs(embedder.transform(X) - reference).max() > 1e-4:
                wrong.append(f"{name}: other embeddings")
    return wrong


def masks(rng):
    """A mask means the same whatever stands for anomalous, and wherever it is."""
    shape = tuple(rng.integers(3, 30, 2))
    truth = rng.random(shape) < rng.choice([0.0, 0.1, 0.5, 0.9])
    grey, turn = truth.astype(np.uint8), int(rng.integers(1, 9))
    other = int(rng.integers(1, 256))
    palette = Image.new("P", shape[::-1])
    palette.putdata(grey.ravel().tolist())
    palette.putpalette([0, 0, 0, *rng.integers(1, 256, 3).tolist()])
    colour = np.zeros((*shape, 3), np.uint8)
    colour[truth] = rng.integers(1, 256, 3)
    pictures = {
        "1 bit": Image.fromarray(truth),
        "0 and 1": as_pil(grey),
        "0 and 255": as_pil(255 * grey),
        f"0 and {other}": as_pil(other * grey),
        "palette": palette,
        "colour": as_pil(colour),
    }
    ways = {f"{name}, in memory": image for name, image in pictures.items()}
    for dtype in (bool, np.uint8, np.int64, np.float32, np.float64):
        ways[f"array of {dtype.__name__}"] = truth.astype(dtype)
    ways |= {
        "array, 255": 255 * grey,
        "array, 65535": np.uint16(65535) * grey,
        "nested list": truth.tolist(),
        "tensor": torch.from_numpy(truth),
        "tensor, 255": torch.from_numpy(255 * grey),
        "read-only view": np.broadcast_to(truth[None], (2, *shape))[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        for (name, image), form in itertools.product(pictures.items(), ("png", "tiff", "bmp")):
            path = Path(folder) / f"{len(ways)}.{form}"
            image.save(path)
            ways[f"{name}, {form}"] = path
        turned = Path(folder) / "turned.png"
        turned.write_bytes(png(255 * stored_as(turn, grey), turn))
        ways[f"orientation {turn}"] = str(turned)
        wrong = []
        for name, mask in ways.items():
            try:
                got = read_mask(mask, 0)
                same = got.dtype == bool and np.array_equal(got, truth)
                wrong += [] if same else [f"{name}: other pixels"]
            except Exception as error:
                wrong.append(f"{name}: {type(error).__name__}: {error}")
    return f"shape {shape}, {truth.mean():.2f} anomalous", wrong


def gaussians(rng):
    """Distances and leave-one-out scores are those of refits, in float64, by the formulas."""
    dtype = rng.choice([np.float32, np.float64])
    solver = str(rng.choice(["auto", "full", "low_rank"]))
    n, d = int(rng.integers(4, 40)), int(rng.integers(1, 25))
    grid = () if rng.integers(2) else tuple(rng.integers(1, 4, 2).tolist())
    offset = 10 ** rng.uniform(0, 6) * rng.choice([0, 1, -1])
    scale, ratio = 10.0 ** rng.integers(-2, 3), 10 ** rng.uniform(-3, 0)
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    X = (offset + scale * rng.normal(size=(n + 5, *grid, d)) @ mixing).astype(dtype)
    X, new = X[:n], X[n:]
    # Where rounding to float32 has left nothing to learn from, there is nothing to compare.
    spread = float(np.std(X.astype(np.float64), axis=0).max()) or 1.0
    regularization = ratio * spread**2
    groups = rng.integers(0, n // 2, n) if rng.integers(2) else None
    if groups is not None and np.unique(groups, return_counts=True)[1].max() > n - 2:
        groups = None
    case = (
        f"{np.dtype(dtype)}, {solver}, n={n}, grid {grid}, {d} features, offset {offset:.3g}, "
        f"spread {spread:.3g}, regularization {regularization:.3g}, groups {groups is not None}"
    )
    settings = {"solver": solver, "regularization": regularization, "contamination": 0.5}
    gaussian = PatchGaussian(calibration="leave_one_out", **settings).fit(X, groups=groups)
    expected = distances(X, new, regularization).reshape(len(new), *grid)
    left_out = np.array([leave_out(X, i, groups, regularization) for i in range(n)])
    scores = -expected.reshape(len(new), -1).max(axis=1)
    tolerance = 1e-7 if dtype == np.float64 else 1e-5
    found = {
        "distances": (gaussian.mahalanobis(new), expected),
        "scores": (gaussian.score_samples(new), scores),
        "leave-one-out scores": (gaussian.training_scores_, left_out),
    }
    parts = PatchGaussian(calibration=None, **settings)
    for part in np.array_split(X, np.sort(rng.integers(1, n, rng.integers(1, 4)))):
        if len(part):
            parts.partial_fit(part)
    found["in parts"] = parts.mahalanobis(new), expected
    halves = [PatchGaussian(calibration=None, **settings).partial_fit(X[k::2]) for k in (0, 1)]
    found["merged"] = halves[0].merge(halves[1]).mahalanobis(new), expected
    found["tensor"] = gaussian.mahalanobis(torch.from_numpy(new)).numpy(), expected
    wrong = []
    for name, (got, wanted) in found.items():
        error = np.abs(got - wanted).max() / max(np.abs(wanted).max(), 1e-12)
        if got.shape != wanted.shape or not error <= tolerance:
            wrong.append(f"{name}: off by {error:.2g} of the largest")
    if (np.abs(gaussian.location_ - mean(X)) > 8 * np.spacing(float(np.abs(X).max()))).any():
        wrong.append("location is off by more than float64 rounds it")
    calibrated, new_scores = gaussian.calibration_scores_, gaussian.score_samples(new)
    p_values = [p_value(score, calibrated, groups) for score in new_scores]
    if not np.allclose(gaussian.p_values(new), p_values, rtol=1e-12):
        wrong.append("p-values are other than the formula's")
    if not np.array_equal(gaussian.predict(new) == -1, np.array(p_values) <= 0.5 + 1e-12):
        wrong.append("flags are other than those of the p-values")
    return case, wrong


def mean(X):
    return X[0].astype(np.float64) + (X.astype(np.float64) - X[0]).mean(axis=0)


def distances(X, new, regularization):
    """Mahalanobis distances, one position and one sample at a time."""
    n, d = len(X), X.shape[-1]
    X, new = (a.astype(np.float64).reshape(len(a), -1, d) for a in (X, new))
    found = np.empty(new.shape[:2])
    for position in range(X.shape[1]):
        centre = mean(X[:, position])
        centred = X[:, position] - centre
        covariance = centred.T @ centred / (n - 1) + regularization * np.eye(d)
        delta = new[:, position] - centre
        found[:, position] = np.sqrt((delta * np.linalg.solve(covariance, delta.T).T).sum(axis=1))
    return found


def leave_out(X, i, groups, regularization):
    """Score of a sample under the model that is fitted without it, and without its group."""
    is_out = np.arange(len(X)) == i if groups is None else groups == groups[i]
    return -distances(X[~is_out], X[i : i + 1], regularization).max()


def p_value(score, calibrated, groups):
    groups = np.arange(len(calibrated)) if groups is None else groups
    names = np.unique(groups)
    return (1 + sum(np.mean(calibrated[groups == g] <= score) for g in names)) / (1 + len(names))


def metrics(rng):
    """Metrics of masks and maps with many ties are those of all thresholds, one by one."""
    n, shape = int(rng.integers(1, 5)), tuple(rng.integers(2, 12, 2))
    masks = rng.random((n, *shape)) < rng.choice([0.05, 0.3, 0.7])
    masks.flat[0], masks.flat[-1] = True, False
    maps = np.round(rng.normal(size=masks.shape) + rng.integers(0, 3) * masks, rng.integers(0, 4))
    maps = maps.astype(rng.choice([np.float32, np.float64]))
    connectivity, limit = int(rng.choice([4, 8])), float(rng.uniform(0.01, 1))
    share = float(rng.uniform(0.1, 1))
    case = f"{n} maps of {shape} in {maps.dtype}, connectivity {connectivity}, limit {limit:.3f}"
    regions, structure = [], np.ones((3, 3)) if connectivity == 8 else None
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure)
        regions += [maps[index][labels == k + 1] for k in range(count)]
    normal, anomalous = maps[~masks], maps[masks]
    thresholds = np.unique(maps)[::-1]
    fpr = np.array([0, *((normal >= t).mean() for t in thresholds)])
    pro = np.array([0, *(np.mean([(r >= t).mean() for r in regions]) for t in thresholds)])
    saturated = [
        np.mean([min((r >= t).sum() / (share * r.size), 1) for r in regions]) for t in thresholds
    ]
    hits = np.array([(anomalous >= t).sum() for t in thresholds])
    alarms = np.array([(normal >= t).sum() for t in thresholds])
    f1 = 2 * hits / (hits + alarms + len(anomalous))
    pairs = anomalous[:, None] - normal
    rises = np.diff(hits, prepend=0)
    expected = {
        "pixel_roc_auc": ((pairs > 0).sum() + (pairs == 0).sum() / 2) / pairs.size,
        "pixel_average_precision": (rises * hits / (hits + alarms)).sum() / len(anomalous),
        "pixel_f1_max": f1.max(),
        "pixel_f1_max_threshold": thresholds[f1 >= f1.max() * (1 - 1e-12)][0],
        f"aupro_{limit:g}": area_up_to(limit, fpr, pro),
        "auspro": area_up_to(limit, fpr, np.array([0, *saturated])),
    }
    limit_given = {"max_fpr": limit, "connectivity": connectivity}
    got = dict(pixel_metrics(masks, maps, **limit_given))
    got["auspro"] = auspro_score(masks, maps, share, **limit_given)
    wrong = [
        f"{name} is {got.get(name)}, not {value}"
        for name, value in expected.items()
        if name not in got or not abs(got[name] - value) <= 1e-9
    ]
    curves = {
        "PRO": (pro_curve(masks, maps, connectivity=connectivity), pro),
        "sPRO": (spro_curve(masks, maps, share, connectivity=connectivity), [0, *saturated]),
    }
    for name, ((x, y, at), overlap) in curves.items():
        rows = [np.searchsorted(-thresholds, -t, side="right") for t in at]
        same = np.allclose(x, fpr[rows]) and np.allclose(y, np.asarray(overlap)[rows])
        if not same or (np.diff(x) < 0).any() or (x[-1], y[-1]) != (1, 1):
            wrong.append(f"the {name} curve is another")
    labels = np.where(masks.any(axis=(1, 2)), -1, 1)
    if len(set(labels)) == 2:
        scores = maps.max(axis=(1, 2))
        best = max(
            2 * ((scores >= t) & (labels < 0)).sum() / ((scores >= t).sum() + (labels < 0).sum())
            for t in scores
        )
        if not np.isclose(image_f1_max(labels, scores)[0], best):
            wrong.append("image_f1_max is another")
    return case, wrong


def area_up_to(limit, x, y):
    """Area under the straight lines between points, over the limit."""
    last = np.searchsorted(x, limit)
    share = (limit - x[last - 1]) / (x[last] - x[last - 1])
    x = [*x[:last], limit]
    return np.trapezoid([*y[:last], (1 - share) * y[last - 1] + share * y[last]], x) / limit


def splitters(rng):
    """No fold trains on a defect or on a tested part, and each sample is tested once."""
    n, n_splits = int(rng.integers(4, 60)), int(rng.integers(2, 7))
    y = np.where(rng.random(n) < rng.choice([0, 0.2, 0.6]), -1, 1)
    groups = rng.integers(0, rng.integers(2, n + 1), n) if rng.integers(2) else None
    shuffle = bool(rng.integers(2))
    seed = {"shuffle": True, "random_state": int(rng.integers(100))} if shuffle else {}
    fold = (NormalFold if groups is None else NormalGroupFold)(n_splits, **seed)
    case = f"{fold}, {n} samples, {(y < 0).sum()} defective"
    counts = [((y == label).sum() if groups is None else 0) for label in (1, -1)]
    must_work = groups is None and counts[0] >= n_splits and not 0 < counts[1] < n_splits
    try:
        folds = list(fold.split(np.zeros(n), y, groups))
    except ValueError as error:
        return case, [f"refused: {error}"] if must_work else []
    wrong = [] if must_work or groups is not None else ["too few samples are not refused"]
    tested = np.concatenate([test for _, test in folds])
    if len(folds) != n_splits or not np.array_equal(np.sort(tested), np.arange(n)):
        wrong.append("not every sample is tested once")
    for train, test in folds:
        if not np.array_equal(train, np.setdiff1d(np.flatnonzero(y == 1), test)):
            wrong.append("other samples are trained on than the good ones that are not tested")
        if groups is not None and np.isin(groups[train], groups[test]).any():
            wrong.append("a group is trained on and tested")
        if (y[test] == 1).sum() == 0 or ((y < 0).any() and (y[test] < 0).sum() == 0):
            wrong.append("a fold tests on one kind of image only")
    again = np.concatenate([test for _, test in fold.split(np.zeros(n), y, groups)])
    if not np.array_equal(again, tested):
        wrong.append("a second split is another")
    return case, wrong


AREAS = {f.__name__: f for f in (images, masks, gaussians, metrics, splitters)}


def run(area, seed, number):
    """Description and faults of a case, which its seed and its number make."""
    rng = np.random.default_rng([seed, list(AREAS).index(area), number])
    try:
        return AREAS[area](rng)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        name = f"{Path(where.filename).name}:{where.lineno}"
        return "", [f"{type(error).__name__} at {name}: {error}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--area", choices=AREAS)
    parser.add_argument("--case", type=int, help="one case alone, of an area")
    options = parser.parse_args()
    areas = [options.area] if options.area else list(AREAS)
    warnings.simplefilter("ignore")
    cases, faults, seconds = (dict.fromkeys(areas, 0) for _ in range(3))
    numbers = [options.case] if options.case is not None else itertools.count()
    until = time.monotonic() + 60 * options.minutes
    for number in numbers:
        # Each area has the same share of the time.
        area = areas[0] if options.case is not None else min(areas, key=seconds.get)
        number = cases[area] if options.case is None else number
        start = time.monotonic()
        case, wrong = run(area, options.seed, number)
        seconds[area] += time.monotonic() - start
        cases[area] += 1
        faults[area] += bool(wrong)
        if wrong and faults[area] <= 10:
            print(f"--seed {options.seed} --area {area} --case {number}: {case}", flush=True)
            print("".join(f"    {fault}\n" for fault in wrong), end="", flush=True)
        if time.monotonic() > until:
            break
    print_header("area", "cases", "with faults")
    for area in areas:
        print_row(area, cases[area], faults[area])
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main())
