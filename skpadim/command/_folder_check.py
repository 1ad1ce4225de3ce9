"""What `skpadim doctor` finds in a folder of images: facts, and findings, as its other looks do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from skpadim.calibration._conformal import samples_needed
from skpadim.command._model import n_learned
from skpadim.command._position_check import look_at_positions
from skpadim.files._csv import write_csv
from skpadim.files._files import written_whole
from skpadim.images._batches import read_ahead
from skpadim.images._deep import sample_bits
from skpadim.images._files import open_image, upright_size
from skpadim.images._read import read_image, to_float

_SIDE = 16  # of the thumbnails that are compared
# Of the generated parts no two are as alike, and of one with a shift, noise and another light many.
_ALIKE = 0.95
_AT_A_TIME = 512
_IMAGE_SIZE = 256  # of a fit, unless asked for otherwise
# Images made so many times smaller are told. Dark dots in generated parts are found if they
# are so many pixels wide in what the network sees, at least, and hardly ever if they are smaller.
_SHRUNK, _SEEN = 6, 3


class Look(NamedTuple):
    """What is known of an image file."""

    problem: str | None
    size: tuple[int, int] = (0, 0)
    has_alpha: bool = False
    bits: int = 8
    brightest: float = 1.0
    thumbnail: np.ndarray | None = None


def look_at_folder(given, folder: Path, options, detector):
    """The readable images of a folder, how many of them a model knows, facts, and findings.

    The detector is None for a fit.
    """
    batches = read_ahead(lambda index: _look_at(given.paths[index]), len(given.paths), 64)
    looks = [look for batch in batches for look in batch]
    bad = [path for path, look in zip(given.paths, looks, strict=True) if look.problem]
    paths = [path for path, look in zip(given.paths, looks, strict=True) if not look.problem]
    looks = [look for look in looks if not look.problem]
    findings = {}
    if bad:
        what = f"{len(bad)} of {len(given.paths)} images cannot be read: {_some(bad)}."
        findings[what] = "take them out, or leave them out with --on-error skip"
    if not looks:
        return paths, 0, {}, findings
    n_known = 0 if detector is None else n_learned(detector, paths)
    sizes = Counter(look.size for look in looks)
    facts = {"images": f"{len(looks)}, " + _sizes_in_words(sizes)}
    findings |= _of_pixels(paths, looks)
    groups = near_copies(np.array([look.thumbnail for look in looks]))
    n_parts = len(set(groups))
    if n_parts < len(looks):
        facts["images"] = f"{len(looks)} images of {n_parts} parts, {_sizes_in_words(sizes)}"
    copies = _of_copies(paths, groups, folder, options.write_groups)
    is_learned_from = detector is None or n_known > len(paths) / 2
    if is_learned_from and getattr(detector, "calibration_groups_", None) is None:  # else it knows
        findings |= copies
    if detector is None:
        findings |= _of_number(n_parts, folder, options.contamination)
    common = sizes.most_common(1)[0][0]
    findings |= _of_shrinking(common, detector)
    ratios = [height / width for height, width in sizes]
    are_alike = max(ratios) <= 1.02 * min(ratios)  # or a turned part has another shape
    if are_alike and len(paths) >= 3 and (detector is None or detector.aligner_ is None):
        more, found = look_at_positions(paths, common, folder if is_learned_from else "FOLDER")
        facts, findings = facts | more, findings | found
    return paths, n_known, facts, findings


def _look_at(path):
    try:
        with open_image(path) as image:
            bits = sample_bits(image)  # before the size, for which some images are read
            size = upright_size(image)
            has_alpha = "A" in image.getbands() or "transparency" in image.info
        pixels = to_float(read_image(path))
        grey = Image.fromarray(pixels.mean(0).numpy())
        thumbnail = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX)).ravel()
        return Look(None, size, has_alpha, bits, float(pixels.max()), thumbnail)
    except (OSError, TypeError, ValueError) as error:
        return Look(str(error))


def near_copies(thumbnails: np.ndarray) -> np.ndarray:
    """Group of each image, from thumbnails (n_images, n_pixels); copies of each other share one.

    What all images have in common is taken away first, since good parts look alike: compared is
    how each differs from the mean, whatever the light.
    """
    rows = thumbnails - thumbnails.mean(1, keepdims=True)
    rows /= np.maximum(rows.std(1, keepdims=True), 1e-6)
    rows -= rows.mean(0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    pairs = []
    for start in range(0, len(rows), _AT_A_TIME):
        first, second = np.nonzero(rows[start : start + _AT_A_TIME] @ rows.T > _ALIKE)
        pairs.append(np.stack([first + start, second]))
    first, second = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(rows), len(rows)))
    return connected_components(graph, directed=False)[1]


def _of_pixels(paths, looks):
    """Findings about sizes and kinds of pixels."""
    findings = {}
    ratios = [look.size[0] / look.size[1] for look in looks]
    if max(ratios) > 1.02 * min(ratios):
        low, high = np.argmin(ratios), np.argmax(ratios)
        what = (
            "the images differ in their proportions, and each is resized to one size, whatever "
            f"its own, so parts are stretched: {paths[low].name} is {_pixels(looks[low].size)}, "
            f"{paths[high].name} {_pixels(looks[high].size)}."
        )
        findings[what] = (
            "crop them alike, if they show parts of one shape; of a texture it does no harm"
        )
    with_alpha = [path for path, look in zip(paths, looks, strict=True) if look.has_alpha]
    if with_alpha:
        what = (
            f"{len(with_alpha)} of {len(looks)} images have transparency, which is dropped: what "
            f"is under it is looked at ({_some(with_alpha)})."
        )
        findings[what] = "save them without alpha: mogrify -background white -alpha remove FILES"
    deep = [path for path, look in zip(paths, looks, strict=True) if look.bits > 8]
    if deep and len(deep) < len(looks):
        what = (
            f"{len(deep)} of {len(looks)} images have more than 8 bits, and the others have not "
            f"({_some(deep)})."
        )
        findings[what] = "save all alike"
    if deep and (brightest := max(look.brightest for look in looks)) < 0.25:
        what = (
            f"the images of more than 8 bits are nearly black: their brightest pixel has "
            f"{100 * brightest:.0f} % of what their files can hold, as of a camera of 12 bits."
        )
        findings[what] = (
            f"scale their values by {2 ** math.floor(-math.log2(max(brightest, 1e-6)))}"
        )
    return findings


def _of_shrinking(size, detector):
    """The finding that small defects are lost where images are made smaller."""
    if detector is not None and detector.tile_size is not None:
        return {}
    seen = detector.embedder_.image_size_ if detector else (_IMAGE_SIZE, _IMAGE_SIZE)
    shrunk = max(side / shown for side, shown in zip(size, seen, strict=True))
    if shrunk < _SHRUNK:
        return {}
    what = (
        f"images of {_pixels(size)} are shrunk {shrunk:.0f} times, to {_pixels(seen)}: defects of "
        f"less than {_SEEN * shrunk:.0f} pixels are hardly seen."
    )
    return {what: "fit with a larger --image-size, or in tiles (tile_size), if there are such"}


def _of_copies(paths, groups, folder, output):
    """The finding that images show the same part, if they do; their groups as a file."""
    counts = Counter(groups)
    if output is not None:
        with written_whole(output) as part:
            write_csv(pd.DataFrame({"path": list(map(str, paths)), "group": groups}), part)
    together = [group for group, count in counts.items() if count > 1]
    if not together:
        return {}
    n_images = sum(counts[group] for group in together)
    first = [path.name for path, group in zip(paths, groups, strict=True) if group == together[0]]
    file = output or "groups.csv"
    write = "" if output else f"skpadim doctor {folder} --write-groups {file}, look at it, then "
    what = (
        f"{n_images} of {len(paths)} images are nearly copies of others, as if they showed the "
        f"same parts, {len(counts)} in all ({_some(first)}, for one): each vouches for the others, "
        "the threshold will flag more new parts than asked for, and if some "
        "are trained on and others tested, these look better than new ones."
    )
    return {what: f"{write}skpadim fit {folder} --groups {file} -o MODEL"}


def _of_number(n, folder, contamination):
    needed = samples_needed(contamination)
    if n >= needed:
        return {}
    what = (
        f"{n} parts are too few for a threshold that flags {100 * contamination:g} % of new good "
        f"ones: that takes {needed}."
    )
    larger = f"{math.ceil(1000 / (n + 1)) / 1000:g}"
    return {what: f"take more images, or skpadim fit {folder} --contamination {larger} -o MODEL"}


def _sizes_in_words(sizes):
    (common, count), *others = sizes.most_common()
    which = f"{len(sizes)} sizes, {count} of them" if others else "all"
    return f"{which} {_pixels(common)}" + " (width x height)" * (common[0] != common[1])


def _pixels(size):
    return f"{size[1]} x {size[0]}"


def _some(paths: Sequence):
    return ", ".join(map(str, paths[:3])) + ", ..." * (len(paths) > 3)
