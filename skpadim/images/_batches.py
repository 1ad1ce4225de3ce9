"""Every kind of X to batches of pixels: reading ahead.

What X may be stands in `_items.py`, how one image is read in `_read.py`. Nothing here knows of
networks. Pixels leave as tensors (n_samples, 3, height, width), uint8 or float32 in [0, 1].
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from skpadim.images._deep import is_deep, read_deep
from skpadim.images._gpu_copies import copied_ahead
from skpadim.images._items import list_items
from skpadim.images._masks import as_sequence, image_size, is_missing
from skpadim.images._read import find_problem, fit_to_size, read_image, read_stack, to_float
from skpadim.images._roi import read_roi
from skpadim.images._unreadable import UnreadableImageError
from skpadim.machine._thread_limits import threads_limited

T = TypeVar("T")

# Decoding releases the GIL; more threads than this only compete with the network for the cores.
_MAX_DECODING_THREADS = 8
# Images whose proportions differ by no more, from rounding say, are alike.
_MAX_RATIO = 1.02
# Of which this many are looked at together.
_FILES_AT_A_TIME = 64


class Images(Sequence):
    """A checked sequence of images, each read when it is asked for.

    X is in any form that PadimDetector takes; anything else is a TypeError or ValueError, and what
    is wrong with a single image shows when it is read. `numbers` are what messages call the images,
    where X is a part of what the user gave. With a dict `skipped`, images that cannot be read are
    skipped, and their errors noted there, by these numbers. Where `proportions`, a height and a
    width, are set, images of others cannot be read at a size. Where they are aligned
    (:meth:`align_by`), `motions` (n_images, 6) are as ImageAligner measures them, NaN until then.
    Of `regions`, one an image, None leaves an image whole (:meth:`rois`).
    """

    proportions: tuple[int, int] | None = None
    aligner = None
    motions: np.ndarray | None = None

    def __init__(self, X, *, min_images=1, numbers=None, skipped=None, regions=None):
        self.items = X.items if isinstance(X, Images) else list_items(X, numbers)
        self.skipped = skipped
        self._numbers = range(len(self.items)) if numbers is None else numbers
        if len(self.items) < min_images:
            raise ValueError(
                f"X has {len(self.items)} image{'s' * (len(self.items) != 1)} "
                f"(n_samples={len(self.items)}); at least {min_images} "
                f"{'is' if min_images == 1 else 'are'} needed."
            )
        self.regions = None if regions is None else as_sequence(regions, "roi")
        if regions is not None and len(self.regions) != len(self):
            raise ValueError(
                f"roi has {len(self.regions)} regions and X has {len(self)} images: give one for "
                "each, None for an image that is inspected whole."
            )

    def __len__(self):
        return len(self.items)

    def take(self, indices) -> Images:
        """The images with these indices, called as before; stacks are copied when they are read."""
        numbers = [self._numbers[index] for index in indices]
        items = [self.items[index] for index in indices]
        return self._of(items, numbers, indices)

    def part(self, start, stop) -> Images:
        """The images from `start` up to `stop`, called as before."""
        numbers = self._numbers[start:stop]
        return self._of(self.items[start:stop], numbers, slice(start, stop))

    def _of(self, items, numbers, rows):
        images = Images(items, numbers=numbers, skipped=self.skipped)
        images.motions = None if self.motions is None else self.motions[rows]
        if self.regions is not None:
            images.regions = [self.regions[row] for row in np.arange(len(self))[rows]]
        return images

    def rois(self, start, stop, size, crop) -> torch.Tensor | None:
        """Regions (n, height, width) of `crop` that are inspected of the images up to `stop`."""
        if self.regions is None:
            return None
        rois = np.ones((stop - start, *crop), dtype=bool)
        for index in range(start, stop):
            is_skipped = bool(self.skipped) and self._numbers[index] in self.skipped
            if not (is_skipped or is_missing(self.regions[index])):
                sizes = [self.size_of(index)]
                name = f"roi[{self._numbers[index]}]"
                rois[index - start] = read_roi(self.regions[index], sizes, size, crop, name)
        return torch.from_numpy(rois)

    def align_by(self, aligner) -> None:
        """Read images at a size so that their parts lie where a fitted aligner has them.

        None reads them as they are. Motions that are known are not measured again.
        """
        self.aligner = aligner
        if aligner is not None and self.motions is None:
            self.motions = np.full((len(self), 6), np.nan, dtype=np.float32)

    def unaligned(self) -> list[str]:
        """Names of the images that were read and could not be aligned."""
        if self.motions is None:
            return []
        return [self.name_of(index) for index in np.flatnonzero(self.motions[:, 5] == 0)]

    def name_of(self, index) -> str:
        """What messages call an image."""
        item = self.items[index]
        return (
            os.fspath(item) if isinstance(item, (str, os.PathLike)) else str(self._numbers[index])
        )

    def size_of(self, index) -> tuple[int, int] | None:
        """Height and width of an image as it is, None if unknown."""
        return image_size(self.items[index])

    def __getstate__(self):
        # A tensor that is a part of another would take all of it along to a worker; and a worker
        # need not have this process's devices. Pillow keeps its limit in a global variable.
        items = self.items
        if isinstance(items, torch.Tensor):
            items = _by_itself(items)
        elif isinstance(items, list):
            items = [_for_worker(item) for item in items]
        # An aligner comes with the model.
        state = {**vars(self), "items": items, "max_pixels": Image.MAX_IMAGE_PIXELS}
        return {name: value for name, value in state.items() if name != "aligner"}

    def __setstate__(self, state):
        Image.MAX_IMAGE_PIXELS = state.pop("max_pixels")
        vars(self).update(state)

    def __getitem__(self, index):
        """One image as a tensor (3, height, width), uint8 or float32 in [0, 1]."""
        return self.read(index)

    def read(self, index, size=None, crop=None) -> torch.Tensor:
        """One image, if `size` is given resized, aligned and cropped (:func:`fit_to_size`)."""
        item = self.items[index]
        try:
            if size is not None and not self.are_alike(image_size(item)):
                height, width = self.proportions
                raise ValueError(
                    f"is {_in_words(image_size(item))}, and keep_aspect_ratio=True takes images "
                    f"with the proportions of {_in_words((height, width))}, which this model has "
                    "learned from: crop it alike, or fit with image_size=(height, width) instead."
                )
            if size is None or self.aligner is None:
                return read_image(item, size, crop)
            self.aligner.check_proportions(image_size(item))
            return fit_to_size(self._aligned(read_image(item, size), index), size, crop)
        except TypeError as error:
            raise TypeError(f"Image {self._numbers[index]} {error}") from error
        except ValueError as error:
            path = os.fspath(item) if isinstance(item, (str, os.PathLike)) else None
            raise UnreadableImageError(str(error), self._numbers[index], path) from error

    def _aligned(self, pixels, index):
        if np.isnan(self.motions[index, 5]):
            self.motions[index] = self.aligner.locate(pixels)
        return self.aligner.move_back(pixels, self.motions[index])

    def locate(self, index, size) -> None:
        """Measure an image's motion, if it is to be aligned and was not measured."""
        if self.aligner is not None and np.isnan(self.motions[index, 5]):
            self.read(index, size)

    def are_alike(self, shape) -> bool:
        """Whether an image of a height and width, None if unknown, has the `proportions`."""
        if shape is None or self.proportions is None:
            return True
        height, width = self.proportions
        ratio = shape[0] * width / max(1, shape[1] * height)
        return 1 / _MAX_RATIO <= ratio <= _MAX_RATIO

    def read_or_skip(self, index, size, crop) -> torch.Tensor:
        """As :meth:`read`; black, and its error noted, if it cannot be read and is skipped."""
        try:
            return self.read(index, size, crop)
        except UnreadableImageError as error:
            return self.skip(error, index, crop or size)

    def skip(self, error, index, size) -> torch.Tensor:
        """Note an image's error and return black pixels; raise it if none are to be skipped."""
        if self.skipped is None:
            raise error
        # Anew, since the error's own traceback holds what was read of the image.
        self.skipped[error.index] = UnreadableImageError(*error.args)
        item = self.items[index]
        device = item.device if isinstance(item, torch.Tensor) else None  # as those of its batch
        return torch.zeros((3, *size), dtype=torch.uint8, device=device)

    def errors(self, start, stop) -> dict[int, UnreadableImageError]:
        """Errors of the skipped images from `start` up to `stop`, by their place after `start`."""
        if not self.skipped:
            return {}
        numbers = enumerate(self._numbers[start:stop])
        return {place: self.skipped[n] for place, n in numbers if n in self.skipped}

    def as_stack(self) -> torch.Tensor | None:
        """A view (n_images, channels, height, width); None if they are apart, or to be aligned."""
        if self.aligner is not None:
            return None
        if isinstance(self.items, torch.Tensor):
            return self.items
        if not isinstance(self.items, np.ndarray) or self.items.ndim != 4:
            return None
        if not self.items.flags.writeable:
            return None
        try:
            return torch.from_numpy(self.items).permute(0, 3, 1, 2)
        except (TypeError, ValueError):  # it shares neither flipped memory nor all dtypes
            return None

    def are_on_gpu(self) -> bool:
        """Whether any image is a tensor that is not in main memory."""
        if isinstance(self.items, torch.Tensor):
            return self.items.device.type != "cpu"
        if not isinstance(self.items, list):
            return False
        return any(isinstance(i, torch.Tensor) and i.device.type != "cpu" for i in self.items)


