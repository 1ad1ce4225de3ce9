"""How far what is fast is from what is exact.

Usage: python benchmarks/precision.py CATEGORY_FOLDER [--train 160]

Distances in float32 against a reference in float64 that shares no code with the detector but its
network and its choice of features; bfloat16 against float32 in image AUROC and AUPRO on all images
of the folder; images one by one against batches of 32; the low-rank form of the Gaussians against
the full one. resnet18 has random weights. A CPU without instructions for bfloat16, on which a
detector would compute in float32, has to emulate it here.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torchvision
from _setting import print_setting, read_category, read_masks
from _timing import print_bars, print_header, print_row
from PIL import Image
from sklearn.metrics import roc_auc_score

import skpadim.embedding._patch_embedder
from skpadim import PadimDetector, PatchGaussian
from skpadim.backbones import load_backbone
from skpadim.metrics import aupro_score

LAYERS = ("layer1", "layer2", "layer3")
SIZE, CROP = 256, 224
METRIC_BAR, DISTANCE_BAR, BATCH_BAR, RANK_BAR = 0.003, 1e-4, 1e-5, 1e-4


def make_detector(backbone, folder, **parameters):
    weights = "imagenet" if backbone == "filter_bank" else f"{folder}/weights.pth"
    return PadimDetector(backbone, weights=weights, random_state=42, **parameters)


def reference_embeddings(detector, paths):
    """Embeddings in float64, (n, height, width, n_features), layer by layer as in the paper."""
    network = load_backbone(detector.backbone, detector.weights).double()
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (network.mean, network.std))
    embeddings = []
    for path in paths:
        pixels = _decode(path)
        with torch.no_grad():
            maps = network(((pixels - mean) / std)[None], LAYERS)
        grid = maps[0].shape[2:]
        grown = [torch.nn.functional.interpolate(m, grid, mode="nearest") for m in maps]
        embeddings.append(torch.cat(grown, dim=1)[0, detector.embedder_.feature_indices_])
    return torch.stack(embeddings).permute(0, 2, 3, 1).numpy()


def _decode(path):
    margin = (SIZE - CROP) // 2
    image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    image = image.crop((margin, margin, margin + CROP, margin + CROP))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255


def reference_distances(train, test, regularization=0.01):
    """Mahalanobis distances in float64, one position after the other."""
    distances = np.empty(test.shape[:3])
    for position in np.ndindex(test.shape[1:3]):
        at = (slice(None), *position)
        covariance = np.cov(train[at], rowvar=False) + regularization * np.eye(train.shape[-1])
        delta = test[at] - train[at].mean(axis=0)
        squared = (delta * np.linalg.solve(covariance, delta.T).T).sum(axis=1)
        distances[at] = np.sqrt(squared)
    return distances


def relative_difference(values, reference):
    return float(np.abs(values / reference - 1).max())


def figures(detector, test, masks):
    maps = detector.anomaly_map(test["path"])
    truth = test["kind"] != "good"
    return roc_auc_score(truth, maps.max(axis=(1, 2))), aupro_score(masks, maps)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--train", type=int, default=160, help="training images of the distances")
    options = parser.parse_args()
    print_setting("skpadim", "torchvision")
    train, test = read_category(options.root)
    masks = read_masks(test["mask"], SIZE, CROP)
    bars = []
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(torchvision.models.resnet18().state_dict(), f"{folder}/weights.pth")
        print_header("backbone", "comparison", "largest relative difference")
        for backbone in ("resnet18", "filter_bank"):
            found = compare_numbers(backbone, folder, train[: options.train], test["path"][:32])
            for name, (difference, bar) in found.items():
                print_row(backbone, name, f"{difference:.1e}")
                bars.append((f"{backbone}, {name}", difference, "<=", bar))
        print_header("backbone", "precision", "image AUROC", "AUPRO")
        for backbone in ("resnet18", "filter_bank"):
            found = []
            for precision in ("float32", "bfloat16"):
                detector = make_detector(backbone, folder, precision=precision)
                with mock.patch.object(skpadim.embedding._patch_embedder, "arithmetic_of", itself):
                    found.append(figures(detector.fit(train), test, masks))
                print_row(backbone, precision, *(f"{figure:.4f}" for figure in found[-1]))
            for name, one, other in zip(("image AUROC", "AUPRO"), *found, strict=True):
                bars.append((f"{backbone}, {name}, bfloat16", abs(one - other), "<=", METRIC_BAR))
    print_bars(bars)


def itself(precision, _device):
    """The arithmetic of a precision, also where a CPU has to emulate it."""
    return getattr(torch, precision)


def compare_numbers(backbone, folder, train, test):
    """Largest relative differences, and the bar of each."""
    detector = make_detector(backbone, folder).fit(train)
    reference = reference_distances(*(reference_embeddings(detector, p) for p in (train, test)))
    embeddings = detector.embedder_.transform(test)
    distances = detector.gaussian_.mahalanobis(embeddings)
    in_batches = detector.anomaly_map(test)
    one_by_one = detector.set_params(batch_size=1).anomaly_map(test)
    training = detector.embedder_.transform(train)
    full, low_rank = (
        PatchGaussian(solver=solver).fit(training).mahalanobis(embeddings)
        for solver in ("full", "low_rank")
    )
    return {
        "float32, distances, to float64": (
            relative_difference(distances, reference),
            DISTANCE_BAR,
        ),
        "maps, one by one to batches of 32": (
            relative_difference(one_by_one, in_batches),
            BATCH_BAR,
        ),
        "distances, low rank to full": (relative_difference(low_rank, full), RANK_BAR),
    }


if __name__ == "__main__":
    main()
