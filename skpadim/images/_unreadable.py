"""Images that cannot be read: the error that tells of one. Needs no torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator


class UnreadableImageError(ValueError):
    """An image cannot be read, or is none that the detector takes.

    Parameters
    ----------
    problem : str
        What is wrong, and what to do.
    index : int
        Its place in X.
    path : str, default=None
        Its file; None where X holds no paths.

    Attributes
    ----------
    problem, index, path
        As above.

    Examples
    --------
    >>> from skpadim import PadimDetector, UnreadableImageError
    >>> try:
    ...     PadimDetector("filter_bank").fit(["a.png", "b.png", "c.png"])
    ... except UnreadableImageError as error:
    ...     print(error.index, error.path)
    0 a.png
    """

    def __init__(self, problem: str, index: int, path: str | None = None):
        super().__init__(problem, index, path)
        self.problem, self.index, self.path = problem, index, path

    def __str__(self):
        where = "" if self.path is None else f" ({self.path})"
        return f"Image {self.index}{where} {self.problem}"


def warned_of(batches: Iterable[tuple]) -> Iterator:
    """Yield the first of each pair (values, errors of skipped images), and warn of the second."""
    for values, errors in batches:
        for error in errors.values():  # named: a generator's frames have no place that a user knows
            warnings.warn(f"{error} It is skipped, and its values are NaN.", stacklevel=2)
        yield values
