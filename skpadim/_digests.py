"""Has a model learned from this sample? Digests of embeddings and images, to find them again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch

# A sample's digest covers its sum, which a change of any one value moves, and this many of its
# values: to hash all of them would be a part of the time of a fit that one notices.
_N_VALUES = 2**13
_CHUNK_VALUES = 2**22  # of samples looked at together
# Of a file its size, and so many bytes at either end.
_N_BYTES = 2**14


def sample_digests(samples: torch.Tensor) -> np.ndarray:
    """Eight bytes for each sample that are the same for the same values.

    Values are compared as float32, so the dtype plays no part, nor does the device. Samples that
    differ have the same digest by chance, one pair in 2⁶⁴, unless they agree in all values that
    are looked at and the rest of one are those of the other in another order.

    Parameters
    ----------
    samples : tensor of shape (n_samples, ...)

    Returns
    -------
    digests : ndarray of shape (n_samples,), uint64
    """
    shape = repr(tuple(samples.shape[1:])).encode()
    n_values = samples[0].numel()
    step = -(-n_values // _N_VALUES)
    digests = []
    for chunk in samples.split(max(1, _CHUNK_VALUES // n_values)):
        values = chunk.reshape(len(chunk), -1).to(torch.float32)
        looked_at = values[:, ::step].contiguous().numpy(force=True)
        # Of integers, so that the order of summation cannot matter; two values in each, which is
        # ten times as fast as one, and takes an even number of them from an even place in memory.
        if n_values % 2:
            values = torch.nn.functional.pad(values, (0, 1))
        elif values.storage_offset() % 2:
            values = values.clone()
        sums = values.contiguous().view(torch.int64).sum(dim=1).numpy(force=True)
        digests += [
            blake2b(shape + total.tobytes() + row.tobytes(), digest_size=8).digest()
            for total, row in zip(sums, looked_at, strict=True)
        ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def image_digests(images: Sequence) -> np.ndarray:
    """Eight bytes for each image that are the same for the same content.

    Of a file that is what it begins and ends with, whatever its name; of an array or PIL image its
    pixels. A file and the array read from it do not compare.

    Parameters
    ----------
    images : sequence of paths, arrays, tensors or PIL images

    Returns
    -------
    digests : ndarray of shape (n_images,), uint64
    """
    if isinstance(images, torch.Tensor):
        return sample_digests(images)
    return np.array([_image_digest(image) for image in images], dtype=np.uint64)


def _image_digest(image):
    if not isinstance(image, (str, os.PathLike)):
        pixels = image if isinstance(image, torch.Tensor) else torch.tensor(np.asarray(image))
        return sample_digests(pixels[None])[0]
    with open(image, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(_N_BYTES)
        if size > _N_BYTES:
            file.seek(max(_N_BYTES, size - _N_BYTES))
            content += file.read()
    digest = blake2b(content + size.to_bytes(8, "little"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


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
