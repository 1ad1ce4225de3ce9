"""Masks and maps as users have them, checked, to batches of pairs.

Masks leave as NumPy arrays of bool; maps as floating NumPy arrays, or as tensors if they are on
a device other than the CPU. Nothing here imports torch: without it there are no tensors.
"""

from __future__ import annotations

import math
import sys
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
    ignored: np.ndarray | list | None = None  # True where pixels do not count

    def __len__(self):
        return len(self.maps)

    @property
    def n_pixels(self) -> int:
        """Number of pixels of all maps that count."""
        maps = self.maps if isinstance(self.maps, list) else [self.maps]
        n_ignored = sum(map(np.count_nonzero, () if self.ignored is None else self.ignored))
        return sum(math.prod(one.shape) for one in maps) - n_ignored

    def batches(self) -> list[Batch]:
        """Batches of images of one shape, in order."""
        ignored = self.ignored
        if isinstance(self.maps, list):
            return [
                Batch(i, mask[None], one[None], None if ignored is None else ignored[i][None])
                for i, (mask, one) in enumerate(zip(self.masks, self.maps, strict=True))
            ]
        size = max(1, _BATCH_PIXELS // max(1, self.n_pixels // len(self)))
        parts = [slice(start, start + size) for start in range(0, len(self), size)]
        return [
            Batch(p.start, self.masks[p], self.maps[p], None if ignored is None else ignored[p])
            for p in parts
        ]

    def score_pieces(self) -> list:
        """Scores of all pixels that count, in pieces; without copies where there need be none."""
        if self.ignored is not None:
            return [batch.counted_scores() for batch in self.batches()]
        if isinstance(self.maps, list):
            return self.maps
        is_whole = is_tensor(self.maps) or self.maps.flags.c_contiguous
        return [self.maps] if is_whole else [*self.maps]


@dataclass
class Batch:
    """Some images of one shape: `first` is the index of the first among all images."""

    first: int
    masks: np.ndarray
    maps: np.ndarray
    ignored: np.ndarray | None = None

    def checked_masks(self) -> np.ndarray:
        """Masks as bool of shape (n, height, width); raises if they have other than two values.

        They are normal where pixels do not count: so regions are cut to what does.
        """
        masks = np.ascontiguousarray(self.masks)
        if self.ignored is not None:
            masks = np.where(self.ignored, masks.dtype.type(0), masks)
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
        """Raise if the score of a pixel that counts is NaN or infinite."""
        if _all_finite(self.maps):
            return
        for index in range(len(self.maps)):
            if not _all_finite(self.counted_scores(slice(index, index + 1))):
                raise ValueError(
                    f"y_score: the map of image {self.first + index} has NaN or infinite scores; "
                    "every pixel must have a finite score. Leave the image out, correct what "
                    "computed it, or say where pixels do not count (ignore)."
                )

    def counted_scores(self, images=slice(None)):
        """Flat scores of the pixels of some images that count, on the maps' device."""
        scores = self.maps[images].reshape(-1)
        if self.ignored is None:
            return scores
        counted = ~self.ignored[images].reshape(-1)
        if is_tensor(scores):
            counted = sys.modules["torch"].from_numpy(counted).to(scores.device)
        return scores[counted]

    def scores_at(self, positions: np.ndarray) -> np.ndarray:
        """Scores of pixels, by index or mask of the flattened batch, as a NumPy array."""
        if is_tensor(self.maps):
            torch = sys.modules["torch"]
            index = torch.from_numpy(positions).to(self.maps.device)
            return self.maps.reshape(-1)[index].cpu().numpy()
        return np.ascontiguousarray(self.maps).reshape(-1)[positions]

    def image_scores(self) -> np.ndarray:
        """Highest score of each map, of shape (n,); minus infinity where no pixel counts."""
        if self.ignored is not None:
            scores = [self.counted_scores(slice(i, i + 1)) for i in range(len(self.maps))]
            return np.array([float(one.max()) if len(one) else -np.inf for one in scores])
        if is_tensor(self.maps):
            return self.maps.amax(dim=(1, 2)).cpu().numpy()
        return self.maps.max(axis=(1, 2))


def check_pairs(y_true, y_score, ignore=None) -> Pairs:
    """Check kinds, shapes and dtypes of masks and maps; pixels are checked batch by batch later.

    `ignore` is None, or says where pixels do not count: of each image, or (height, width) of all.
    """
    if isinstance(y_true, (list, tuple)) != isinstance(y_score, (list, tuple)):
        raise TypeError(
            f"y_true is {_kind(y_true)} and y_score is {_kind(y_score)}: both must be lists, or "
            f"both arrays. Each can be {_ACCEPTED}. skpadim.datasets.read_masks makes a list of "
            "arrays of masks in files."
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
        return Pairs(masks, maps, _check_ignore(ignore, maps))
    masks, maps = _as_masks(y_true, "y_true", 3), _as_maps(y_score, "y_score", 3)
    if tuple(masks.shape) != tuple(maps.shape):
        raise ValueError(
            f"y_true has shape {tuple(masks.shape)} and y_score has shape {tuple(maps.shape)}: "
            "masks and maps must have the same shape (n, height, width). Resize one of them."
        )
    _check_lengths(len(masks), len(maps))
    if 0 in maps.shape:
        raise ValueError(f"y_score has shape {tuple(maps.shape)}: the maps have no pixels.")
    return Pairs(masks, maps, _check_ignore(ignore, maps))


def check_max_fpr(max_fpr) -> float:
    """Check an integration limit, which must lie in (0, 1] and be a normal float."""
    smallest = sys.float_info.min  # below it floats have ever fewer digits, and areas with them
    is_number = isinstance(max_fpr, Real) and not isinstance(max_fpr, bool)
    if not is_number or not smallest <= max_fpr <= 1:
        raise ValueError(
            f"max_fpr={max_fpr!r} must be a number in (0, 1], not below {smallest!r}: the false "
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


def _as_masks(value, name, ndim):
    """Masks as a NumPy array of bool or numbers."""
    array = as_array(value, name)
    if array.dtype.kind not in "buif":
        raise TypeError(
            f"{name} has dtype {array.dtype}; masks must be {_ACCEPTED}, of bool, 0 and 1, or 0 "
            "and 255. skpadim.datasets.read_masks(masks, images) reads them from their files."
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


def _check_ignore(ignore, maps):
    """Where pixels do not count, in the form of the maps; None if all do."""
    if ignore is None:
        return None
    if not isinstance(maps, list):
        return _as_ignored(ignore, "ignore", tuple(maps.shape))
    each = [ignore] * len(maps) if np.ndim(ignore) == 2 else list(ignore)
    if len(each) != len(maps):
        raise ValueError(
            f"ignore has {len(each)} arrays, and there are {len(maps)} maps: give one each, or one "
            "array (height, width) for all."
        )
    shapes = (tuple(one.shape) for one in maps)
    return [
        _as_ignored(one, f"ignore[{index}]", shape)
        for index, (one, shape) in enumerate(zip(each, shapes, strict=True))
    ]


def _as_ignored(value, name, shape):
    array = as_array(value, name)
    if array.dtype != bool:
        raise TypeError(
            f"{name} has dtype {array.dtype}; it must be boolean, True where pixels do not count: "
            "compare it with a value first, for instance ignore > 0."
        )
    if array.shape not in (shape, shape[-2:]):
        raise ValueError(
            f"{name} has shape {array.shape}, and the maps have shape {shape}: it must be the "
            "same, or (height, width) for all images."
        )
    return np.broadcast_to(array, shape)


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
    if not len(maps):
        return True
    # Two reductions, with no temporary: NaN comes through both.
    return np.isfinite(maps.min()) and np.isfinite(maps.max())


def _kind(value):
    return "a list" if isinstance(value, (list, tuple)) else f"of type {type(value).__name__}"
