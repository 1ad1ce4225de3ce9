"""Masks of any kind to bool arrays, True where anomalous. Needs no torch.

Every mask is read here, whoever asks for it, so that it means the same however it comes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from skpadim._arrays import as_array, is_tensor
from skpadim.images._deep import is_deep, read_deep
from skpadim.images._files import ImageFileError, open_image, upright, upright_size
from skpadim.images._items import list_items
from skpadim.images._unaligned import UnalignedImage

# What stands for anomalous beside 0 in an array of numbers: as numbers, in 8 and in 16 bits.
ANOMALOUS_VALUES = (1, 255, 65535)
# What they make of 0 and 1 is noise.
_LOSSY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class MaskFiles:
    """A mask in one or more image files, read when it is used as an array.

    ``numpy.asarray(mask)`` is bool of shape (height, width): True where any of the files is above
    a threshold.
    """

    paths: tuple[str, ...]  # of one size
    threshold: int = 0  # of the files' values as they are: indices of classes, or of a palette

    def __repr__(self):
        return f"<mask {', '.join(self.paths)}>"

    def __array__(self, dtype=None, copy=None):
        union = None
        for path in self.paths:
            values = self._values(path)
            if union is not None and union.shape != values.shape:
                raise ValueError(
                    f"{path} is {_size(values.shape)} pixels and {self.paths[0]} is "
                    f"{_size(union.shape)}: the masks of one image must have one size."
                )
            mask = values > self.threshold
            union = mask if union is None else union | mask
        return union if dtype is None else union.astype(dtype)

    def _values(self, path):
        """Values of a file (height, width), the largest of its channels but for alpha."""
        try:
            with open_image(path) as image:
                _check_frames(image)
                image = upright(image)
                values = np.asarray(image.convert("L") if image.mode == "1" else image)
                if values.ndim == 3:
                    bands = image.getbands()
                    values = values[..., : len(bands) - (bands[-1] in "Aa")].max(axis=2)
                return values
        except ImageFileError as error:
            raise ValueError(f"{path} {error}") from error


@dataclass(frozen=True)
class UnalignedMask:
    """The mask of an unaligned image, which moves as that does; it may leave no anomalous pixel."""

    mask: object  # of the file as it is
    image: UnalignedImage

    def __array__(self, dtype=None, copy=None):
        return read_mask(self, 0).astype(dtype or bool)

    def read(self, index: int) -> np.ndarray:
        """As :func:`read_mask`; the mask as it is must have an anomalous pixel."""
        mask = read_mask(self.mask, index)
        check_mask_size(mask.shape, self.mask, self.image.path, index)
        check_agreement(mask, self.mask, index, is_anomalous=True)
        return self.image.move(mask.astype(np.uint8), Image.Resampling.NEAREST) > 0


def unaligned_masks(masks, images: Sequence[UnalignedImage]) -> list[UnalignedMask | None]:
    """Masks of image files as those of the unaligned images that are made of these."""
    return [
        None if is_missing(mask) else UnalignedMask(mask, image)
        for mask, image in zip(masks, images, strict=True)
    ]


def read_masks(masks, images=None) -> list[np.ndarray | None]:
    """Read the masks of a data set.

    Parameters
    ----------
    masks : sequence
        ``masks`` of a loaded data set: paths of images with two values, anomalous where not
        black, objects that become arrays, arrays, and None for good images.
    images : sequence of the same length, or path of a folder, default=None
        Paths of the images, ``data`` of the data set. Masks in files are checked to have their
        sizes then, and None becomes a mask of zeros.

    Returns
    -------
    masks : list of ndarray of shape (height, width), bool
        True where defective. Each has the size of its file: a list, since images of one data
        set can differ in size; ``numpy.stack`` makes an array of those that do not. Without
        `images`, None stays None.

    Raises
    ------
    TypeError, ValueError
        If a mask cannot be read, has other values, or another size than its image; or if one in a
        file has no anomalous pixel, since None stands for good images. It is named.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim.datasets import read_masks
    >>> read_masks([None, np.eye(2)])
    [None, array([[ True, False],
           [False,  True]])]
    """
    masks = as_sequence(masks)
    images = [None] * len(masks) if images is None else list_items(images)
    if len(images) != len(masks):
        raise ValueError(
            f"images has {len(images)} paths and masks has {len(masks)} masks: give one an image."
        )
    return [
        _read_with_image(mask, image, index)
        for index, (mask, image) in enumerate(zip(masks, images, strict=True))
    ]


def read_mask(mask, index: int) -> np.ndarray:
    """One of several masks, of any kind, as bool (height, width); errors name it by its index."""
    if isinstance(mask, UnalignedMask):
        return mask.read(index)
    try:
        if isinstance(mask, (str, os.PathLike)):
            with open_image(mask) as image:
                return _read_picture(image)
        if isinstance(mask, Image.Image):
            return _read_picture(mask)
    except ImageFileError as error:
        problem = str(error)
        if not problem.startswith(("cannot be read", "has ")):
            problem = f"cannot be read: it {problem}"
        raise ValueError(f"{mask_name(mask, index)} {problem}") from error
    name = f"masks[{index}]"
    try:
        array = np.asarray(mask) if isinstance(mask, MaskFiles) else as_array(mask, name)
    except (OSError, ValueError) as error:
        if str(error).startswith(name):
            raise
        raise ValueError(f"{name} cannot be read: {error}") from error
    return _read_array(array, name)


def is_missing(mask) -> bool:
    """Whether there is no mask: None, or the NaN or NA that pandas may make of it."""
    if isinstance(mask, (float, np.floating)):
        return bool(np.isnan(mask))
    return mask is None or type(mask).__name__ in ("NAType", "NaTType")


def mask_name(mask, index: int) -> str:
    """What errors call a mask."""
    if isinstance(mask, (str, os.PathLike)):
        return f"masks[{index}] ({os.fspath(mask)})"
    return f"masks[{index}] ({mask!r})" if isinstance(mask, MaskFiles) else f"masks[{index}]"


def as_sequence(masks, name: str = "masks") -> Sequence:
    """Masks of several images as a sequence, of the forms that images come in too."""
    if hasattr(masks, "iloc"):  # pandas
        return list(masks.iloc[:, 0] if masks.ndim == 2 and masks.shape[1] == 1 else masks)
    if isinstance(masks, np.ndarray) and masks.dtype.kind in "OU" and masks.shape[1:] == (1,):
        return list(masks[:, 0])
    is_single = isinstance(masks, (str, bytes, os.PathLike)) or getattr(masks, "ndim", 1) == 0
    if is_single or not hasattr(masks, "__len__"):
        raise TypeError(
            f"{name} must be a sequence of arrays, paths or None, not {type(masks).__name__}."
        )
    return masks


def check_mask_size(size: tuple[int, int], mask, image, index: int) -> None:
    """Check that a mask in a file has the size of its image, by that one's header.

    Files that Pillow does not know are let pass, as the detector's own affair, and so are masks in
    memory, which somebody may have resized.
    """
    in_memory = is_missing(mask) or hasattr(mask, "dtype")
    if in_memory or not isinstance(image, (str, os.PathLike)):
        return
    wanted = image_size(image)
    if wanted is not None and wanted != tuple(size):
        raise ValueError(
            f"{mask_name(mask, index)} is {_size(size)} pixels (height x width) and its image "
            f"{os.fspath(image)} is {_size(wanted)}: a mask must have the size of its image. Are "
            "masks and images in the same order?"
        )


def check_agreement(array: np.ndarray, mask, index: int, is_anomalous: bool) -> None:
    """Check that a mask has anomalous pixels where its image is labelled so, and there alone."""
    name = mask_name(mask, index)
    if is_anomalous and is_missing(mask):
        raise ValueError(
            f"y says that image {index} is anomalous, and {name} is None: give its mask, or leave "
            "the image out."
        )
    if is_anomalous and not array.any() and not isinstance(mask, UnalignedMask):
        raise ValueError(
            f"y says that image {index} is anomalous, and {name} has no anomalous pixel: "
            f"{why_empty(mask)}. Correct one of them, or leave the image out."
        )
    if not is_anomalous and array.any():
        raise ValueError(
            f"y says that image {index} is good, and {name} has anomalous pixels: correct one of "
            "them. In y, -1 is anomalous and +1 good."
        )


def why_empty(mask) -> str:
    """Why a mask that was read has no anomalous pixel."""
    if isinstance(mask, MaskFiles) and mask.threshold > 0:
        return f"nothing in it is above {mask.threshold}, its threshold"
    return "it is 0 (black) everywhere"


def image_size(image) -> tuple[int, int] | None:
    """Height and width of an image of any kind, upright; None if its file cannot be read."""
    if is_tensor(image):
        return tuple(image.shape[-2:])
    if isinstance(image, Image.Image):
        return upright_size(image)
    if not isinstance(image, (str, os.PathLike)):
        return np.shape(image)[:2]
    try:
        with open_image(image) as opened:
            return upright_size(opened)
    except ImageFileError:
        return None


def _read_with_image(mask, image, index):
    """One mask, checked against its image, if that is known."""
    if image is not None and not isinstance(image, (str, os.PathLike, UnalignedImage)):
        raise TypeError(f"images[{index}] must be a path, not {type(image).__name__}.")
    if is_missing(mask):
        size = None if image is None else image_size(image)
        if image is not None and size is None:
            raise ValueError(f"images[{index}] ({image}) cannot be read as an image.")
        return None if image is None else np.zeros(size, bool)
    array = read_mask(mask, index)
    check_mask_size(array.shape, mask, image, index)
    if isinstance(mask, (str, os.PathLike, MaskFiles)) and not array.any():
        raise ValueError(
            f"{mask_name(mask, index)} has no anomalous pixel: {why_empty(mask)}. If its image is "
            "good, give None for its mask; else correct it, or leave the image out."
        )
    return array


def _read_array(array, name):
    """Array of a mask to bool; numbers have two values, 0 and one that is known."""
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "buif":
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; a mask must be an array "
            "(height, width), the path of an image, or None for a good image."
        )
    if array.dtype != bool:
        values = np.unique(array)
        if not any(np.isin(values, (0, value)).all() for value in ANOMALOUS_VALUES):
            raise ValueError(
                f"{name} has {_describe(values)}; a mask must be bool, or 0 and 1, 0 and 255, or 0 "
                "and 65535, anomalous where not 0. Compare it with a threshold first, for instance "
                "mask > 127."
            )
    return array != 0


def _read_picture(image):
    """PIL image of a mask to bool: normal where black."""
    try:
        values = _brightness(image)
    except (OSError, SyntaxError) as error:  # one that was opened by the caller, and not loaded
        raise ImageFileError(f"cannot be read as an image ({error}).") from error
    found = np.unique(values)
    if found[0] >= 0 and np.isfinite(found[-1]):
        has_two = len(found) == 1 or (len(found) == 2 and found[0] == 0)
        if has_two and (found[-1] in (0, 255) or image.format not in _LOSSY_FORMATS):
            return values != 0  # whatever value it is: 1, 255, 65535, a colour's
        if values.dtype.kind == "u" and _is_black_and_white(values, found):
            return values > np.iinfo(values.dtype).max // 2
    raise ImageFileError(
        f"has {_describe(found)}, and it cannot be told which are anomalous; a mask must have two "
        "values, 0 (black) where normal and another where anomalous, or be black and white with "
        "noise or soft edges. Make one of it, or, if its values are classes, load it with "
        "load_folder(..., mask_threshold=...)."
    )


def _is_black_and_white(values, found):
    """Whether values that are neither dark nor bright are but noise and soft edges."""
    # Noise of compression and blurred edges make many values, and no area of one value that is
    # far from black and white, as classes do; and of a photograph most pixels are far from both.
    white = np.iinfo(values.dtype).max
    noise = white // 8
    if found[-1] <= white // 2:
        return False  # no pixel would be anomalous
    if len(found) == 2:
        return found[0] <= white // 2
    far = (values > noise) & (values < white - noise)
    if len(found) == 3:  # such as 0, 1, and 255 for what is to be ignored
        far |= (values > 0) & (values <= white // 2)
    inner = values[1:-1, 1:-1]
    in_area = far[1:-1, 1:-1]
    for neighbour in (values[:-2, 1:-1], values[2:, 1:-1], values[1:-1, :-2], values[1:-1, 2:]):
        in_area = in_area & (inner == neighbour)
    return not in_area.any() and 2 * np.count_nonzero(far) <= far.size


def _brightness(image):
    """Values (height, width) of an opened mask, of colours the brightest channel's; black is 0."""
    pixels = _pixels(image)
    if pixels.ndim == 2:
        return pixels
    white = np.iinfo(pixels.dtype).max
    red, green, blue, *alphas = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    values = np.maximum(np.maximum(red, green), blue)
    has_one_colour = all(channel.min() == channel.max() for channel in (red, green, blue))
    for alpha in alphas:
        is_cut_out = alpha.min() < alpha.max()
        if has_one_colour:
            values = alpha if is_cut_out else np.minimum(values, alpha)
        elif is_cut_out:  # what is transparent is normal, as on black
            values = np.round(values * (alpha / white)).astype(pixels.dtype)
    is_grey = np.array_equal(red, green) and np.array_equal(green, blue)
    if not (is_grey or has_one_colour) and values.min() > white // 8:
        shown = np.unique(pixels[..., :3].reshape(-1, 3), axis=0)
        raise ImageFileError(
            f"has {len(shown)} colours ({', '.join(str(tuple(c)) for c in shown[:3].tolist())}"
            f"{', ...' if len(shown) > 3 else ''}), of which none is black; a mask must be black "
            "where normal."
        )
    return values


