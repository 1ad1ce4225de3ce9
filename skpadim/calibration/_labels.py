"""What labels of images mean, wherever there are any.

+1 is good and -1 anomalous, as in scikit-learn; or 0 (False) is good and 1 (True) anomalous, as in
masks. Only ones are all good.
"""

from __future__ import annotations

import warnings

import numpy as np

from skpadim._arrays import as_array


def check_labels(y, n_samples: int | None = None, *, name: str = "y") -> np.ndarray:
    """Labels as an array of +1 (good) and -1 (anomalous).

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        +1 good and -1 anomalous; or bool, or 0 and 1, 1 (True) where anomalous.
    n_samples : int, default=None
        Not compared if None.
    name : str, default="y"
        Named in errors.

    Raises
    ------
    TypeError, ValueError
        If `y` has another shape, length or other labels, or is no array.
    """
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
    """Indices of the images that are labelled good: those that a fit learns from.

    Raises
    ------
    TypeError, ValueError
        As :func:`check_labels`, or if there are fewer than `at_least`.
    """
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


USE_NORMAL_FOLD = (
    "In a search or cross-validation, give cv=NormalFold(...), of skpadim.model_selection: each "
    "fold then trains on good images, and tests on good and on anomalous ones. Folds of a plain "
    "cv=3 may be of one kind, where images come sorted by kind."
)


def are_labels(y) -> bool:
    """Whether all values are the numbers +1 or -1."""
    values = as_array(y, "y")
    return values.dtype.kind in "iuf" and bool(np.isin(values, (-1, 1)).all())


def check_both_kinds(anomalous: np.ndarray, name: str) -> None:
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
