"""Masks as data sets keep them: several files for one image, classes instead of black and white."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from skpadim.metrics._geometry import check_mask_size, image_size, read_mask


@dataclass(frozen=True)
class MaskFiles:
    """A mask in one or more image files, read when it is used as an array.

    ``numpy.asarray(mask)`` is bool of shape (height, width): True where any of the files is above
    a threshold.

    Parameters
    ----------
    paths : tuple of str
        Image files of one size.
    threshold : int, default=0
        Of the files' values as they are: indices of classes, or of a palette.
    """

    paths: tuple[str, ...]
    threshold: int = 0

    def __repr__(self):
        return f"<mask {', '.join(self.paths)}>"

    def __array__(self, dtype=None, copy=None):
        union = None
        for path in self.paths:
            values = _read_values(path)
            if union is not None and union.shape != values.shape:
                raise ValueError(
                    f"{path} is {_size(values.shape)} pixels and {self.paths[0]} is "
                    f"{_size(union.shape)}: the masks of one image must have one size."
                )
            mask = values > self.threshold
            union = mask if union is None else union | mask
        return union if dtype is None else union.astype(dtype)


def read_masks(masks, images=None) -> list[np.ndarray | None]:
    """Read the masks of a data set.

    Parameters
    ----------
    masks : sequence
        ``masks`` of a loaded data set: paths (True where brighter than 127), objects that become
        arrays, arrays, and None for good images.
    images : sequence of the same length, default=None
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
    ValueError
        If a mask cannot be read, or has another size than its image. Both are named.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.datasets import read_masks
    >>> read_masks([None, np.eye(2)])
    [None, array([[ True, False],
           [False,  True]])]
    """
    masks = list(masks)
    if images is None:
        return [
            None if mask is None else read_mask(mask, index) for index, mask in enumerate(masks)
        ]
    if hasattr(images, "ndim") and images.ndim == 2:  # DataFrame of one column
        images = np.asarray(images)[:, 0]
    images = list(images)
    if len(images) != len(masks):
        raise ValueError(
            f"images has {len(images)} paths and masks has {len(masks)} masks: give one an image."
        )
    arrays = []
    for index, (mask, image) in enumerate(zip(masks, images, strict=True)):
        if not isinstance(image, (str, os.PathLike)):
            raise TypeError(f"images[{index}] must be a path, not {type(image).__name__}.")
        size = image_size(image)
        if size is None:
            raise ValueError(f"images[{index}] ({image}) cannot be read as an image.")
        array = read_mask(mask, index, size)
        check_mask_size(array, mask, image, index)
        arrays.append(array)
    return arrays


def _read_values(path):
    """Values of a mask's file (height, width), the largest of its channels but for alpha."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
            bands = image.getbands()
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image ({error}).") from error
    if values.ndim == 3:
        values = values[..., : len(bands) - ("A" in bands)].max(axis=2)
    return values


def _size(shape):
    return f"{shape[0]} x {shape[1]}"
