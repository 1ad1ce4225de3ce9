"""What every table says of itself, and a folder of images laid out as MVTec AD's categories."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from skpadim.images._masks import read_mask
from skpadim.metrics._geometry import Window


def print_setting(*packages: str) -> None:
    """Print machine, versions and date."""
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    print(
        f"{datetime.date.today()}, {_processor()}{device}, "
        f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.2f}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {', '.join(map(_version, packages))}",
        flush=True,
    )


def _processor():
    with open("/proc/cpuinfo") as file:
        models = {line.split(":")[1].strip() for line in file if line.startswith("model name")}
    return " ".join(models) or platform.processor()


def _version(package):
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def read_category(root: Path) -> tuple[list[Path], pd.DataFrame]:
    """Training images, and a frame of test images: path, kind, mask path or None."""
    train = sorted((root / "train" / "good").iterdir())
    rows = [
        (path, path.parent.name, _mask_path(root, path)) for path in sorted(root.glob("test/*/*"))
    ]
    return train, pd.DataFrame(rows, columns=["path", "kind", "mask"])


def _mask_path(root, path):
    kind = path.parent.name
    return None if kind == "good" else root / "ground_truth" / kind / f"{path.stem}_mask.png"


def read_masks(paths, size: int, crop: int) -> np.ndarray:
    """Masks resized (nearest) and cropped as the detector does it with images."""
    margin = (size - crop) // 2
    window = Window((size, size), (margin, margin), (crop, crop))
    masks = np.zeros((len(paths), crop, crop), dtype=bool)
    for index, path in enumerate(paths):
        if path is not None:
            masks[index] = window.crop_mask(read_mask(path, index))
    return masks
