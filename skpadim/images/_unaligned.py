"""Images of parts that are not aligned, made of aligned ones: turned and cropped at random.

The protocol of PaDiM's paper (arXiv 2011.08785, section IV-A, "Rd-MVTec AD"). Needs no torch.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from skpadim.images._files import ImageFileError, open_image
from skpadim.images._pixels import upright_pixels

_MAX_ANGLE = 10.0  # degrees, either way


@dataclass(frozen=True)
class UnalignedImage:
    """An image file, resized, turned about its centre and cropped, when it is used as an array.

    ``numpy.asarray(image)`` is (height, width, 3), black where the file shows nothing. How it is
    turned and cropped depends on the seed and its name alone.
    """

    path: str
    name: str  # of the file within its data set, wherever that lies
    random_state: int
    size: tuple[int, int] = (256, 256)  # height and width before, and
    crop: tuple[int, int] = (224, 224)  # after cropping

    def __repr__(self):
        return f"<unaligned {self.path}>"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the array, which is not read for it."""
        return *self.crop, 3

    @property
    def motion(self) -> tuple[float, int, int]:
        """Degrees counter-clockwise, and the crop's first row and column."""
        rng = np.random.default_rng([self.random_state, zlib.crc32(os.fsencode(self.name))])
        spare = np.subtract(self.size, self.crop)
        return rng.uniform(-_MAX_ANGLE, _MAX_ANGLE), *map(int, rng.integers(spare + 1))

    def __array__(self, dtype=None, copy=None):
        try:
            with open_image(self.path) as image:
                pixels = np.atleast_3d(np.asarray(upright_pixels(image)))
        except ImageFileError as error:
            raise ValueError(f"{self.path} {error}") from error
        channels = np.moveaxis(pixels[..., :3], 2, 0)
        moved = [self.move(channel, Image.Resampling.BILINEAR) for channel in channels]
        return np.stack(moved * (3 // len(moved)), axis=2).astype(dtype or pixels.dtype)

    def move(self, pixels: np.ndarray, resample: Image.Resampling) -> np.ndarray:
        """Pixels (height, width) of the file, or of its mask, as the image shows them."""
        angle, top, left = self.motion
        height, width = self.crop
        image = Image.fromarray(pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32))
        turned = image.resize(self.size[::-1], resample).rotate(angle, resample)
        return np.asarray(turned.crop((left, top, left + width, top + height))).astype(pixels.dtype)


def unaligned_images(paths, root, random_state: int, **sizes) -> list[UnalignedImage]:
    """Image files of a data set, each turned and cropped at random."""
    names = [os.path.relpath(path, root).replace(os.sep, "/") for path in paths]
    return [
        UnalignedImage(path, name, random_state, **sizes)
        for path, name in zip(paths, names, strict=True)
    ]
