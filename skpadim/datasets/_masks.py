"""Masks of a data set, all at once."""

from __future__ import annotations

import os

import numpy as np

from skpadim.images._items import list_items
from skpadim.images._masks import (
    as_sequence,
    check_mask_size,
    image_size,
    is_in_files,
    is_missing,
    mask_name,
    read_mask,
    why_empty,
)


def read_masks(masks, images=None) -> list[np.ndarray | None]:
    """Read the masks of a data set.

    Parameters
    ----------
    masks : sequence
        ``masks`` of a loaded data set: paths of images with two values, anomalous where not
        black, objects that become arrays, arrays, and None for good images.
    images : sequence of the same length, or path of a folder, default=None
        Paths of the images, ``data`` of the data set. Masks in files are checked to have their
        sizes then, and None becomes a mask of zeros.

    Returns
    -------
    masks : list of ndarray of shape (height, width), bool
        True where defective. Each has the size of its file: a list, since images of one data
        set can differ in size; ``numpy.stack`` makes an array of those that do not. Without
        `images`, None stays None.

    Raises
    ------
    TypeError, ValueError
        If a mask cannot be read, has other values, or another size than its image; or if one in a
        file has no anomalous pixel, since None stands for good images. It is named.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.datasets import read_masks
    >>> read_masks([None, np.eye(2)])
    [None, array([[ True, False],
           [False,  True]])]
    """
    masks = as_sequence(masks)
    images = [None] * len(masks) if images is None else list_items(images)
    if len(images) != len(masks):
        raise ValueError(
            f"images has {len(images)} paths and masks has {len(masks)} masks: give one an image."
        )
    return [
        _read(mask, image, index)
        for index, (mask, image) in enumerate(zip(masks, images, strict=True))
    ]


def _read(mask, image, index):
    """One mask, checked against its image, if that is known."""
    if image is not None and not isinstance(image, (str, os.PathLike)):
        raise TypeError(f"images[{index}] must be a path, not {type(image).__name__}.")
    if is_missing(mask):
        size = None if image is None else image_size(image)
        if image is not None and size is None:
            raise ValueError(f"images[{index}] ({image}) cannot be read as an image.")
        return None if image is None else np.zeros(size, bool)
    array = read_mask(mask, index)
    check_mask_size(array.shape, mask, image, index)
    if is_in_files(mask) and not array.any():
        raise ValueError(
            f"{mask_name(mask, index)} has no anomalous pixel: {why_empty(mask)}. If its image is "
            "good, give None for its mask; else correct it, or leave the image out."
        )
    return array
