"""What labels mean to a fit: +1 is good and learned from, -1 is defective and left out."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import column_or_1d


def check_labels(y, n_samples: int) -> np.ndarray:
    """Labels as an array of +1 and -1, at least one of them +1.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or None
        +1 good, -1 defective; None means that all are good.
    n_samples : int

    Raises
    ------
    ValueError
        If `y` has another length or other labels, or if no image is labelled good.
    """
    if y is None:
        return np.ones(n_samples, dtype=int)
    labels = np.asarray(column_or_1d(y))
    if len(labels) != n_samples:
        raise ValueError(
            f"y has {len(labels)} labels for {n_samples} images; give one for each, or none."
        )
    if not are_labels(labels):
        found = ", ".join(repr(value) for value in np.unique(labels)[:5].tolist())
        raise ValueError(f"y has the labels {found}; use +1 for good and -1 for defective images.")
    if not (labels == 1).any():
        raise ValueError("y has no image labelled +1 (good): there is nothing to learn from.")
    return labels.astype(int)


def are_labels(y) -> bool:
    """Whether all values are +1 or -1."""
    return bool(np.isin(np.asarray(y), (-1, 1)).all())
