"""Which files of a folder are images, by their suffixes. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Paths of the images in a folder and its subfolders, sorted; hidden files are left out.

    Parameters
    ----------
    folder : path

    Returns
    -------
    paths : list of Path

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is no such folder.
    ValueError
        If there are no images in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist.")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder.")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise ValueError(
            f"{folder} has no images: looked, in its subfolders too, for files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    return paths
