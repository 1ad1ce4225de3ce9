"""Images that cannot be read: the error that tells of one, and a look for all of them.

Needs no torch until it looks.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence

# Files that are given to threads at a time.
_BATCH_SIZE = 64


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
    """Yield the first of each pair (values, errors of skipped images), with warnings of the second.

    A generator's frames have no place that a user would know, so the warnings name the images.
    """
    for values, errors in batches:
        for error in errors.values():
            warnings.warn(f"{error} It is skipped, and its values are NaN.", stacklevel=2)
        yield values


def find_problems(paths: Sequence[str | os.PathLike]) -> list[str | None]:
    """What is wrong with each image file, or None; several are decoded at a time.

    For when it is known that some cannot be read: it takes as long as reading them all.
    """
    from skpadim.images._batches import read_ahead

    batches = read_ahead(lambda index: find_problem(paths[index]), len(paths), _BATCH_SIZE)
    return [problem for batch in batches for problem in batch]


def find_problem(path: str | os.PathLike) -> str | None:
    """What is wrong with an image file, or None."""
    from skpadim.images._read import read_image

    try:
        read_image(path)
    except (OSError, TypeError, ValueError) as error:
        return str(error)
    return None
