"""What the parameters of PatchEmbedder, which PadimDetector shares, may be."""

from __future__ import annotations

import os
from numbers import Integral

import numpy as np
import torch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from skpadim._arrays import as_array
from skpadim.images._sizes import pair_of

EMBEDDING_CONSTRAINTS = {
    "backbone": "no_validation",  # checked where it is loaded, with the names that are known
    "weights": "no_validation",
    "layers": "no_validation",
    "n_features": [StrOptions({"auto"}), None, Interval(Integral, 1, None, closed="left")],
    "projection": [StrOptions({"random", "semi_orthogonal"})],
    "image_size": [Interval(Integral, 1, None, closed="left"), tuple, list],
    "crop_size": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
    "keep_aspect_ratio": ["boolean"],
    "align": [StrOptions({"translation", "rigid", "similarity"}), HasMethods(["measure"]), None],
    "roi": "no_validation",  # checked where it is read
    "tile_size": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "device": [str, torch.device],
    "precision": [StrOptions({"float32", "bfloat16", "float16"})],
    "compile": ["boolean"],
    "memory": [None, str, os.PathLike, HasMethods(["cache"])],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}

# Those that the embeddings depend on: after a fit they must stay as they are. (So must
# random_state, but a fitted embedder does not look at it again.)
MODEL_PARAMETERS = (
    "backbone",
    "weights",
    "layers",
    "n_features",
    "projection",
    "image_size",
    "crop_size",
    "keep_aspect_ratio",
    "align",
    "roi",
    "tile_size",
    "precision",
)


def check_unchanged(estimator, fitted_parameters):
    """Raise if a parameter that the fitted model depends on has another value now."""
    for name, fitted in fitted_parameters.items():
        current = getattr(estimator, name)
        if current is not fitted and not _equal(current, fitted):
            raise ValueError(
                f"{name}={current!r}, but this {type(estimator).__name__} was fitted with "
                f"{name}={fitted!r}: fit it again, or set the parameter back."
            )


def _equal(one, other):
    sequences = (tuple, list)
    if isinstance(one, sequences) and isinstance(other, sequences):
        return len(one) == len(other) and all(map(_equal, one, other))
    if any(hasattr(each, "__array__") for each in (one, other)):  # tensors and tables, too
        return np.array_equal(as_array(one, "one"), as_array(other, "other"))
    return type(one) not in sequences and type(other) not in sequences and one == other


def check_n_features(n_features, backbone, layers, n_channels):
    """Turn the `n_features` parameter into a number."""
    if n_features == "auto":
        n_features = backbone.n_features
        return n_channels if n_features is None else min(n_features, n_channels)
    if n_features is None:
        return n_channels
    if n_features > n_channels:
        raise ValueError(
            f"n_features={n_features} is more than the {n_channels} features that "
            f"{', '.join(layers)} of {backbone.name} have: make it smaller, add layers, or use "
            "None for all."
        )
    return int(n_features)


def check_input_size(whole, size, crop_size, backbone, layers):
    """See that the network takes images of this size, and its coarsest layer has a cell at least.

    `whole` and `size` are those of the image and its crop; no image has been read yet.
    """
    stride = backbone.layers[layers[-1]].stride
    if min(size) < stride:
        raise ValueError(
            f"Images of {size[0]} x {size[1]} pixels (image_size after crop_size) are smaller than "
            f"the stride of {layers[-1]} of {backbone.name}, {stride}: make image_size larger, or "
            "leave that layer out."
        )
    near = backbone.sizes_near(size, layers)
    if size not in near:
        name = "image_size" if crop_size is None else "crop_size"
        if crop_size is not None:
            near = [n for n in near if n[0] <= whole[0] and n[1] <= whole[1]] or near
        value, *others = (n[0] if n[0] == n[1] else n for n in (size, *near))
        choices = " or ".join(map(str, others))
        raise ValueError(
            f"{name}={value!r}: {backbone.name} cannot take images of {size[0]} x {size[1]} "
            f"pixels. Use {name}={choices}, the nearest that it takes."
        )


def check_tile_size(tile_size, size, backbone, layers):
    """The parameter `tile_size` as (height, width), each at most the input's."""
    tile = tuple(map(min, pair_of(tile_size, "tile_size"), size))
    step = backbone.layers[layers[-1]].stride
    for name, sides in (("image_size (after crop_size)", size), ("tile_size", tile)):
        if any(side % step for side in sides):
            near = tuple(max(2 * step, round(side / step) * step) for side in sides)
            raise ValueError(
                f"{name} is {sides[0]} x {sides[1]}: with tile_size, both sides must be multiples "
                f"of {step}, the stride of {layers[-1]} of {backbone.name}, as {near}."
            )
    if min(tile) < 2 * step and tile != size:
        raise ValueError(
            f"tile_size={tile_size!r} is less than {2 * step}, twice the stride of {layers[-1]} of "
            f"{backbone.name}: make it larger. 256 to 512 are usual."
        )
    near = backbone.sizes_near(tile, layers)
    if tile not in near:
        raise ValueError(
            f"tile_size={tile_size!r}: {backbone.name} cannot take images of {tile[0]} x {tile[1]} "
            f"pixels. Use {' or '.join(map(str, near))}, the nearest that it takes."
        )
    return tile
