"""A detector from the command line's options, and from a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from skpadim.files._files import written_whole

if TYPE_CHECKING:
    from skpadim import PadimDetector

# Larger models are not read, but mapped from their files.
_MAX_BYTES_IN_MEMORY = 2**30


def make_detector(options, **parameters) -> PadimDetector:
    """An unfitted detector with the options that `fit` and `benchmark` share."""
    from skpadim import PadimDetector

    size, crop_size = options.image_size, options.crop_size
    if crop_size is None:  # the paper's 224 of 256
        crop_size = (
            tuple(max(1, side * 7 // 8) for side in size)
            if isinstance(size, tuple)
            else max(1, size * 7 // 8)
        )
    return PadimDetector(
        options.backbone,
        weights=None if options.weights == "none" else options.weights,
        layers=options.layers if options.layers == "auto" else tuple(options.layers),
        n_features=None if options.n_features == "all" else options.n_features,
        image_size=size,
        crop_size=None if crop_size == "none" else crop_size,
        regularization=options.regularization,
        sharing=options.sharing,
        align=None if options.align == "none" else options.align,
        device=options.device,
        random_state=options.seed,
        verbose=1,
        **parameters,
    )


def check_model_file(path: Path) -> None:
    """See that there is such a file, before torch is imported."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; the model file comes first.")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; 'skpadim fit' writes model files.")


def load_model(path: Path) -> PadimDetector:
    """A detector from a model file."""
    check_model_file(path)
    import joblib

    from skpadim import PadimDetector

    with open(path, "rb"):
        pass  # that it may be read, or the system's word on it
    try:
        is_large = path.stat().st_size > _MAX_BYTES_IN_MEMORY
        detector = joblib.load(path, mmap_mode="r" if is_large else None)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path} cannot be read as a model: it needs the module {error.name!r}, which is not "
            "installed."
        ) from error
    except Exception as error:  # unpickling raises nearly anything, which would help nobody
        raise ValueError(
            f"{path} cannot be read as a model: it is none, or damaged, or comes from another "
            "version. 'skpadim fit' writes model files."
        ) from error
    if not isinstance(detector, PadimDetector):
        raise ValueError(f"{path} holds a {type(detector).__name__}, not a PadimDetector.")
    return detector


def n_learned(detector: PadimDetector, paths) -> int:
    """How many of some image files a detector has learned from, told by their content."""
    import numpy as np

    from skpadim.streaming._learning import image_digests

    return int(np.isin(image_digests(paths), detector._training_digests).sum())


def write_model(detector: PadimDetector, path: Path) -> None:
    """Write a model file, whole or not at all."""
    import joblib

    with written_whole(path) as part:
        joblib.dump(detector, part)
