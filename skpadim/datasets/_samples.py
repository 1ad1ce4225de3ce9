"""The images of a category: their split, kind and mask, read from names of files and folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from skpadim.datasets._layout import scan, subfolders
from skpadim.images._files import IMAGE_SUFFIXES

GOOD = "good"
UNKNOWN = "unknown"


class Sample(NamedTuple):
    """An image: where it is, its split, its kind ("good" or of defect), and its mask's path."""

    path: str
    split: str
    kind: str
    mask: str | None = None


def images_in(folder) -> list[str]:
    """Paths of the images right in a folder, sorted by name.

    Hidden files and those with another suffix (Thumbs.db, readme.txt) are passed over.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If the folder cannot be listed.
    """
    return [
        os.path.join(folder, name)
        for name in sorted(
            entry.name for entry in scan(folder) if is_image_name(entry.name) and entry.is_file()
        )
    ]


def some_images(folder) -> list[str]:
    """As :func:`images_in`, but none is an error."""
    images = images_in(folder)
    if not images:
        raise ValueError(
            f"{folder} has no images: looked for files ending in {', '.join(IMAGE_SUFFIXES)}."
        )
    return images


def is_image_name(name: str) -> bool:
    """Whether a file is taken as an image."""
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def read_splits(folder: Path, splits: Sequence[str], good: str = GOOD) -> list[Sample]:
    """Read folders ``train``, ``test`` and ``ground_truth`` as MVTec AD has them."""
    samples = []
    if "train" in splits:
        samples += read_good(folder / "train" / good, "train")
    if "test" in splits:
        samples += read_test(folder / "test", folder / "ground_truth", good)
    return samples


def read_good(folder: Path, split: str) -> list[Sample]:
    """The images of a folder of good ones.

    Raises
    ------
    ValueError
        If there are none.
    """
    return [Sample(path, split, GOOD) for path in some_images(folder)]


def read_test(
    test: Path, ground_truth: Path, good: str = GOOD, match: Callable | None = None
) -> list[Sample]:
    """The images of a test folder: the good ones, then each kind of defect with masks.

    Parameters
    ----------
    test : Path
        Has a folder for each kind.
    ground_truth : Path
        Has a folder of masks for each kind of defect.
    good : str
        Name of the folder of good images, if there is one.
    match : callable, default=match_masks
        Finds masks, given images and the folder of masks of their kind.

    Raises
    ------
    FileNotFoundError
        If a mask is missing.
    ValueError
        If there are no images.
    """
    match = match or match_masks
    kinds = [kind for kind in subfolders(test) if test / kind != ground_truth]
    samples = read_good(test / good, "test") if good in kinds else []
    for kind in kinds:
        if kind != good:
            images = some_images(test / kind)
            masks = match(images, ground_truth / kind)
            samples += [
                Sample(image, "test", kind, mask) for image, mask in zip(images, masks, strict=True)
            ]
    if not samples:
        raise ValueError(f"{test} has no folders of images: it needs one for each kind of defect.")
    return samples


def match_masks(images: Sequence[str], folder) -> list[str]:
    """Masks of images, from a folder, see :func:`assign_masks`.

    Suffixes may differ: data sets mix ``.bmp`` images and ``.png`` masks.

    Raises
    ------
    FileNotFoundError
        If an image has no mask.
    ValueError
        If it has two, or one that another image has too.
    """
    check_mask_folder(images, folder)
    found = assign_masks(images, images_in(folder))
    missing = [image for image, masks in zip(images, found, strict=True) if not masks]
    if missing:
        stem = stem_of(missing[0])
        raise FileNotFoundError(
            f"{missing[0]} has no mask: looked in {folder} for {stem}_mask and {stem}, ending in "
            f"{', '.join(IMAGE_SUFFIXES)}. {len(missing)} of the {len(images)} images beside it "
            "have none."
        )
    owners: dict[str, str] = {}
    for image, masks in zip(images, found, strict=True):
        if len(masks) > 1:
            raise ValueError(
                f"{image} has {len(masks)} masks: {' and '.join(sorted(masks))}. Keep one."
            )
        if masks[0] in owners:
            raise ValueError(
                f"{masks[0]} is the mask of both {owners[masks[0]]} and {image} by its name: each "
                "image must have one mask of its own. Rename one of the images, and its mask."
            )
        owners[masks[0]] = image
    return list(owners)


def assign_masks(images: Sequence[str], masks: Iterable[str]) -> list[list[str]]:
    """Masks of each image by their names: the image's with "_mask" behind, or the image's own.

    Where the two masks of one name lie in different folders, only that in a folder named as the
    image's counts. A mask belongs to one image: ``face_mask`` to ``face``, if there are images of
    both names; but not if ``face`` has a mask of its own name, and ``face_mask`` no other.

    Returns
    -------
    found : list of list of str
        None, one, or several for each image, whose names alone do not tell more.
    """
    by_stem: dict[str, list[str]] = {}
    for mask in masks:
        by_stem.setdefault(stem_of(mask), []).append(mask)
    stems = [stem_of(image) for image in images]
    found = [
        [mask for name in (f"{stem}_mask", stem) for mask in _beside(by_stem.get(name, []), image)]
        for stem, image in zip(stems, images, strict=True)
    ]
    while True:  # what is the only mask of an image is not another's, which has others
        taken = {masks[0] for masks in found if len(masks) == 1}
        left = [
            masks if len(masks) < 2 else [mask for mask in masks if mask not in taken]
            for masks in found
        ]
        if left == found:
            break
        found = left
    by_suffix = [
        [m for m in masks if stem_of(m) != s] for s, masks in zip(stems, found, strict=True)
    ]
    taken = set().union(*by_suffix)
    for index, (stem, suffixed) in enumerate(zip(stems, by_suffix, strict=True)):
        if not suffixed:
            found[index] = [mask for mask in found[index] if mask not in taken]
        elif stem.endswith("_mask"):
            found[index] = suffixed  # the other is of an image that is not among these
    return found


def _beside(masks, image):
    """Masks of one name; if they are several, those in a folder named as the image's."""
    folder = _folder_name(image)
    return masks if len(masks) < 2 else [mask for mask in masks if _folder_name(mask) == folder]


def _folder_name(path):
    return os.path.basename(os.path.dirname(path))


def match_mask_folders(images: Sequence[str], folder) -> list[str]:
    """Folders of masks of images, each named as its image is; MVTec LOCO AD has them.

    Raises
    ------
    FileNotFoundError
        If an image has no folder.
    ValueError
        If there are no images in it.
    """
    check_mask_folder(images, folder)
    found = [os.path.join(folder, stem_of(image)) for image in images]
    for image, masks in zip(images, found, strict=True):
        if not os.path.isdir(masks):
            raise FileNotFoundError(f"{image} has no masks: there is no folder {masks}.")
        some_images(masks)
    return found


def check_mask_folder(images: Sequence[str], folder):
    """Check that there is a folder for the masks of some images."""
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"{folder} does not exist: it should hold the masks of the {len(images)} images in "
            f"{os.path.dirname(images[0])}."
        )


def stem_of(path: str) -> str:
    """Name of a file without its last suffix."""
    return os.path.splitext(os.path.basename(path))[0]
