"""Image files of more than 8 bits a sample: read whole, or refused. Needs no torch.

Of deep colours Pillow keeps 8 bits without a word, and it scales some deep greys wrongly.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
from PIL import ExifTags, Image

from skpadim.images._files import ImageFileError, set_raw_modes, upright

DEEP_FORMATS = ("PNG", "TIFF", "PPM", "JPEG2000", "AVIF")
_WHITE_IS_ZERO = 0
_PLANES_APART = 2
_ADVICE = "give it as an array (tifffile or imageio read it), or save it as 8-bit"


def sample_bits(image: Image.Image) -> int:
    """Bits of a sample in the file of an image that was opened and not read yet."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,)))
    if image.format == "PPM":
        maxval = image.tile[0][3][-1]  # of the decoders that scale; else of a string, or a stride
        return maxval.bit_length() if isinstance(maxval, int) and maxval > 0 else 8
    if image.format not in DEEP_FORMATS:
        return 8
    place = image.fp.tell()
    image.fp.seek(0)
    header = image.fp.read(2**16)
    image.fp.seek(place)
    if image.format == "PNG":
        return header[24]
    if image.format == "JPEG2000":
        start = header.find(b"\xff\x4f\xff\x51")
        if start < 0:
            return 16  # or fewer: it cannot be told
        first = start + 42
        return max(
            (depth & 0x7F) + 1 for depth in header[first : first + 3 * header[first - 1] : 3]
        )
    configuration = header.find(b"av1C")
    return 16 if configuration < 0 or header[configuration + 6] & 0x40 else 8


def is_deep(image: Image.Image) -> bool:
    """Whether an image that was opened and not read yet has more than 8 bits a sample."""
    return image.mode[0] in "IF" or sample_bits(image) > 8


def read_deep(image: Image.Image) -> np.ndarray:
    """Upright pixels (height, width[, 3 or 4]) of an image that was opened and not read yet.

    uint16 from 0 to 65535, or float32 as they are in the file; an ImageFileError if its kind cannot
    be read exactly.
    """
    return _read_grey(image) if image.mode[0] in "IF" else _read_colours(image)


def _read_grey(image):
    """Pixels of a grey image, of which Pillow keeps all bits (see :func:`read_deep`)."""
    highest = 65535
    if image.format == "JPEG2000":
        highest -= highest >> sample_bits(image)  # Pillow moves samples of fewer bits up
    if image.format == "TIFF":
        bits = sample_bits(image)
        highest = 4095 if bits == 12 else highest
        if image.mode == "I":
            raise ImageFileError(
                f"has {'signed' if bits == 16 else 'signed or unsigned'} {bits}-bit integers; they "
                "must be unsigned, 8 or 16 bits: scale them, or give them as floats in [0, 1]."
            )
        if image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO:
            raise ImageFileError(f"is a TIFF image whose white is 0, of {bits} bits: {_ADVICE}.")
    pixels = np.array(upright(image))
    return pixels if image.mode == "F" else _to_16_bit(pixels, highest)


def _read_colours(image):
    """Pixels of a colour image, of which Pillow keeps 8 bits (see :func:`read_deep`)."""
    file = image.fp
    decoder, _, offset, args = image.tile[0]
    if decoder == "ppm":
        shape = image.height, image.width, 3
        file.seek(offset)
        content = file.read(2 * np.prod(shape))
        if len(content) < 2 * np.prod(shape):
            raise ImageFileError("cannot be read as an image (it is truncated): replace it.")
        return _to_16_bit(np.frombuffer(content, dtype=">u2").reshape(shape), args[1])
    if image.format == "PNG" and args == "LA;16B":
        # Read as if its two bytes of grey and two of alpha were four samples.
        pixels = _decode(image, lambda _decoder, _raw_mode: "RGBA").astype(np.uint16)
        return pixels[..., 0] << 8 | pixels[..., 1]
    high, low = (  # it can be told which byte of a 16-bit sample to keep, and decodes twice
        _decode(image, partial(_kept_byte, image, order)).astype(np.uint16)
        for order in _byte_orders(image)
    )
    return high << 8 | low


def _byte_orders(image):
    """The byte orders by which Pillow is told to keep the high and the low bytes of samples."""
    if image.format == "PNG":
        return "B", "L"
    if image.format != "TIFF" or sample_bits(image) != 16:
        raise _refusal(image)
    if image.tile[0][0] != "libtiff":
        return ("B", "L") if image.tag_v2.prefix == b"MM" else ("L", "B")
    if image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == _PLANES_APART:
        raise _refusal(image)  # it keeps the high bytes whatever it is told
    return ("L", "B") if sys.byteorder == "little" else ("B", "L")


def _kept_byte(image, order, _decoder, raw_mode):
    """The raw mode by which one byte of each sample is kept."""
    samples = raw_mode.partition(";")[0]  # of all colours, or of one plane
    if samples not in ("RGB", "RGBA", "RGBX", "R", "G", "B", "A"):
        raise _refusal(image)
    return f"{samples};16{order}"


def _decode(image, change):
    """Upright pixels of an image's file, decoded with other raw modes."""
    again = Image.open(image.fp, formats=[image.format])
    set_raw_modes(again, change)
    return np.asarray(upright(again))


def _to_16_bit(values, highest):
    """Values from 0 to `highest` as uint16 from 0 to 65535."""
    if highest == 65535:
        return values.astype(np.uint16)
    return np.rint(np.minimum(values, highest) * (65535 / highest)).astype(np.uint16)


def _refusal(image):
    return ImageFileError(
        "has samples of more than 8 bits, of which 8 at most can be read in this format and layout "
        f"({image.format}, {image.mode}): {_ADVICE}."
    )
