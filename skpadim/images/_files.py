"""Image files: which files of a folder are images, and how one is opened. Needs no torch.

Every image and every mask in a file is opened here, so that all are held to the same rules.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, features

# By Pillow's names. A format that is not among them is not even tried, whatever a file's content:
# some of Pillow's readers start other programs (EPS), or fetch what a file points to.
_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "WEBP": (".webp",),
    "PPM": (".pbm", ".pgm", ".ppm", ".pnm"),
    "GIF": (".gif",),
    **({"JPEG2000": (".jp2",)} if features.check("jpg_2000") else {}),
    **({"AVIF": (".avif",)} if "avif" in features.modules and features.check("avif") else {}),
}
# Known by nothing in its content, so that nearly any file could pass for one: the suffix tells.
_TGA = ".tga"

IMAGE_SUFFIXES = tuple(sorted({_TGA, *(suffix for each in _SUFFIXES.values() for suffix in each)}))


def list_images(folder: str | os.PathLike) -> list[Path]:
    """Paths of the images in a folder and its subfolders, sorted; hidden files are left out.

    By their names: a link to nothing, or a pipe, is told when it is read. None is a ValueError.
    """
    paths = [path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise ValueError(
            f"{folder} has no images: looked, in its subfolders too, for files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    return paths


def files_left_out(folder: str | os.PathLike) -> list[Path]:
    """Paths of what :func:`list_images` leaves out for its suffix, links to folders too, sorted."""
    return [path for path in _files(folder) if path.suffix.lower() not in IMAGE_SUFFIXES]


def _files(folder):
    """Paths of all but subfolders in a folder and these, sorted, but for hidden ones."""
    folder = Path(folder)
    if not folder.exists():
        hint = " Patterns are not expanded: give sorted(glob.glob(...))." * is_pattern(folder)
        raise FileNotFoundError(f"{folder} does not exist.{hint}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder.")
    paths = []
    for parent, subfolders, names in os.walk(folder, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".")]
        linked = (Path(parent, name) for name in subfolders)
        paths += [path for path in linked if path.is_symlink()]  # which are not followed
    return sorted(paths)


def _raise(error):
    raise error


def is_pattern(path: str | os.PathLike) -> bool:
    """Whether a path looks as if it stood for several files."""
    return any(sign in os.fsdecode(path) for sign in "*?")


class ImageFileError(ValueError):
    """What is wrong with an image file, in words that go on after its name."""


@contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """Open an image file, for its header or its pixels; it is not :func:`upright` yet.

    Whatever goes wrong inside of the ``with``, reading pixels included, is told as an
    ImageFileError: no regular file, not an image in one of the formats that are read, or more
    pixels than :data:`PIL.Image.MAX_IMAGE_PIXELS` allows.
    """
    try:
        with open_regular(path) as file:
            # Through a file object: given a name, Pillow maps raw pixels into memory with the
            # height and width that they have once they are turned.
            suffix = os.path.splitext(os.fsdecode(path))[1].lower()
            formats = [*_SUFFIXES, "TGA"] if suffix == _TGA else [*_SUFFIXES]
            try:
                opened = Image.open(file, formats=formats)
            except UnidentifiedImageError as error:
                raise ImageFileError(_describe_unknown(file)) from error
            with opened as image:
                yield image
    except ImageFileError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageFileError(
            f"has more pixels than are taken to be safe ({error}). If you trust it, raise the "
            "limit: PIL.Image.MAX_IMAGE_PIXELS = None before it is read, or --max-pixels of the "
            "command."
        ) from error
    except MemoryError as error:
        raise ImageFileError("is too large for the memory of this machine.") from error
    except Exception as error:  # on broken files Pillow's readers raise nearly anything
        raise ImageFileError(
            f"cannot be read as an image ({error}): take it out or replace it."
        ) from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened image, turned as its EXIF orientation says, by its header."""
    width, height = image.size
    if image.format == "TIFF" and image.tile:  # some versions of Pillow have turned it already
        width, height = (
            image.tag_v2[tag] for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength)
        )
    # For squares it does not matter; to look for it, Pillow decodes the whole of a PNG.
    turned = width != height and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (width, height) if turned else (height, width)


