"""Which samples belong together, several photographs of one part say."""

from __future__ import annotations

import numpy as np
from pandas import isna

from skpadim._arrays import as_array, check_dense, is_tensor


def check_groups(groups, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Group of each sample, as the index of its label.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
        Labels of one kind: strings, integers, dates.
    n_samples : int

    Returns
    -------
    codes : ndarray of shape (n_samples,), int64
    labels : ndarray of shape (n_groups,)
        Sorted; sample i has ``labels[codes[i]]``.

    Raises
    ------
    TypeError, ValueError
        If `groups` is sparse or has masked values, has another shape, a label is missing, or
        labels cannot be sorted.
    """
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
    """Samples of all groups of one size, one group after the other, for each size there is.

    Parameters
    ----------
    codes : ndarray of shape (n_samples,)
        Group of each sample.

    Returns
    -------
    rows : dict of int to ndarray of shape (n_groups * size,)
        Indices of samples by group size, smallest size first; those of size one in order.
    """
    _, counts = np.unique(codes, return_counts=True)
    order = np.argsort(codes, kind="stable")
    sizes = np.repeat(counts, counts)
    rows = {int(size): order[sizes == size] for size in np.unique(counts)}
    if 1 in rows:
        rows[1].sort()
    return rows
