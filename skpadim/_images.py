"""Every kind of X to batches of pixels: reading, checking, resizing and cropping.

Nothing here knows of networks. Pixels leave as tensors (n_samples, 3, height, width), uint8 or
float32 in [0, 1].
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from skpadim._image_files import list_images

T = TypeVar("T")

_KINDS = (
    "an array (n, height, width, 3) or (n, height, width), a tensor (n, 3, height, width), or a "
    "list of paths, PIL images or arrays (height, width[, 3])"
)
# Decoding releases the GIL; more threads than this only compete with the network for the cores.
_MAX_DECODING_THREADS = 8


class Images(Sequence):
    """A checked sequence of images; each is read when it is asked for.

    Parameters
    ----------
    X : array, tensor, Series, DataFrame of one column, list, or path of a folder
        Images in any of the forms that :class:`~skpadim.PadimDetector` takes.
    min_images : int, default=1
        Fewer raise an error.
    numbers : sequence of int, default=None
        What messages call the images, where X is a part of what the user gave.

    Raises
    ------
    TypeError, ValueError
        If X as a whole is none of these. What is wrong with a single image shows when it is read.
    """

    def __init__(self, X, *, min_images=1, numbers=None):
        self.items = _as_items(X)
        self._numbers = range(len(self.items)) if numbers is None else numbers
        if len(self.items) < min_images:
            raise ValueError(
                f"X has {len(self.items)} image{'s' * (len(self.items) != 1)} "
                f"(n_samples={len(self.items)}); at least {min_images} "
                f"{'is' if min_images == 1 else 'are'} needed."
            )

    def __len__(self):
        return len(self.items)

    def take(self, indices) -> Images:
        """The images with these indices, called as before; stacks are copied when they are read."""
        numbers = [self._numbers[index] for index in indices]
        return Images([self.items[index] for index in indices], numbers=numbers)

    def part(self, start, stop) -> Images:
        """The images from `start` up to `stop`, called as before."""
        return Images(self.items[start:stop], numbers=self._numbers[start:stop])

    def __getitem__(self, index):
        """One image as a tensor (3, height, width), uint8 or float32 in [0, 1]."""
        item = self.items[index]
        try:
            return read_image(item)
        except (TypeError, ValueError) as error:
            where = f" ({os.fspath(item)})" if isinstance(item, (str, os.PathLike)) else ""
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"Image {self._numbers[index]}{where} {error}") from error


def read_image(item) -> torch.Tensor:
    """Read one image: a path, PIL image, array or tensor to a tensor (3, height, width).

    Grey is repeated to three channels, alpha dropped, EXIF orientation applied, 16-bit scaled to
    [0, 1]; CMYK and palettes are converted to RGB. Files with several frames (animated GIF,
    multi-page TIFF) are refused, but for the previews that cameras put behind a JPEG.
    """
    if isinstance(item, (str, os.PathLike)):
        return _read_file(item)
    if isinstance(item, Image.Image):
        return _from_pil(item)
    if isinstance(item, torch.Tensor):
        return _check_pixels(_channels_to_rgb(item))
    if isinstance(item, np.ndarray):
        return _from_array(item)
    raise TypeError(
        f"must be a path, a PIL image, an array or a tensor, not {type(item).__name__}."
    )


def fit_to_size(
    image: torch.Tensor, size: tuple[int, int], crop: tuple[int, int] | None
) -> torch.Tensor:
    """Resize to `size` (bilinear, antialiased) and cut out the centre.

    Parameters
    ----------
    image : tensor of shape (3, height, width) or (n_samples, 3, height, width)
        uint8 or float32. 8-bit images on the CPU are resized by Pillow, as the networks' own
        training images were.
    size, crop : tuple of int
        Height and width in pixels.
    """
    if image.shape[-2:] != size:
        image = _resize(image, size)
    if crop is not None and crop != size:
        top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
        image = image[..., top : top + crop[0], left : left + crop[1]]
    return image


def image_batches(
    images: Images,
    batch_size: int,
    size: tuple[int, int],
    crop: tuple[int, int] | None,
) -> Iterator[torch.Tensor]:
    """Batches of images of one size, read ahead by threads while the caller computes.

    Yields
    ------
    batch : tensor of shape (n_batch, 3, height, width)
        uint8, or float32 in [0, 1] if any image of the batch is not 8-bit.
    """
    for batch in read_ahead(lambda i: fit_to_size(images[i], size, crop), len(images), batch_size):
        yield stack_pixels(batch)


def read_ahead(read: Callable[[int], T], n_items: int, batch_size: int) -> Iterator[list[T]]:
    """Batches of what `read` returns for 0, 1, …: threads read two batches ahead.

    An error of `read` is raised when its batch is due.
    """
    starts = range(0, n_items, batch_size)
    # torch's number is this process's share of the cores, where several work side by side.
    n_threads = min(_MAX_DECODING_THREADS, torch.get_num_threads())
    # Handing over costs as much as reading a small file; a few chunks a thread share the work well.
    chunk_size = max(1, batch_size // (4 * n_threads))
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque = deque()

        def submit(start):
            stop = min(start + batch_size, n_items)
            chunks = (range(i, min(i + chunk_size, stop)) for i in range(start, stop, chunk_size))
            waiting.append([pool.submit(lambda c: [read(i) for i in c], c) for c in chunks])

        try:
            for start in starts[:2]:
                submit(start)
            for step in range(len(starts)):
                batch = [item for future in waiting.popleft() for item in future.result()]
                if step + 2 < len(starts):
                    submit(starts[step + 2])
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def stack_pixels(images: Sequence[torch.Tensor]) -> torch.Tensor:
    """Images (3, height, width) of one size to one tensor; uint8 only if all of them are."""
    if any(image.dtype != torch.uint8 for image in images):
        images = [to_float(image) for image in images]
    return torch.stack(list(images))


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Pixels as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def _as_items(X):
    """The images of X, one an index, without reading files."""
    if isinstance(X, Images):
        return X.items
    if isinstance(X, (str, os.PathLike)):
        if os.path.isfile(X):
            raise ValueError(f"X is the path of one file; put it in a list: [{os.fspath(X)!r}].")
        return list_images(X)
    if isinstance(X, torch.Tensor):
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


def _check_list(items):
    """Check that each item is a kind of image, by type only."""
    for index, item in enumerate(items):
        if not isinstance(item, (str, os.PathLike, Image.Image, np.ndarray, torch.Tensor)):
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
        _check_dtype(X)
    except ValueError as error:
        raise ValueError(f"X {error}") from error
    return X


def _check_dtype(X):
    """Check that pixels are 8- or 16-bit or floats."""
    if str(X.dtype).removeprefix("torch.") not in (
        "uint8",
        "uint16",
        "bfloat16",
        "float16",
        "float32",
        "float64",
    ):
        raise ValueError(
            f"has pixels of dtype {X.dtype}; they must be uint8 (0 to 255), uint16 (0 to 65535), "
            "or floats in [0, 1]."
        )


def _read_file(path):
    """Read an image file."""
    path = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError("is a folder, not an image file.")
    with ExitStack() as stack:
        try:
            image = stack.enter_context(Image.open(path))
            image.load()
        except FileNotFoundError as error:
            raise ValueError("does not exist: there is no such file.") from error
        except Exception as error:  # on broken files Pillow's readers raise nearly anything
            size = os.path.getsize(path) if os.path.exists(path) else 0
            problem = "is empty (0 bytes)" if size == 0 else f"cannot be read as an image ({error})"
            raise ValueError(f"{problem}: take it out or replace it.") from error
        return _from_pil(image)


def _from_pil(image):
    """PIL image of any mode to a tensor."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ValueError(f"has {image.n_frames} frames; save the frame to be looked at as a file.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey; older versions of Pillow say "I" for it
        pixels = np.asarray(image).astype(np.float32) / 65535
    elif image.mode == "F":
        pixels = np.array(image)
    elif image.mode == "P" and "transparency" in image.info:
        pixels = np.array(image.convert("RGBA"))
    else:
        pixels = np.array(image if image.mode == "L" else image.convert("RGB"))
    return _from_array(pixels)