def _pixels(image):
    """Upright pixels of an opened mask, (height, width) or (height, width, 3 or 4)."""
    _check_frames(image)
    if image.mode != "I" and getattr(image, "tile", None) and is_deep(image):
        return read_deep(image)
    image = upright(image)
    if image.mode[0] in "IF":
        values = np.asarray(image)
        # Older versions of Pillow say "I", signed 32-bit integers, for unsigned 16-bit images.
        fits = values.dtype.kind == "i" and 0 <= values.min() <= values.max() < 2**16
        return values.astype(np.uint16) if fits else values
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("La", "RGBa"):  # colours times alpha
        image = image.convert(image.mode.upper())
    has_alpha = image.mode[-1] == "A" or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


def _check_frames(image):
    """Refuse a file with several frames, but for the previews that cameras put behind a JPEG."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise ImageFileError(
            f"has {image.n_frames} frames; save the one that is the mask as a file of its own."
        )


def _describe(values):
    """Number of values, the highest, and the first few, in words."""
    values = values + 0  # so that 0 has no sign
    shown = ", ".join(f"{value:g}" for value in values[:6])
    return f"{len(values)} values up to {values[-1]:g} ({shown}{', ...' * (len(values) > 6)})"


def _size(shape):
    return f"{shape[0]} x {shape[1]}"
