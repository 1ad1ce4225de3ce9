"""What a pickled estimator carries beside its attributes: the version that wrote it."""

from __future__ import annotations

import importlib.metadata
import warnings
from functools import cache

from sklearn.exceptions import InconsistentVersionWarning as SklearnInconsistentVersionWarning

from skpadim._version import __version__

PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow")


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of what scores depend on, by package."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


class InconsistentVersionWarning(SklearnInconsistentVersionWarning):
    """A model was written by another version of skpadim than the one that reads it.

    A subclass of scikit-learn's warning, so that a filter set for the one also treats the other.
    """

    def __init__(self, *, estimator_name, current_version, original_version):
        super().__init__(
            estimator_name=estimator_name,
            current_sklearn_version=current_version,
            original_sklearn_version=original_version,
        )

    def __str__(self):
        return (
            f"This {self.estimator_name} was saved by skpadim {self.original_sklearn_version} and "
            f"is read by skpadim {self.current_sklearn_version}: its scores may differ. Fit and "
            "save it again to be sure."
        )


class VersionedStateMixin:
    """Writes the version into the state of a pickled estimator and compares it on reading."""

    def __getstate__(self):
        return {**super().__getstate__(), "_skpadim_version": __version__}

    def __setstate__(self, state):
        state = dict(state)
        version = state.pop("_skpadim_version", "unknown")
        if version != __version__:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_version=__version__,
                    original_version=version,
                ),
                stacklevel=2,
            )
        super().__setstate__(state)
