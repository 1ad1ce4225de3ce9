"""Every kind of X as a sequence of images, without reading one. Needs no torch.

How one image is read stands in `_pixels.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from skpadim._image_files import list_images

_KINDS = (
    "an array (n, height, width, 3) or (n, height, width), a tensor (n, 3, height, width), or a "
    "list of paths, PIL images or arrays (height, width[, 3])"
)
_DTYPES = ("uint8", "uint16", "bfloat16", "float16", "float32", "float64")


def list_items(X):
    """The images of X, one an index, by their types and shapes only; files are not opened.

    Parameters
    ----------
    X : array, tensor, Series, DataFrame of one column, list, or path of a folder
        Images in any of the forms that :class:`~skpadim.PadimDetector` takes.

    Returns
    -------
    items : list, ndarray or tensor
        A list of paths, PIL images, arrays and tensors; or the one array or tensor of all images.

    Raises
    ------
    TypeError, ValueError, OSError
        If X is none of these.
    """
    if isinstance(X, (str, os.PathLike)):
        if os.path.isfile(X):
            raise ValueError(f"X is the path of one file; put it in a list: [{os.fspath(X)!r}].")
        return list_images(X)
    if is_tensor(X):
        return _check_stack(X, channel_axis=1)
    if hasattr(X, "iloc"):  # pandas
        if X.ndim == 2 and X.shape[1] != 1:
            raise ValueError(
                f"X is a DataFrame of {X.shape[1]} columns; give the column that holds the paths "
                "of the images, for instance X['path']."
            )
        return _check_list(list(X.iloc[:, 0] if X.ndim == 2 else X))
    if isinstance(X, np.ndarray):
        if X.dtype.kind in "OUT":  # objects or strings: paths, PIL images or arrays
            return _check_list(list(X.ravel() if X.shape[1:] == (1,) else X))
        return _check_stack(X, channel_axis=-1)
    if isinstance(X, Image.Image):
        raise ValueError("X is a single PIL image; put it in a list: [X].")
    if isinstance(X, Sequence):
        return _check_list(list(X))
    hint = " Make a list of it: list(X)." if hasattr(X, "__iter__") else ""
    raise TypeError(f"X must be {_KINDS}; found {type(X).__name__}.{hint}")


def paths_of(X) -> list:
    """The path of each image of X, None for one that is not a file.

    Empty if X is not in a form that :func:`list_items` knows: a detector tells what it takes.
    """
    try:
        items = list_items(X)
    except (TypeError, ValueError, OSError):
        return []
    return [item if isinstance(item, (str, os.PathLike)) else None for item in items]


def is_tensor(item) -> bool:
    """Whether this is a tensor of torch, which need not be imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(item, torch.Tensor)


def check_dtype(X):
    """Check that pixels are 8- or 16-bit or floats."""
    if str(X.dtype).removeprefix("torch.") not in _DTYPES:
        raise ValueError(
            f"has pixels of dtype {X.dtype}; they must be uint8 (0 to 255), uint16 (0 to 65535), "
            "or floats in [0, 1]."
        )


def _check_list(items):
    """Check that each item is a kind of image, by type only."""
    for index, item in enumerate(items):
        if not (isinstance(item, (str, os.PathLike, Image.Image, np.ndarray)) or is_tensor(item)):
            raise TypeError(
                f"X[{index}] is a {type(item).__name__} ({item!r:.60}); X must be {_KINDS}."
            )
    return items


def _check_stack(X, channel_axis):
    """Check rank, channels and dtype of images in one array or tensor."""
    if channel_axis == 1:
        layout, ndims = "(n, 3, height, width)", (4,)
    else:
        layout, ndims = "(n, height, width, 3) or (n, height, width)", (3, 4)
    if X.ndim not in ndims or (X.ndim == 4 and X.shape[channel_axis] not in (1, 3, 4)):
        raise ValueError(
            f"X has shape {tuple(X.shape)}; images must be {layout}, with 1, 3 or 4 channels."
        )
    if X.ndim == 3 and X.shape[-1] in (3, 4):
        raise ValueError(
            f"X has shape {tuple(X.shape)}, which is one colour image: put it in a list, [X]."
        )
    if 0 in X.shape[1:]:
        raise ValueError(f"X has shape {tuple(X.shape)}: its images have no pixels.")
    try:
        check_dtype(X)
    except ValueError as error:
        raise ValueError(f"X {error}") from error
    return X
