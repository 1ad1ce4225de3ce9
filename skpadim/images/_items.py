"""Every kind of X as a sequence of images, without reading one. Needs no torch.

How one image is read stands in `_read.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageFile

from skpadim._arrays import is_tensor
from skpadim.images._deep import DEEP_FORMATS, sample_bits
from skpadim.images._files import ImageFileError, list_images, open_image

_KINDS = (
    "an array (n, height, width, 3) or (n, height, width), a tensor (n, 3, height, width), or a "
    "list of paths, PIL images or arrays (height, width[, 3])"
)


def list_items(X, numbers=None):
    """The images of X, one an index, by their types and shapes only; files are not opened.

    X, in any form that PadimDetector takes, becomes a list of paths, PIL images, arrays and
    tensors, or the one array or tensor of all images; else it is a TypeError, ValueError or
    OSError. `numbers` are what messages call the images of a list that is a part of what the user
    gave.
    """
    if isinstance(X, (str, os.PathLike)):
        if not os.fspath(X):
            raise ValueError("X is an empty string; give the path of a folder, or a list.")
        if os.path.isfile(X):
            raise ValueError(f"X is the path of one file; put it in a list: [{os.fspath(X)!r}].")
        return list_images(X)
    if is_tensor(X):
        return _check_stack(X)
    if isinstance(X, Image.Image):
        raise ValueError("X is a single PIL image; put it in a list: [X].")
    if hasattr(X, "iloc"):  # pandas
        if X.ndim == 2 and X.shape[1] != 1:
            raise ValueError(
                f"X is a DataFrame of {X.shape[1]} columns; give the column that holds the paths "
                "of the images, for instance X['path']."
            )
        return _check_list(list(X.iloc[:, 0] if X.ndim == 2 else X))
    if isinstance(X, Sequence) and not isinstance(X, (bytes, bytearray, memoryview)):
        return _check_list(list(X), numbers)
    if hasattr(X, "__array__"):
        with _naming("X"):
            X = as_plain_array(X)
        return _check_array(X)
    raise TypeError(f"X must be {_KINDS}; found {type(X).__name__}.{_advice(X)}")


def items_of(X):
    """As :func:`list_items`, but empty if X is in no such form: a detector says what it takes."""
    try:
        return list_items(X)
    except (TypeError, ValueError, OSError):
        return []


def check_dtype(X):
    """Check that pixels of an array or tensor are 8- or 16-bit or floats."""
    dtype = getattr(X.dtype, "name", str(X.dtype)).removeprefix("torch.")  # in any byte order
    if dtype in ("uint8", "uint16") or "float" in dtype or dtype == "longdouble":
        return
    advice = ""
    if dtype == "bool":
        advice = " Is it a mask? To take it for an image, give it times 255 as uint8."
    elif dtype.startswith(("int", "uint")):
        advice = " If they are 0 to 255, give X.astype(numpy.uint8); numpy.uint16 if 0 to 65535."
    raise ValueError(
        f"has pixels of dtype {dtype}; they must be uint8 (0 to 255), uint16 (0 to 65535), or "
        f"floats in [0, 1].{advice}"
    )


def check_tensor(X):
    """Check that a tensor has values in memory, one for each pixel."""
    if X.is_meta:
        raise ValueError("is a tensor on the meta device, without values.")
    if X.is_nested:
        raise ValueError("is a nested tensor: make a list of it, list(X.unbind()).")
    if str(X.layout) != "torch.strided":
        raise ValueError(f"is a tensor of layout {X.layout}: make it dense, X.to_dense().")


def as_plain_array(X) -> np.ndarray:
    """An object with ``__array__`` as an array that is of no subclass."""
    if np.ma.is_masked(X):
        raise ValueError("is a masked array with masked values: fill them, X.filled(value).")
    try:
        return np.asarray(X)
    except Exception as error:  # of any class of the user's
        raise ValueError(f"cannot be made an array ({error}).") from error


@contextmanager
def _naming(name):
    """Begin what a ValueError says by a name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error


def _check_array(X):
    """Check one array of paths, other items or pixels."""
    if X.dtype.kind not in "OUST":
        return _check_stack(X)
    if X.ndim != 1 and X.shape[1:] != (1,):
        raise ValueError(
            f"X is an array of shape {X.shape} and dtype {X.dtype}. Paths, PIL images and arrays "
            "must come in shape (n,) or (n, 1); of pixels, make numbers: X.astype(numpy.uint8)."
        )
    return _check_list(list(X.ravel()))


def _check_list(items, numbers=None):
    """Check that each item is a kind of image, by type only."""
    checked = []
    for index, item in zip(numbers or range(len(items)), items, strict=True):
        is_array = hasattr(item, "__array__") and not isinstance(item, np.generic)
        if not is_array and not isinstance(item, (str, os.PathLike, Image.Image)):
            shown = " ".join(repr(item).split())[:60]
            raise TypeError(
                f"X[{index}] is a {type(item).__name__} ({shown}); X must be {_KINDS}."
                f"{_advice(item)}"
            )
        with _naming(f"X[{index}]"):
            checked.append(_file_of(item) or item)
    return checked


def _advice(found):
    """What to do with something of a wrong type: a sentence to go behind others, or nothing."""
    if isinstance(found, bytes):
        return " Make a str of a path, os.fsdecode(path), and a PIL image of a file's content."
    if isinstance(found, Mapping):
        return " Give its images alone, as X['data'] or list(X.values())."
    if hasattr(found, "toarray"):  # scipy.sparse
        return " Make a dense array of it: toarray()."
    if isinstance(found, (list, tuple)):
        return " Make an array of numbers, numpy.asarray(X); of (image, label) give the images."
    return " Make a list of it: list(X)." if hasattr(found, "__iter__") else ""


def _file_of(item):
    """The path of a PIL image's file, if its pixels are as they are there.

    A PIL image that has not been read means what its file means: when Pillow reads it, it scrambles
    some that are turned, and cuts deep colours to 8 bits.
    """
    if isinstance(item, os.DirEntry):  # cannot be pickled
        return item.path
    if not isinstance(item, ImageFile.ImageFile) or item.format not in DEEP_FORMATS:
        return None
    path = item.filename
    if not path or not os.path.isfile(path):
        return None
    if item.tile or item.readonly:  # not read, or mapped and not changed
        return path
    if item.mode[0] not in "IF" and (bits := _bits_in(path)) > 8:
        raise ValueError(
            f"is a PIL image of which Pillow has kept 8 of {bits} bits a sample; give its path, "
            f"{path!r}."
        )
    return None


def _bits_in(path):
    """Bits of a sample in an image file; 0 if it is not one any more."""
    try:
        with open_image(path) as image:
            return sample_bits(image)
    except ImageFileError:
        return 0


def _check_stack(X):
    """Check rank, channels and dtype of images in one array or tensor."""
    channel_axis = 1 if is_tensor(X) else -1
    with _naming("X"):
        if is_tensor(X):
            check_tensor(X)
        check_dtype(X)
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
    return X
