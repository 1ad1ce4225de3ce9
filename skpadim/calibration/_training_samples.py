"""Labels and groups of samples, and which of them a model has learned from.

A label of +1 is good and -1 anomalous, as in scikit-learn; or 0 (False) is good and 1 (True)
anomalous, as in masks. Only ones are all good. Samples of a group belong together, as several
photographs of one part do. Nothing here imports torch before there are tensors.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import numpy as np
from pandas import isna

from skpadim._arrays import as_array, check_dense, is_tensor

USE_NORMAL_FOLD = (
    "In a search or cross-validation, give cv=NormalFold(...), of skpadim.model_selection: each "
    "fold then trains on good images, and tests on good and on anomalous ones. Folds of a plain "
    "cv=3 may be of one kind, where images come sorted by kind."
)
_VALUES_AT_ONCE = 2**22  # of samples whose digests are wanted


def check_labels(y, n_samples: int | None = None, *, name: str = "y") -> np.ndarray:
    """Labels of any kind as an array (n_samples,) of +1 (good) and -1 (anomalous)."""
    labels = as_array(y, name)
    if labels.ndim == 2 and labels.shape[1] == 1:  # a column of a DataFrame
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{name} has shape {labels.shape}; it must be (n,), one label an image.")
    if n_samples is not None and len(labels) != n_samples:
        raise ValueError(
            f"{name} has {len(labels)} labels for {n_samples} images; give one for each, or none."
        )
    if are_labels(labels):
        return labels.astype(int)
    if labels.dtype.kind in "buif" and np.isin(labels, (0, 1)).all():
        return np.where(labels == 1, -1, 1)
    raise ValueError(
        f"{name} has the labels {_some_values(labels)}; use +1 for good and -1 for defective "
        "images, or 0 for good and 1 for defective ones."
    )


def find_good(y, n_samples: int, *, at_least: int = 1) -> np.ndarray:
    """Indices of the images that are labelled good: those that a fit learns from."""
    labels = check_labels(y, n_samples)
    good = np.flatnonzero(labels == 1)
    if not are_labels(y):
        warnings.warn(
            f"y of 0 and 1 is read as 1 (True) for defective images: {n_samples - len(good)} of "
            f"{n_samples} are left out. In a search, give +1 for good and -1 for defective ones, "
            "numpy.where(y == 1, -1, 1): scikit-learn's scorers take the greater label for good.",
            stacklevel=4,
        )
    if len(good) >= at_least:
        return good
    if len(good):
        problem = f"y labels {len(good)} image as good; at least {at_least} are needed."
    else:
        problem = "y has no image labelled +1 (good): there is nothing to learn from."
    raise ValueError(f"{problem} {USE_NORMAL_FOLD}")


def are_labels(y) -> bool:
    """Whether all values are the numbers +1 or -1."""
    values = as_array(y, "y")
    return values.dtype.kind in "iuf" and bool(np.isin(values, (-1, 1)).all())


def check_both_labels(anomalous: np.ndarray, name: str) -> None:
    """Raise if all images are anomalous, or none is."""
    for is_there, missing, kind in (
        (anomalous.any(), "anomalous (-1)", "good"),
        (not anomalous.all(), "good (+1)", "anomalous"),
    ):
        if not is_there:
            raise ValueError(
                f"{name} has only one kind of image, {kind} ones: metrics compare the two, so at "
                f"least one {missing} image is needed too."
            )


def _some_values(labels):
    """The first few values, as text."""
    values = sorted({repr(value) for value in labels.tolist()})
    return ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")


def check_groups(groups, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Group of each sample as the index of its label, and the sorted labels (n_groups,)."""
    check_dense(groups, "groups")
    if is_tensor(groups):
        groups = as_array(groups, "groups")
    # A list of strings and NaN would become an array of strings, "nan" among them.
    given = np.asarray(groups) if hasattr(groups, "dtype") else np.asarray(groups, dtype=object)
    if given.ndim != 1:
        raise ValueError(
            f"groups has shape {given.shape}; give one label for each sample, ({n_samples},)."
        )
    if len(given) != n_samples:
        raise ValueError(
            f"groups has {len(given)} labels for {n_samples} samples; give one for each, or None."
        )
    missing = np.flatnonzero(isna(given))
    if len(missing):
        raise ValueError(
            f"groups has no label for {len(missing)} of {n_samples} samples (None or NaN, first "
            f"at index {missing[0]}); give a sample that belongs to no other a label of its own."
        )
    try:
        labels, codes = np.unique(given, return_inverse=True)
    except TypeError as error:
        kinds = ", ".join(sorted({type(label).__name__ for label in given}))
        raise ValueError(
            f"groups has labels that cannot be sorted, of the types {kinds}; use one type, "
            "strings or integers."
        ) from error
    return codes.astype(np.int64), labels


def rows_by_group_size(codes: np.ndarray) -> dict[int, np.ndarray]:
    """Samples of all groups of one size, one group after the other, by size from the smallest.

    Those of groups of one are in order.
    """
    _, counts = np.unique(codes, return_counts=True)
    order = np.argsort(codes, kind="stable")
    sizes = np.repeat(counts, counts)
    rows = {int(size): order[sizes == size] for size in np.unique(counts)}
    if 1 in rows:
        rows[1].sort()
    return rows


def sample_digests(samples) -> np.ndarray:
    """Digests (n_samples,) of a tensor's samples, of all of their values and their shape.

    Values are hashed as float32, so the dtype plays no part, nor does the device. Samples that
    differ have the same digest by chance, one pair in 2⁶⁴.
    """
    n_values = samples[0].numel()
    chunks = (
        digests_of(values_digest, chunk.float().contiguous().numpy(force=True))
        for chunk in samples.split(max(1, _VALUES_AT_ONCE // n_values))
    )
    return np.concatenate(list(chunks))


def digests_of(digest: Callable[..., int], items: Sequence) -> np.ndarray:
    """The digest of each item, by as many threads as torch has: hashing leaves the GIL free."""
    n_threads = sys.modules["torch"].get_num_threads()  # it is there: labels do without
    if n_threads == 1:
        return np.array([digest(item) for item in items], dtype=np.uint64)
    with ThreadPoolExecutor(n_threads) as threads:
        return np.array(list(threads.map(digest, items)), dtype=np.uint64)


def values_digest(values: np.ndarray) -> int:
    """Digest of an array's values and shape."""
    return content_digest([repr(values.shape).encode(), np.ascontiguousarray(values)])


def content_digest(parts: Iterable) -> int:
    """Digest of bytes that come in parts: eight bytes, a BLAKE2b hash."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "little")


def warn_of_learned_samples(
    digests: np.ndarray, learned: np.ndarray, estimator_name: str, contamination: float
) -> None:
    """Warn if a threshold is about to be set from samples that the model has learned from."""
    known = np.flatnonzero(np.isin(digests, learned))
    if len(known):
        warnings.warn(
            f"This {estimator_name} has learned from {len(known)} of the {len(digests)} images "
            f"given to calibrate (first at index {known[0]}): they score better than new ones, so "
            f"more new good images than contamination={contamination:g} will be flagged. Give "
            "images that it has not seen; calibrate() without images sets the threshold from "
            "the scores that fit has left.",
            stacklevel=3,
        )
