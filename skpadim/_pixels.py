"""One image of any kind to pixels: reading, checking, resizing and cropping.

Pixels leave as tensors (3, height, width), uint8 or float32 in [0, 1].
"""

from __future__ import annotations

import os
from contextlib import ExitStack

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch.nn import functional as F

from skpadim._items import check_dtype


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
        return _read_file(item, size, crop)
    if isinstance(item, Image.Image):
        return _from_pil(item, size, crop)
    if isinstance(item, torch.Tensor):
        image = _check_pixels(_channels_to_rgb(item))
    elif isinstance(item, np.ndarray):
        image = _from_array(item)
    else:
        raise TypeError(
            f"must be a path, a PIL image, an array or a tensor, not {type(item).__name__}."
        )
    return image if size is None else fit_to_size(image, size, crop)


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
        if image.dtype == torch.uint8 and image.ndim == 3 and image.device.type == "cpu":
            return _from_array(np.array(_fit_8_bit(_to_pil(image), size, crop)))
        image = _interpolate(image, size)
    if crop is not None and crop != size:
        top, left, bottom, right = _centre(size, crop)
        image = image[..., top:bottom, left:right]
    return image


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Pixels as float32 in [0, 1]."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images


def _read_file(path, size, crop):
    """Read an image file (see :func:`read_image`)."""
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
            empty = not os.path.exists(path) or os.path.getsize(path) == 0
            problem = "is empty (0 bytes)" if empty else f"cannot be read as an image ({error})"
            raise ValueError(f"{problem}: take it out or replace it.") from error
        return _from_pil(image, size, crop)


def _from_pil(image, size, crop):
    """PIL image of any mode to a tensor (see :func:`read_image`)."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ValueError(f"has {image.n_frames} frames; save the frame to be looked at as a file.")
    image = _turn_upright(image)
    if image.mode == "F" or image.mode.startswith("I"):
        pixels = _from_array(_float_pixels(image))
        return pixels if size is None else fit_to_size(pixels, size, crop)
    image = _to_8_bit(image)
    if size is not None and 0 not in image.size:
        image = _fit_8_bit(image, size, crop)
    return _from_array(np.array(image))


def _turn_upright(image):
    """Apply EXIF orientation; an image that stands upright is not copied."""
    image.load()  # of some formats, what is known of the orientation comes after the pixels
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _float_pixels(image):
    """Pixels of a 16-bit grey image, scaled to [0, 1], or of one of floats as they are."""
    if image.mode == "F":
        return np.array(image)
    # Older versions of Pillow say "I", 32-bit integers, for 16-bit images.
    return np.asarray(image).astype(np.float32) / 65535


def _to_8_bit(image):
    """PIL image of any other mode to mode L or RGB; itself, and no copy, if it is one already."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA"):  # grey: a third of the work that RGB would make
        return image.convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    # Before resizing, for which Pillow would weight pixels by alpha.
    return image.convert("RGB")


def _fit_8_bit(image, size, crop):
    """PIL image of mode L or RGB, resized (bilinear, antialiased) and cropped to the centre."""
    top, left, bottom, right = _centre(size, size if crop is None else crop)
    if image.size == size[::-1]:
        return image.crop((left, top, right, bottom))
    # Not with Pillow's `box`, which would leave out what is cropped away: the order of its two
    # passes, and with it the rounding, depends on the size that is asked for.
    resized = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return resized.crop((left, top, right, bottom))


def _centre(size, crop):
    """Top, left, bottom and right of the crop."""
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    return top, left, top + crop[0], left + crop[1]


def _from_array(array):
    """Array (height, width[, channels]) to a tensor (3, height, width)."""
    if array.dtype == np.uint16:  # torch can do little with this type
        array = array.astype(np.float32) / 65535
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            f"has shape {array.shape}; an array must be (height, width) or (height, width, 3)."
        )
    check_dtype(array)
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
