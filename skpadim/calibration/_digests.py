"""Has a model learned from this sample? Digests of embeddings and images, to find them again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b

import numpy as np
import torch

from skpadim.images._files import ImageFileError, open_regular

_CHUNK_VALUES = 2**22  # of samples looked at together
_CHUNK_BYTES = 2**20  # of a file read together


def sample_digests(samples: torch.Tensor) -> np.ndarray:
    """Eight bytes for each sample, a BLAKE2b hash of all of its values and its shape.

    Values are hashed as float32, so the dtype plays no part, nor does the device. Samples that
    differ have the same digest by chance, one pair in 2⁶⁴.

    Parameters
    ----------
    samples : tensor of shape (n_samples, ...)

    Returns
    -------
    digests : ndarray of shape (n_samples,), uint64
    """
    n_values = samples[0].numel()
    digests = []
    for chunk in samples.split(max(1, _CHUNK_VALUES // n_values)):
        values = chunk.to(torch.float32).contiguous().numpy(force=True)
        digests += _of_each(_values_digest, values)
    return np.array(digests, dtype=np.uint64)


def image_digests(images: Sequence) -> np.ndarray:
    """Eight bytes for each image, a BLAKE2b hash of all of its content.

    Of a file that is all of its bytes, whatever its name; of an array or PIL image its pixels. A
    file and the array read from it do not compare.

    Parameters
    ----------
    images : sequence of paths, arrays, tensors or PIL images

    Returns
    -------
    digests : ndarray of shape (n_images,), uint64
    """
    if isinstance(images, torch.Tensor):
        return sample_digests(images)
    return np.array(_of_each(_image_digest, images), dtype=np.uint64)


def _of_each(digest, items):
    """Digests by as many threads as torch has; hashing and reading files leave the GIL free."""
    n_threads = torch.get_num_threads()
    if n_threads == 1:
        return [digest(item) for item in items]
    with ThreadPoolExecutor(n_threads) as threads:
        return list(threads.map(digest, items))


def _image_digest(image):
    if isinstance(image, (str, os.PathLike)):
        try:
            with open_regular(image) as file:
                return _hash(iter(partial(file.read, _CHUNK_BYTES), b""))
        except ImageFileError as error:
            raise ImageFileError(f"{os.fspath(image)} {error}") from error
    if isinstance(image, torch.Tensor):
        image = image.to(torch.float32).numpy(force=True)
    return _values_digest(np.asarray(image, dtype=np.float32))


def _values_digest(values):
    return _hash([repr(values.shape).encode(), np.ascontiguousarray(values)])


def _hash(parts):
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def warn_of_learned_samples(
    digests: np.ndarray, learned: np.ndarray, estimator_name: str, contamination: float
) -> None:
    """Warn if a threshold is about to be set from samples that the model has learned from.

    Parameters
    ----------
    digests : ndarray of shape (n_samples,), uint64
        Of the samples given to set the threshold.
    learned : ndarray of shape (n_learned,), uint64
        Of the samples that the model was fitted to.
    estimator_name : str
    contamination : float
    """
    known = np.flatnonzero(np.isin(digests, learned))
    if len(known):
        warnings.warn(
            f"This {estimator_name} has learned from {len(known)} of the {len(digests)} samples "
            f"given to calibrate (first at index {known[0]}): they score better than new ones, so "
            f"more new normal samples than contamination={contamination:g} will be flagged. Give "
            "samples that it has not seen; calibrate() without samples sets the threshold from "
            "the scores that fit has left.",
            stacklevel=3,
        )
