"""An opened image to pixels: upright, grey or RGB, or an array of deep ones. Needs no torch."""

from __future__ import annotations

import numpy as np
from PIL import Image

from skpadim.images._deep import is_deep, read_deep
from skpadim.images._files import ImageFileError, upright


def upright_pixels(image: Image.Image) -> Image.Image | np.ndarray:
    """PIL image to one of mode L or RGB, or to an array if it is deeper, turned upright."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ImageFileError(
            f"has {image.n_frames} frames; save the frame to be looked at as a file."
        )
    if getattr(image, "tile", None) and is_deep(image):
        return read_deep(image)
    image = upright(image)
    if image.mode[0] not in "IF":
        return _to_8_bit(image)
    pixels = np.array(image)
    if image.mode == "F":
        return pixels
    # Older versions of Pillow say "I", 32-bit integers, for 16-bit images.
    if pixels.size and not 0 <= pixels.min() <= pixels.max() <= 65535:
        raise ImageFileError(
            f"has integers from {pixels.min()} to {pixels.max()}; deeper than 8 bits, they must "
            "lie in 0 to 65535."
        )
    return pixels.astype(np.uint16)


def _to_8_bit(image):
    """PIL image of any other mode to mode L or RGB; itself, and no copy, if it is one already."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA"):  # grey: a third of the work that RGB would make
        return image.convert("L")
    try:
        if image.mode in ("La", "RGBa"):  # colours times alpha
            image = image.convert(image.mode.upper())
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        # Before resizing, for which Pillow would weight pixels by alpha.
        return image.convert("RGB")
    except ValueError as error:  # LAB, for one
        raise ImageFileError(
            f"has colours that are not read ({image.mode}): save it as RGB."
        ) from error