def _from_array(array):
    """Array (height, width[, channels]) to a tensor (3, height, width)."""
    if array.dtype == np.uint16:  # torch can do little with this type
        array = array.astype(np.float32) / 65535
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"has shape {array.shape}; an array must be (height, width) or (height, width, 3)."
        )
    _check_dtype(array)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # torch shares neither read-only nor flipped memory
    pixels = torch.from_numpy(array)
    return _check_pixels(_channels_to_rgb(pixels if array.ndim == 2 else pixels.permute(2, 0, 1)))


def _channels_to_rgb(image):
    """Tensor (height, width) or (1, 3 or 4, height, width) to (3, height, width)."""
    if image.ndim == 2:
        image = image[None]
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"has shape {tuple(image.shape)}; a tensor must be (3, height, width), with 1, 3 or "
            "4 channels, or (height, width)."
        )
    _check_dtype(image)
    if image.dtype == torch.uint16:
        image = image.to(torch.float32) / 65535
    return image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]


def _check_pixels(image):
    """Check the range of floats; returns uint8 or float32."""
    if 0 in image.shape:
        raise ValueError(f"has no pixels (shape {tuple(image.shape)}).")
    if image.dtype == torch.uint8:
        return image
    image = image.to(torch.float32)
    low, high = image.min().item(), image.max().item()  # NaN comes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("has NaN or infinite pixels.")
    if low < 0 or high > 1:
        raise ValueError(
            f"has floats from {low:.4g} to {high:.4g}; floats must lie in [0, 1]: divide 8-bit "
            "values by 255, or give them as uint8."
        )
    return image


def _resize(image, size):
    """Bilinear, antialiased resizing."""
    if image.dtype == torch.uint8 and image.ndim == 3 and image.device.type == "cpu":
        grey = image.stride(0) == 0  # one channel, repeated
        pixels = image[0] if grey else image.permute(1, 2, 0)
        resized = Image.fromarray(pixels.contiguous().numpy()).resize(
            size[::-1], Image.Resampling.BILINEAR
        )
        pixels = torch.from_numpy(np.array(resized))
        return pixels.expand(3, *size) if grey else pixels.permute(2, 0, 1)
    batch = image if image.ndim == 4 else image[None]
    floats = F.interpolate(
        batch.to(torch.float32), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    if image.dtype == torch.uint8:
        floats = floats.round_().clamp_(0, 255).to(torch.uint8)
    return floats if image.ndim == 4 else floats[0]
