"""Masks and maps as users have them, checked, to batches of pairs.

Masks leave as NumPy arrays of bool; maps as floating NumPy arrays, or as tensors if they are on
a device other than the CPU. Nothing here imports torch: without it there are no tensors.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real

import numpy as np

from skpadim._arrays import as_array, check_dense, is_tensor, plain_tensor
from skpadim.images._masks import ANOMALOUS_VALUES

# Images of one array are worked on in batches of about this many pixels, so that what is computed
# from them is small beside the input and the cost of a NumPy call is small beside its work.
_BATCH_PIXELS = 2**20

_ACCEPTED = "an array (n, height, width), or a list of arrays (height, width) of any sizes"


@dataclass
class Pairs:
    """Masks and maps of the same images, of which nothing but shapes and dtypes is checked yet."""

    masks: np.ndarray | list  # (n, height, width), or a list of (height, width)
    maps: np.ndarray | list

    def __len__(self):
        return len(self.maps)

    @property
    def n_pixels(self) -> int:
        """Number of pixels of all maps."""
        maps = self.maps if isinstance(self.maps, list) else [self.maps]
        return sum(math.prod(one.shape) for one in maps)

    def batches(self) -> list[Batch]:
        """Batches of images of one shape, in order."""
        if isinstance(self.maps, list):
            return [
                Batch(index, mask[None], one[None])
                for index, (mask, one) in enumerate(zip(self.masks, self.maps, strict=True))
            ]
        size = max(1, _BATCH_PIXELS // max(1, self.n_pixels // len(self)))
        return [
            Batch(start, self.masks[start : start + size], self.maps[start : start + size])
            for start in range(0, len(self), size)
        ]


@dataclass
class Batch:
    """Some images of one shape: `first` is the index of the first among all images."""

    first: int
    masks: np.ndarray
    maps: np.ndarray

    def checked_masks(self) -> np.ndarray:
        """Masks as bool of shape (n, height, width); raises if they have other than two values."""
        masks = np.ascontiguousarray(self.masks)
        if masks.dtype == bool:
            return masks
        anomalous = masks != 0
        n_anomalous = np.count_nonzero(anomalous)
        for value in ANOMALOUS_VALUES:
            if np.count_nonzero(masks == value) == n_anomalous:
                return anomalous
        for index, mask in enumerate(masks, self.first):
            values = np.unique(mask)
            if not any(np.isin(values, (0, value)).all() for value in ANOMALOUS_VALUES):
                found = ", ".join(f"{value:g}" for value in values[:6])
                raise ValueError(
                    f"y_true: the mask of image {index} has the values {found}"
                    f"{', ...' if len(values) > 6 else ''}; a mask must be bool, or 0 and 1, 0 "
                    "and 255, or 0 and 65535, anomalous where not 0. Compare it with a threshold "
                    "first, for instance mask > 127."
                )
        return anomalous

    def check_maps(self) -> None:
        """Raise if a score is NaN or infinite."""
        if _all_finite(self.maps):
            return
        for index, one in enumerate(self.maps, self.first):
            if not _all_finite(one):
                raise ValueError(
                    f"y_score: the map of image {index} has NaN or infinite scores; every pixel "
                    "must have a finite score. Leave the image out, or correct what computed it."
                )

    def scores_at(self, positions: np.ndarray) -> np.ndarray:
        """Scores of pixels, by index or mask of the flattened batch, as a NumPy array."""
        if is_tensor(self.maps):
            torch = sys.modules["torch"]
            index = torch.from_numpy(positions).to(self.maps.device)
            return self.maps.reshape(-1)[index].cpu().numpy()
        return np.ascontiguousarray(self.maps).reshape(-1)[positions]

    def image_scores(self) -> np.ndarray:
        """Highest score of each map, of shape (n,)."""
        if is_tensor(self.maps):
            return self.maps.amax(dim=(1, 2)).cpu().numpy()
        return self.maps.max(axis=(1, 2))


def check_pairs(y_true, y_score) -> Pairs:
    """Check kinds, shapes and dtypes of masks and maps; pixels are checked batch by batch later."""
    if isinstance(y_true, (list, tuple)) != isinstance(y_score, (list, tuple)):
        raise TypeError(
            f"y_true is {_kind(y_true)} and y_score is {_kind(y_score)}: both must be lists, or "
            f"both arrays. Each can be {_ACCEPTED}."
        )
    if isinstance(y_true, (list, tuple)):
        masks = [_as_masks(mask, f"y_true[{index}]", 2) for index, mask in enumerate(y_true)]
        maps = [_as_maps(one, f"y_score[{index}]", 2) for index, one in enumerate(y_score)]
        _check_lengths(len(masks), len(maps))
        for index, (mask, one) in enumerate(zip(masks, maps, strict=True)):
            if tuple(mask.shape) != tuple(one.shape):
                raise ValueError(
                    f"y_true[{index}] has shape {tuple(mask.shape)} and y_score[{index}] has "
                    f"shape {tuple(one.shape)}: a mask and its map must have the same shape. "
                    "Resize one of them."
                )
            if 0 in one.shape:
                raise ValueError(f"y_score[{index}] has shape {tuple(one.shape)}: no pixels.")
        return Pairs(masks, maps)
    masks, maps = _as_masks(y_true, "y_true", 3), _as_maps(y_score, "y_score", 3)
    if tuple(masks.shape) != tuple(maps.shape):
        raise ValueError(
            f"y_true has shape {tuple(masks.shape)} and y_score has shape {tuple(maps.shape)}: "
            "masks and maps must have the same shape (n, height, width). Resize one of them."
        )
    _check_lengths(len(masks), len(maps))
    if 0 in maps.shape:
        raise ValueError(f"y_score has shape {tuple(maps.shape)}: the maps have no pixels.")
    return Pairs(masks, maps)


def check_max_fpr(max_fpr, name="max_fpr") -> float:
    """Check an integration limit, which must lie in (0, 1] and be a normal float."""
    smallest = sys.float_info.min  # below it floats have ever fewer digits, and areas with them
    is_number = isinstance(max_fpr, Real) and not isinstance(max_fpr, bool)
    if not is_number or not smallest <= max_fpr <= 1:
        raise ValueError(
            f"{name}={max_fpr!r} must be a number in (0, 1], not below {smallest!r}: the false "
            "positive rate to integrate up to. 0.3 is MVTec AD's, 0.05 that of MVTec LOCO AD, 1 "
            "the whole curve."
        )
    return float(max_fpr)


def check_connectivity(connectivity) -> int:
    """Check which pixels touch each other: 8 or 4 neighbours."""
    if connectivity not in (4, 8):
        raise ValueError(
            f"connectivity={connectivity!r} must be 8 (pixels that touch at a corner are one "
            "region, as in MVTec's evaluation) or 4 (at a side only)."
        )
    return int(connectivity)


def iter_flat(maps) -> Iterator:
    """Flat views of the maps where that needs no copy; else image by image."""
    if isinstance(maps, list):
        yield from (one.reshape(-1) for one in maps)
    elif is_tensor(maps) or maps.flags.c_contiguous:
        yield maps.reshape(-1)
    else:
        yield from maps


def _as_masks(value, name, ndim):
    """Masks as a NumPy array of bool or numbers."""
    array = as_array(value, name)
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"{name} has dtype {array.dtype}; masks must be {_ACCEPTED}, of bool, 0 and 1, or 0 "
            "and 255."
        )
    return _check_ndim(array, name, ndim)


def _as_maps(value, name, ndim):
    """Maps as a floating NumPy array, or as a tensor if it is not on the CPU."""
    if is_tensor(value) and _stays_on_device(value):
        check_dense(value, name)
        if not value.dtype.is_floating_point:
            raise TypeError(_not_floating(name, value.dtype))
        return _check_ndim(plain_tensor(value), name, ndim)
    array = as_array(value, name)
    if array.dtype.kind != "f":
        raise TypeError(_not_floating(name, array.dtype))
    if array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    return _check_ndim(array, name, ndim)


def _stays_on_device(tensor):
    """Whether a tensor is computed on where it is; NumPy is as good on the CPU."""
    return tensor.device.type != "cpu"


def _not_floating(name, dtype):
    return (
        f"{name} has dtype {dtype}; maps must be of a floating dtype, higher where more "
        "anomalous. Are masks and maps swapped? Else convert them, for instance "
        "y_score.astype(numpy.float32)."
    )


def _check_ndim(array, name, ndim):
    if array.ndim != ndim:
        wanted = "(n, height, width)" if ndim == 3 else "(height, width)"
        hint = " Put a single image in a list." if ndim == 3 and array.ndim == 2 else ""
        raise ValueError(f"{name} has shape {tuple(array.shape)}; it must be {wanted}.{hint}")
    return array


def _check_lengths(n_masks, n_maps):
    if n_masks != n_maps:
        raise ValueError(
            f"y_true has {n_masks} masks and y_score has {n_maps} maps: give one mask a map."
        )
    if n_maps == 0:
        raise ValueError("y_true and y_score are empty: at least one image is needed.")


def _all_finite(maps):
    if is_tensor(maps):
        return bool(maps.isfinite().all())
    # Two reductions, with no temporary: NaN comes through both.
    return np.isfinite(maps.min()) and np.isfinite(maps.max())


def _kind(value):
    return "a list" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"
