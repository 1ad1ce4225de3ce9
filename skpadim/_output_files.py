"""Files that are written whole or not at all, and checks before any work that they can be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_output_file(path: Path):
    """See, before any work, that a file can be written.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If its folder does not exist or cannot be written to, or if it is a folder itself.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}, the folder of {path.name}, does not exist.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file in it.")
    if not os.access(path.resolve().parent, os.W_OK) and not path.exists():
        raise PermissionError(
            f"{path} cannot be written: this user has no permission to write to its folder."
        )


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; at the end, and only without an error, rename it."""
    path = path.resolve()  # what a link points to is written, not the link
    if path.exists() and not path.is_file():
        yield path  # a pipe or a device: there is nothing to replace
        return
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
