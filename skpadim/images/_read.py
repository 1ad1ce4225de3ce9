"""One image of any kind to pixels: reading, checking, resizing and cropping.

Pixels leave as tensors (3, height, width), uint8 or float32 in [0, 1].
"""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from skpadim.images._files import ImageFileError, open_image
from skpadim.images._items import as_plain_array, check_dtype, check_tensor
from skpadim.images._pixels import upright_pixels


def read_image(
    item, size: tuple[int, int] | None = None, crop: tuple[int, int] | None = None
) -> torch.Tensor:
    """Read one image: a path, PIL image, array or tensor to a tensor (3, height, width).

    With `size`, what :func:`fit_to_size` makes of it, without copies of all the pixels of a file.
    Grey is repeated to three channels, alpha dropped, EXIF orientation applied, 16-bit scaled to
    [0, 1]; CMYK and palettes are converted to RGB. Files with several frames (animated GIF,
    multi-page TIFF) are refused, but for the previews that cameras put behind a JPEG.
    """
    if isinstance(item, (str, os.PathLike)):
        with open_image(item) as image:
            pixels = upright_pixels(image)
        return _fit_pixels(pixels, size, crop)
    if isinstance(item, Image.Image):
        try:
            pixels = upright_pixels(item)
        except ImageFileError:
            raise
        except Exception as error:  # of its file, which is read now; it may be closed
            raise ValueError(f"is a PIL image that cannot be read ({error}).") from error
        return _fit_pixels(pixels, size, crop)
    if isinstance(item, torch.Tensor):
        check_tensor(item)
        image = _check_pixels(_channels_to_rgb(item.detach()))
    elif hasattr(item, "__array__"):
        image = _from_array(as_plain_array(item))
    else:
        raise TypeError(
            f"must be a path, a PIL image, an array or a tensor, not {type(item).__name__}."
        )
    return image if size is None else fit_to_size(image, size, crop)


def find_problem(path: str | os.PathLike) -> str | None:
    """What is wrong with an image file, or None."""
    try:
        read_image(path)
    except (OSError, TypeError, ValueError) as error:
        return str(error)
    return None


def read_stack(
    images: torch.Tensor, size: tuple[int, int], crop: tuple[int, int] | None
) -> torch.Tensor:
    """As :func:`read_image` with a size, for images (n_samples, 1, 3 or 4, height, width)."""
    if images.dtype == torch.uint16:
        images = images.to(torch.float32) / 65535
    images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images[:, :3]
    return fit_to_size(_check_pixels(images), size, crop)


def fit_to_size(
    image: torch.Tensor, size: tuple[int, int], crop: tuple[int, int] | None
) -> torch.Tensor:
    """Resize to `size` (bilinear, antialiased) and cut out the centre; both are (height, width).

    `image` is (3, height, width) or (n_samples, 3, height, width), uint8 or float32. 8-bit images
    on the CPU are resized by Pillow, as the networks' own training images were.
    """
    if image.shape[-2:] != size:
        if image.dtype == torch.uint8 and image.ndim == 3 and image.device.type == "cpu":
            return _from_array(np.array(_fit_8_bit(_to_pil(image), size, crop)))
        image = _interpolate(image, size)
    if crop is not None and crop != size:
        top, left, bottom, right = centre_of(size, crop)
        image = image[..., top:bottom, left:right]
    return image


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Pixels as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def as_picture(image: torch.Tensor) -> np.ndarray:
    """An image as it is read to pixels (height, width, 3), uint8."""
    pixels = image.permute(1, 2, 0).numpy(force=True)
    return pixels if pixels.dtype == np.uint8 else (255 * pixels).round().astype(np.uint8)


def _fit_pixels(pixels, size, crop):
    """What :func:`upright_pixels` gives to a tensor, resized and cropped if `size` is given."""
    if isinstance(pixels, np.ndarray):
        image = _from_array(pixels)
        return image if size is None else fit_to_size(image, size, crop)
    if size is not None and 0 not in pixels.size:
        pixels = _fit_8_bit(pixels, size, crop)
    return _from_array(np.array(pixels))


def _fit_8_bit(image, size, crop):
    """PIL image of mode L or RGB, resized (bilinear, antialiased) and cropped to the centre."""
    top, left, bottom, right = centre_of(size, size if crop is None else crop)
    if image.size == size[::-1]:
        return image.crop((left, top, right, bottom))
    # Not with Pillow's `box`, which would leave out what is cropped away: the order of its two
    # passes, and with it the rounding, depends on the size that is asked for.
    resized = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return resized.crop((left, top, right, bottom))


def centre_of(size, crop):
    """Top, left, bottom and right of the crop."""
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    return top, left, top + crop[0], left + crop[1]


def _from_array(array):
    """Array (height, width[, channels]) to a tensor (3, height, width)."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"has shape {array.shape}; an array must be (height, width) or (height, width, 3)."
        )
    check_dtype(array)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint16:  # torch can do little with this type
        array = array.astype(np.float32) / 65535
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
    check_dtype(image)
    if image.dtype == torch.uint16:
        image = image.to(torch.float32) / 65535
    return image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]


def _check_pixels(image):
    """Check the range of floats; returns uint8 or float32."""
    if 0 in image.shape:
        raise ValueError(f"has no pixels (shape {tuple(image.shape)}).")
    if image.dtype == torch.uint8:
        return image
    rounding = max(1e-6, torch.finfo(image.dtype).eps)
    image = image.to(torch.float32)
    low, high = image.min().item(), image.max().item()  # NaN comes through both
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("has NaN or infinite pixels.")
    if low >= 0 and high <= 1:
        return image
    if low >= -rounding and high <= 1 + rounding:
        return image.clamp(0, 1)
    if low < -rounding:
        advice = "give them as they are before they are standardised"
    elif high > 2:
        advice = "divide 8-bit values by 255 and 16-bit ones by 65535, or give them as integers"
    else:
        advice = "clip them, if they only overshoot, or divide them all by one number"
    raise ValueError(
        f"has floats from {low:.8g} to {high:.8g}; floats must lie in [0, 1]: {advice}."
    )


def _to_pil(image):
    """8-bit tensor (3, height, width) to a PIL image of mode L, if its channels are one, or RGB."""
    pixels = image[0] if image.stride(0) == 0 else image.permute(1, 2, 0)
    return Image.fromarray(pixels.contiguous().numpy())


def _interpolate(image, size):
    """Bilinear, antialiased resizing by torch."""
    batch = image if image.ndim == 4 else image[None]
    floats = F.interpolate(
        batch.to(torch.float32), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    if image.dtype == torch.uint8:
        floats = floats.round_().clamp_(0, 255).to(torch.uint8)
    return floats if image.ndim == 4 else floats[0]
