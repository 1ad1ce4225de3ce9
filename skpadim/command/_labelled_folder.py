"""Which images of a folder are good, of what kind the others are, and their masks."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from skpadim.command._given_images import counted
from skpadim.images._files import list_images

_GOOD = "good"
_GOOD_NAMES = (_GOOD, "ok", "normal")
_MASKS = "ground_truth"


class LabelledImages(NamedTuple):
    """Images of known kinds."""

    paths: list[str]
    kinds: list[str]  # "good", or the name of the folder
    y: list[int]  # +1 good, -1 defective
    masks: list[str | None] | None  # of defective images; None if there are none at all
    mask_folder: Path | None = None  # where they lie


def labelled_images(folder: Path, masks: Path | None = None) -> LabelledImages | None:
    """Images whose folders are named as their kinds; None without a folder of good images."""
    # Not before: it takes a second, and a help is to be quick.
    from skpadim.datasets._layout import images_in, subfolders

    if not _good_in(folder) and _good_in(folder / "test"):
        folder = folder / "test"  # of a category of MVTec AD
    good = _good_in(folder)
    if not good:
        if masks is not None:
            raise ValueError(
                f"--masks {masks}: {folder} has no folder {', '.join(_GOOD_NAMES)}, so it is not "
                "known which images are good. Put the images into folders named as their kinds."
            )
        return None
    if loose := images_in(folder):
        warnings.warn(
            f"{counted(len(loose), 'image')} right in {folder} left out: in no folder of a kind.",
            stacklevel=2,
        )
    beside = [path / _MASKS for path in (folder.absolute().parent, folder)]
    given, masks = masks, masks or next((path for path in beside if path.is_dir()), None)
    names = [name for name in subfolders(folder) if folder / name not in (masks, *beside)]
    found = [(str(path), name) for name in names for path in list_images(folder / name)]
    paths = [path for path, _ in found]
    kinds = [_GOOD if name in good else name for _, name in found]
    y = [1 if kind == _GOOD else -1 for kind in kinds]
    print(f"kinds of {folder}" + (f", masks of {masks}" if masks else ""), file=sys.stderr)
    found_masks = None if masks is None else _find_masks(paths, y, masks)
    if given and -1 in y and not any(found_masks):
        raise ValueError(
            f"--masks {given}: no image in it is named as one of the defective ones in {folder}, "
            "or as one with '_mask' behind."
        )
    return LabelledImages(paths, kinds, y, found_masks, masks)


def check_only_good(folders: Iterable[Path]) -> None:
    """Raise if a folder to learn from is a data set's; warn if it has other kinds than good."""
    from skpadim.datasets._layout import subfolders

    for folder in folders:
        names = subfolders(folder)
        if {"train", "test"} <= set(names) or _MASKS in names:
            good = [f"{folder / 'train' / name}" for name in _good_in(folder / "train")]
            raise ValueError(
                f"{folder} has the folders {', '.join(names)}, as a category of MVTec AD, and only "
                f"good images are learned from: give {' or '.join(good) or 'their folder'}."
            )
        good = _good_in(folder)
        if good and len(names) > 1:
            warnings.warn(
                f"All images of {folder} are taken for good ones, and it has the folders "
                f"{', '.join(names)}: give {folder / good[0]} for those of this folder alone.",
                stacklevel=2,
            )


def _good_in(folder):
    from skpadim.datasets._layout import subfolders

    if not folder.is_dir():
        return []
    return [name for name in subfolders(folder) if name.lower() in _GOOD_NAMES]


def _find_masks(paths, y, folder):
    """A mask of each defective image, or None where there is none."""
    from skpadim.datasets._layout import assign_masks

    bad = [index for index, label in enumerate(y) if label < 0]
    masks = [os.fspath(path) for path in list_images(folder)]
    result: list[str | None] = [None] * len(paths)
    for index, found in zip(bad, assign_masks([paths[i] for i in bad], masks), strict=True):
        if len(found) > 1:
            raise ValueError(f"{paths[index]} has {len(found)} masks: {', '.join(sorted(found))}.")
        result[index] = found[0] if found else None
    return result
