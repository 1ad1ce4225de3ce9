"""How large images are made: the parameters that say so, and what is shown of them."""

from __future__ import annotations

from numbers import Integral


def sizes_of(
    image_size, crop_size, proportions: tuple[int, int] | None = None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """The parameters `image_size` and `crop_size` as pairs (height, width).

    With the `proportions` (height, width) of the images, `image_size` is their shorter side.
    """
    size = pair_of(image_size, "image_size")
    if proportions is not None:
        if not isinstance(image_size, Integral):
            raise ValueError(
                f"image_size={image_size!r}: with keep_aspect_ratio=True it is a number, the "
                "shorter side's; the other side follows the images."
            )
        size = tuple(round(image_size * side / min(proportions)) for side in proportions)
    crop = size if crop_size is None else pair_of(crop_size, "crop_size")
    if crop[0] > size[0] or crop[1] > size[1]:
        raise ValueError(
            f"crop_size={crop_size!r} is larger than image_size={image_size!r}: make it smaller, "
            "or None to keep the whole image."
        )
    return size, crop


def shrunk(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """A height and width with their proportions, and sides of at most so many pixels."""
    scale = min(1, longest / max(size))
    return tuple(max(1, round(scale * side)) for side in size)


def pair_of(value, name):
    """An int or a pair of ints as (height, width)."""
    pair = (value, value) if isinstance(value, Integral) else tuple(value)
    if len(pair) != 2 or not all(isinstance(side, Integral) and side >= 1 for side in pair):
        raise ValueError(f"{name}={value!r} must be a number of pixels, or a pair (height, width).")
    return tuple(int(side) for side in pair)
