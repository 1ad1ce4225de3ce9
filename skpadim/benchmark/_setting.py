"""What a row says beside its figures: settings, versions of packages, machine."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path

from skpadim._version import __version__

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow")

# Columns of a row that figures depend on: what `settings_of` and `versions` tell.
SETTINGS = (
    "dataset",
    "backbone",
    "weights",
    "layers",
    "n_features",
    "projection",
    "image_size",
    "crop_size",
    "regularization",
    "sigma",
    "precision",
    "seed",
    "resolution",
    "skpadim_version",
    *(f"{name}_version" for name in _PACKAGES),
)


def settings_of(dataset: str, detector, embedder, seed: int, resolution: str) -> dict[str, str]:
    """Settings that figures depend on, as text; "auto" is written out.

    Parameters
    ----------
    dataset : str
    detector : PadimDetector
    embedder : PatchEmbedder
        Fitted, with the detector's parameters.
    seed : int
    resolution : str
    """
    size, crop = embedder._image_size, embedder.input_size_
    return {
        "dataset": dataset,
        "backbone": embedder.backbone_,
        "weights": _weights(embedder.backbone_, detector.weights),
        "layers": " ".join(embedder.layers_),
        "n_features": str(embedder.n_features_out_),
        "projection": detector.projection,
        "image_size": _pixels(size),
        "crop_size": "none" if crop == size else _pixels(crop),
        "regularization": repr(float(detector.regularization)),
        "sigma": repr(float(detector.sigma)),
        "precision": detector.precision,
        "seed": str(seed),
        "resolution": resolution,
    }


def versions() -> dict[str, str]:
    """Versions of the packages that figures depend on."""
    found = {f"{name}_version": importlib.metadata.version(name) for name in _PACKAGES}
    return {"skpadim_version": __version__, **found}


def machine(device, batch_size: int) -> dict[str, str]:
    """Where and when a row was computed; figures depend on it by rounding only."""
    import torch

    from skpadim._devices import resolve_device

    device = resolve_device(device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "n_threads": str(torch.get_num_threads()),
        "gpu": gpu,
        "device": device.type,
        "batch_size": str(batch_size),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _weights(backbone, weights):
    """Name of the weights; a file is known by its content, wherever it lies."""
    if weights is None or backbone == "filter_bank":
        return "none"
    if not os.path.isfile(weights):
        return os.fspath(weights)
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return f"{Path(weights).name} sha256:{digest[:16]}"


def _pixels(size):
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def _cpu_name():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model n")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