def upright(image: Image.Image) -> Image.Image:
    """An image turned as its EXIF orientation says; one that stands upright is not copied."""
    if image.format == "TIFF" and image.tile:
        set_raw_modes(image, lambda decoder, raw_mode: _tiff_raw_mode(image, decoder, raw_mode))
        # One that somebody else opened: without its name Pillow reads it, see `open_image`.
        name, image.filename = image.filename, ""
        try:
            image.load()
        finally:
            image.filename = name
    image.load()  # of some formats, what is known of the orientation comes after the pixels
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def set_raw_modes(image: Image.Image, change: Callable[[str, str], str]) -> None:
    """Change how Pillow will take the samples in the file of an image that was not read yet.

    `change` takes the name of a decoder and its raw mode, and returns another raw mode.
    """
    tiles = []
    for tile in image.tile:
        decoder, extents, offset, args = tile
        if isinstance(args, str):
            args = change(decoder, args)
        else:
            args = (change(decoder, args[0]), *args[1:])
        fields = decoder, extents, offset, args
        tiles.append(tile._make(fields) if hasattr(tile, "_make") else fields)
    image.tile = tiles


def _tiff_raw_mode(image, decoder, raw_mode):
    """The raw mode of a TIFF image's samples, where Pillow mistakes it."""
    is_big = image.tag_v2.prefix == b"MM"
    if image.mode == "F":  # of which libtiff has changed the byte order to this machine's
        return "F;32NF" if decoder == "libtiff" else "F;32BF" if is_big else "F;32F"
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))
    if decoder != "raw" or len(raw_mode) > 1 or max(bits) != 16:
        return raw_mode
    # Of colours in planes of their own, it has left the first letter.
    return image.mode if image.mode[0] == "I" else f"{raw_mode};16{'B' if is_big else 'L'}"


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file to read bytes; a pipe or a device is refused, not waited for.

    An ImageFileError if it is not one, or empty, or cannot be opened.
    """
    try:
        # Before, since opening a device may do something, and after, on what was opened.
        _check_regular(os.stat(path))
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except ImageFileError:
        raise
    except FileNotFoundError as error:
        hint = " Patterns are not expanded: give sorted(glob.glob(...))." * is_pattern(path)
        raise ImageFileError(f"does not exist: there is no such file.{hint}") from error
    except OSError as error:
        loop = " (a link that leads back to itself)" * (error.errno == errno.ELOOP)
        raise ImageFileError(f"cannot be opened: {error.strerror}{loop}.") from error
    except ValueError as error:  # a NUL character
        raise ImageFileError(f"has a name that no file can have ({error}).") from error
    try:
        status = os.fstat(file.fileno())
        _check_regular(status)
        if status.st_size == 0:
            raise ImageFileError("is empty (0 bytes): take it out or replace it.")
    except BaseException:
        file.close()
        raise
    return file


def _check_regular(status):
    """Refuse what is not a regular file, by its status."""
    if stat.S_ISDIR(status.st_mode):
        raise ImageFileError("is a folder, not an image file.")
    if not stat.S_ISREG(status.st_mode):
        raise ImageFileError("is a pipe, socket or device, not an image file.")


def _describe_unknown(file):
    """What to say of a file that Pillow takes for no image of the formats that are read."""
    with suppress(Exception):  # on broken files Pillow raises nearly anything
        file.seek(0)
        header = file.read(8)
        if header[2] == 43:  # with offsets of 64 bits
            header += file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        n_samples = tags.get(ExifTags.Base.SamplesPerPixel, 1)
        kinds = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex"}
        kind = kinds.get(tags.get(ExifTags.Base.SampleFormat, (1,))[0], "unknown")
        return (
            f"cannot be read as an image: it is a TIFF of a kind that is not read, {n_samples} "
            f"{kind} sample{'s' * (n_samples != 1)} of {tags[ExifTags.Base.BitsPerSample][0]} bits "
            "a pixel. Save it as 8 or 16 bits, or grey as float32, or give it as an array "
            "(tifffile.imread reads it)."
        )
    return (
        "cannot be read as an image (it is damaged, or in none of the formats that are read, "
        f"{', '.join(_SUFFIXES)}): take it out or replace it."
    )
