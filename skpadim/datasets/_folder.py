"""Images of one's own, in folders and files of any names."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path

from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from skpadim.datasets._layout import (
    GOOD,
    Sample,
    assign_masks,
    check_subset,
    is_image_name,
    make_bunch,
    scan,
    stem_of,
)
from skpadim.images._files import IMAGE_SUFFIXES, list_images
from skpadim.images._masks import MaskFiles

_BRIGHT = 127


def load_folder(
    good,
    defective=None,
    *,
    masks=None,
    good_test=None,
    root=None,
    test_size=0.2,
    random_state=0,
    mask_threshold=_BRIGHT,
    subset="all",
    return_X_y=False,
    as_frame=False,
) -> Bunch | tuple:
    """Load images of one's own: good ones, and optionally defective ones with masks.

    Only names are read, not the images. Each of `good`, `defective`, `masks` and `good_test` is
    the path of a folder (its subfolders are read too), of an image, a glob pattern as
    ``"shots/*_ok.png"`` or ``"shots/**/*.bmp"``, or a list of such. Hidden files and those that
    are no images are passed over.

    Parameters
    ----------
    good : path, pattern, or list of these
        Good images, to train on.
    defective : path, pattern, or list of these, default=None
        Defective images, to test on. Their kind is the name of the folder that they lie in.
    masks : path, pattern, or list of these, default=None
        A mask for each defective image, with the image's name or that with "_mask" behind,
        whatever the suffix; of images ``face`` and ``face_mask``, ``face_mask`` is the mask of
        ``face``. Where several folders have the same names, the masks must lie in folders named
        as the images' are.
    good_test : path, pattern, or list of these, default=None
        Good images to test on. Without them a share of `good` is held out.
    root : path, default=None
        Folder that relative paths and patterns start from; the current folder by default.
    test_size : float, default=0.2
        Share of `good`, in [0, 1), that is held out for testing if there is no `good_test`.
    random_state : int, default=0
        Draws them. An int, so that loading "train" and "test" one after the other divides the
        images once and not twice.
    mask_threshold : int, default=127
        127 for masks that are black where normal, of whatever two values, see
        :func:`skpadim.metrics.evaluate`. Of masks with other values, such as indices of classes,
        those above this are defective: 0 for all but 0.
    subset : {"train", "test", "all"}, default="all"
        Split to load: "test" has the defective images and the good ones that are held out.
    return_X_y, as_frame : bool, default=False
        As for :func:`load_mvtec_ad`.

    Returns
    -------
    images : Bunch
        As from :func:`load_mvtec_ad`, without a category. ``masks`` are paths, or with another
        threshold than 127 objects that become arrays when they are used; None where there is no
        mask.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a path does not exist, or an image has no mask.
    ValueError
        If a pattern matches no images, an image is matched by two parameters, masks and defective
        images are not one to one, or a parameter is not what it should be.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from skpadim.datasets import load_folder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("1_ok", "2_ok", "3_ok", "4_ok", "5_ok", "1_scratched"):
    ...         Image.new("L", (8, 8)).save(Path(folder, f"{name}.png"))
    ...     parts = load_folder("*_ok.png", "*_scratched.png", root=folder)
    >>> parts.frame["split"].tolist()
    ['train', 'train', 'train', 'train', 'test', 'test']
    >>> parts.target
    array([ 1,  1,  1,  1,  1, -1])
    """
    splits = check_subset(subset, ("train", "test"))
    if not isinstance(mask_threshold, Integral) or mask_threshold < 0:
        raise ValueError(f"mask_threshold={mask_threshold!r} must be an int, 0 or more.")
    if masks is not None and defective is None:
        raise ValueError("masks are given and defective images are not: masks belong to these.")
    given = {"good": good, "good_test": good_test, "defective": defective, "masks": masks}
    found = {
        name: _find_images(name, patterns, root)
        for name, patterns in given.items()
        if patterns is not None or name == "good"
    }
    _check_disjoint(found)
    train, test = _split_good(found, test_size, random_state)
    samples = [Sample(path, "train", GOOD) for path in train]
    samples += [Sample(path, "test", GOOD) for path in test]
    images = found.get("defective", [])
    matched = _match(images, found["masks"]) if masks is not None else [None] * len(images)
    samples += [
        Sample(image, "test", _kind(image), mask)
        for image, mask in zip(images, matched, strict=True)
    ]
    samples = [sample for sample in samples if sample.split in splits]
    if not samples:
        raise ValueError(
            f"subset={subset!r} has no images: give `defective` or `good_test`, or a larger "
            "test_size."
        )
    return make_bunch(
        samples,
        return_X_y=return_X_y,
        as_frame=as_frame,
        read_mask=(
            str
            if mask_threshold == _BRIGHT
            else lambda path: MaskFiles((path,), int(mask_threshold))
        ),
        root=None if root is None else str(root),
        subset=subset,
        DESCR=_describe(samples),
    )


def _find_images(name, patterns, root) -> list[str]:
    """Images that a parameter stands for, sorted within each pattern, none twice."""
    if isinstance(patterns, (str, os.PathLike)):
        patterns = [patterns]
    if not isinstance(patterns, Sequence) or not patterns:
        raise TypeError(
            f"{name} must be a path, a pattern, or a list of these; found {patterns!r:.60}."
        )
    found: dict[str, None] = {}
    for pattern in patterns:
        if not isinstance(pattern, (str, os.PathLike)):
            raise TypeError(f"{name} has a {type(pattern).__name__} ({pattern!r:.60}), no path.")
        found.update(dict.fromkeys(_match_pattern(name, Path(root or "."), os.fspath(pattern))))
    return list(found)


def _match_pattern(name, root, pattern):
    """Images of one path or pattern."""
    path = root / pattern
    if path.is_dir():
        scan(path)  # tells what may not be read; below it that is passed over
        return [str(image) for image in list_images(path)]
    if path.is_file():
        return [str(path)]
    if not glob.has_magic(pattern):
        raise FileNotFoundError(
            f"{name}: {path} does not exist (current folder: {Path.cwd()}). A folder, an image or "
            "a pattern such as 'good/*.png' is needed."
        )
    # The root is no part of the pattern: its own name may have brackets.
    matches = sorted(root / match for match in glob.glob(pattern, root_dir=root, recursive=True))
    images = [str(path) for path in matches if is_image_name(path.name) and path.is_file()]
    if not images:
        others = f" It matches {len(matches)} others, as {matches[0]}." if matches else ""
        raise ValueError(
            f"{name}: the pattern {path} matches no images, files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}.{others}"
        )
    return images


def _check_disjoint(found):
    """Check that no image is matched by two parameters."""
    owners: dict[str, str] = {}
    for name, paths in found.items():
        real = [os.path.realpath(path) for path in paths]
        shared = [index for index, path in enumerate(real) if path in owners]
        if shared:
            first = paths[shared[0]]
            raise ValueError(
                f"{first} is matched by both {owners[real[shared[0]]]} and {name}, and so are "
                f"{len(shared) - 1} others: folders are read with their subfolders; use patterns, "
                "such as 'shots/*.png', that match each image once."
            )
        owners.update(dict.fromkeys(real, name))


def _split_good(found, test_size, random_state):
    """Good images to train on and to test on."""
    if not isinstance(test_size, Real) or isinstance(test_size, bool) or not 0 <= test_size < 1:
        raise ValueError(f"test_size={test_size!r} must be a share in [0, 1).")
    if not isinstance(random_state, Integral):
        raise ValueError(
            f"random_state={random_state!r} must be an int: else two calls would divide the "
            "images in two ways, and training images would be tested on."
        )
    good = found["good"]
    if "good_test" in found:
        return good, found["good_test"]
    if test_size == 0:
        return good, []
    if len(good) < 2:
        raise ValueError(
            f"good has one image, {good[0]}; with test_size={test_size} two are needed. Give "
            "more, or test_size=0."
        )
    _, test = train_test_split(good, test_size=test_size, random_state=random_state)
    held_out = set(test)
    return [path for path in good if path not in held_out], [p for p in good if p in held_out]


def _match(images, masks):
    """A mask for each image by name; where names repeat, by the folders' names too."""
    counts = f"there are {len(images)} defective images and {len(masks)} masks"
    owners: dict[str, str] = {}
    for image, candidates in zip(images, assign_masks(images, masks), strict=True):
        if not candidates:
            raise FileNotFoundError(
                f"{image} has no mask: none of `masks` is named {stem_of(image)}_mask or "
                f"{stem_of(image)}, in a folder of the same name where names repeat ({counts})."
            )
        if len(candidates) > 1 or candidates[0] in owners:
            other = candidates[1] if len(candidates) > 1 else owners[candidates[0]]
            raise ValueError(
                f"{image} and {candidates[0]} belong together by their names, and so does {other}: "
                f"each image must have one mask of its own ({counts})."
            )
        owners[candidates[0]] = image
    spare = [mask for mask in masks if mask not in owners]
    if spare:
        raise ValueError(
            f"{len(spare)} of `masks` belong to no defective image, the first {spare[0]} "
            f"({counts})."
        )
    return list(owners)


def _kind(image):
    name = Path(image).resolve().parent.name
    return name if name and name != GOOD else "defective"


def _describe(samples):
    counts = Counter((sample.split, sample.kind) for sample in samples)
    lines = [f"  {split}, {kind}: {count}" for (split, kind), count in counts.items()]
    return "Images from folders of your own:\n" + "\n".join(lines)
