"""Image files of known pixels, in forms that Pillow reads and does not write among them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
# What has to be done with stored pixels for them to stand upright.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def as_pil(array):
    return Image.fromarray(np.ascontiguousarray(array))


def stored_as(turn, pixels):
    """Upright pixels as they are stored for an orientation."""
    return np.ascontiguousarray(UPRIGHT[{6: 8, 8: 6}.get(turn, turn)](pixels))


def write_by_pillow(path, pixels, form, turn):
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    options = {} if form == "BMP" else {"exif": exif}
    as_pil(pixels).save(path, form, **options, **({"lossless": True} if form == "WEBP" else {}))


def png(pixels, turn):
    """A PNG file of 8 or 16 bits a sample, which Pillow writes of grey only."""
    height, width, n_channels = np.atleast_3d(pixels).shape

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    kind = {1: 0, 3: 2, 4: 6}[n_channels]
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, kind, 0, 0, 0)
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    rows = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
    scanlines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = chunk(b"IHDR", header) + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    chunks += chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def tiff(pixels, turn, *, big_endian):
    """An uncompressed TIFF file of 8 or 16 bits a sample, of either order of bytes."""
    order = ">" if big_endian else "<"
    height, width, n_channels = np.atleast_3d(pixels).shape
    content = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    bits_at = 8 + len(content) + len(content) % 2
    bits = struct.pack(f"{order}{n_channels}H", *[8 * pixels.itemsize] * n_channels)
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, n_channels, 8 * pixels.itemsize if n_channels == 1 else bits_at),
        (259, 3, 1, 1),
        (262, 3, 1, 1 if n_channels == 1 else 2),
        (273, 4, 1, 8),
        (274, 3, 1, turn),
        (277, 3, 1, n_channels),
        (278, 4, 1, height),
        (279, 4, 1, len(content)),
    ]
    directory = struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        number = "HH" if kind == 3 and count == 1 else "I"  # a short one is followed by nothing
        numbers = [value, 0][: len(number)]
        directory += struct.pack(f"{order}HHI{number}", tag, kind, count, *numbers)
    start = b"MM\0*" if big_endian else b"II*\0"
    start += struct.pack(f"{order}I", bits_at + len(bits))
    return start + content.ljust(bits_at - 8, b"\0") + bits + directory + struct.pack("4x")