def image_parts(X, size: int, on_error: str = "raise", regions=None) -> Iterable[Images]:
    """X as one part; an iterator as parts of `size` images, each when it has delivered them.

    `on_error` is "raise" or "skip", for images that cannot be read; `regions` are as of Images.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r} must be 'raise' or 'skip'.")
    if isinstance(X, Images) and (on_error == "raise" or X.skipped is not None):
        return [X]
    if not isinstance(X, Iterator):
        return [Images(X, skipped={} if on_error == "skip" else None, regions=regions)]
    if regions is not None:
        raise ValueError(
            "roi has one region an image, and X is an iterator, whose number of images is not "
            "known: give images one by one, each with its roi, or all in a list."
        )
    return _parts_of_iterator(X, size, on_error)


def _parts_of_iterator(X, size, on_error):
    start = 0
    while (items := list(islice(X, size))) or start == 0:
        skipped = {} if on_error == "skip" else None
        yield Images(items, numbers=range(start, start + len(items)), skipped=skipped)
        start += len(items)


def count_images(parts: Iterable[Images]) -> int | None:
    """Number of images of parts; None if it is not known before they come."""
    return None if isinstance(parts, Iterator) else sum(map(len, parts))


def image_batches(
    images: Images,
    batch_size: int,
    size: tuple[int, int],
    crop: tuple[int, int] | None,
    device: torch.device | None = None,
) -> Iterator[torch.Tensor]:
    """Batches (n_batch, 3, height, width), made ready while the caller computes with those before.

    They are uint8, or float32 in [0, 1] if any image of the batch is not 8-bit; on `device`, or
    where the images are; `size` and `crop` are as for :func:`fit_to_size`. Files are read ahead by
    threads; copies to a GPU are on their way meanwhile.
    """
    is_for_gpu = device is not None and device.type == "cuda"
    if images.are_on_gpu():
        # In this thread, and so on its stream.
        for batch in _read_in_turn(images, batch_size, size, crop):
            batch = batch if isinstance(batch, torch.Tensor) else stack_pixels(batch)
            yield batch if device is None else batch.to(device)
        return
    stack = images.as_stack() if is_for_gpu else None
    if stack is not None and stack.shape[2:] == size:  # ready made
        batches = _read_in_turn(images, batch_size, size, crop)
    else:
        batches = read_ahead(lambda i: images.read_or_skip(i, size, crop), len(images), batch_size)
    if is_for_gpu:
        yield from copied_ahead(batches, device)
        return
    for batch in batches:
        yield stack_pixels(batch)


def _read_in_turn(images, batch_size, size, crop):
    """Batches as stacks where the images are one, else as lists."""
    stack = images.as_stack()
    for start in range(0, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        batch = None
        if stack is not None and images.are_alike(stack.shape[2:]):
            with suppress(ValueError):  # read one by one, the image at fault can be named
                batch = read_stack(stack[start:stop], size, crop)
        if batch is None:
            batch = [images.read_or_skip(index, size, crop) for index in range(start, stop)]
        yield batch


def common_proportions(images: Images) -> tuple[int, int]:
    """Height and width of the first image, whose proportions all must have."""
    sizes = [image_size(item) for item in images.items]
    known = [index for index, size in enumerate(sizes) if size is not None]
    if not known:  # what is wrong is told when the first is read
        return 1, 1
    first, others = known[0], known[1:]
    images.proportions = sizes[first]
    for index in others:
        if not images.are_alike(sizes[index]):
            raise ValueError(
                f"keep_aspect_ratio=True: image {index} is {_in_words(sizes[index])}, and image "
                f"{first} is {_in_words(sizes[first])}; all must have the same proportions. Crop "
                "them alike, or give image_size=(height, width), to which all are resized."
            )
    return sizes[first]


def _in_words(size):
    return f"{size[1]} pixels wide and {size[0]} high"


def _for_worker(item):
    if isinstance(item, torch.Tensor):
        return _by_itself(item)
    if isinstance(item, Image.Image) and getattr(item, "tile", None) and is_deep(item):
        return read_deep(item)  # of which Pillow would send 8 bits
    return item


def _by_itself(tensor):
    return tensor.detach().cpu().clone(memory_format=torch.preserve_format)


def read_ahead(read: Callable[[int], T], n_items: int, batch_size: int) -> Iterator[list[T]]:
    """Batches of what `read` returns for 0, 1, …: threads read two batches ahead.

    There are as many as torch has, which is this process's share of the cores, or what the user
    allows it: no thread but the caller's if that is one. An error of `read` is raised when its
    batch is due.
    """
    starts = range(0, n_items, batch_size)
    n_threads = min(_MAX_DECODING_THREADS, torch.get_num_threads())
    if n_items == 1 or n_threads == 1:
        for start in starts:
            yield [read(index) for index in range(start, min(start + batch_size, n_items))]
        return
    # Handing over costs as much as reading a small file; a few chunks a thread share the work well.
    chunk_size = max(1, batch_size // (4 * n_threads))

    def read_alone(chunk):
        with threads_limited(1):  # or each of them would resize with as many
            return [read(index) for index in chunk]

    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque = deque()

        def submit(start):
            stop = min(start + batch_size, n_items)
            chunks = (range(i, min(i + chunk_size, stop)) for i in range(start, stop, chunk_size))
            waiting.append([pool.submit(read_alone, chunk) for chunk in chunks])

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
    # In memory the channels come last: so decoders write them, and convolutions are quickest.
    return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)


def find_problems(paths: Sequence[str | os.PathLike]) -> list[str | None]:
    """What is wrong with each image file, or None; it takes as long as reading them all."""
    batches = read_ahead(lambda index: find_problem(paths[index]), len(paths), _FILES_AT_A_TIME)
    return [problem for batch in batches for problem in batch]
