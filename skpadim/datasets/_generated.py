"""Generated photographs of parts and textures, some with defects, and the masks of these."""

from __future__ import annotations

import os
from numbers import Integral, Real
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter
from sklearn.utils import Bunch, check_random_state

from skpadim.datasets._defects import PARTS, draw
from skpadim.datasets._parts import Canvas
from skpadim.files._files import folder_written_whole


def make_defects(
    n_good=60,
    n_defective=30,
    *,
    part="disc",
    defects="all",
    difficulty=0.5,
    n_views=1,
    image_size=256,
    random_state=None,
) -> Bunch:
    """Generate photographs of parts or textures, good and defective, with masks of the defects.

    Each part is an independent draw: finish, grain and colour vary, and so do light, position,
    angle and focus of each photograph. Image i depends on `random_state` and i alone, not on how
    many are asked for; the good ones are the same at any difficulty.

    ============  =======================================  ==================================
    `part`        what it is                               `defects`
    ============  =======================================  ==================================
    "disc"        washer of brushed metal on a table       scratch, spot, missing, dent
    "bottle"      glass bottle from above                  missing, crack, contamination
    "transistor"  three legs on a perforated board         bent, cut, misplaced, scratch
    "capsule"     gelatine capsule with a print            print, crack, dent, spot
    "fabric"      twill of two yarns                       misweave, hole, fibre, spot
    "wood"        board with rings along it                scratch, hole, crack, spot
    "leather"     pebbled hide                             scratch, hole, colour, dent
    "grid"        mesh of woven wires                      bent, broken, fibre, contamination
    ============  =======================================  ==================================

    Parameters
    ----------
    n_good, n_defective : int, default=60, 30
        Number of parts without and with a defect.
    part : str, default="disc"
        One of the table.
    defects : "all", str or sequence of str, default="all"
        Kinds of defect; they take turns. A part has one.
    difficulty : float, default=0.5
        0 makes defects plain to see, 1 barely visible: scales their contrast and size. The same
        `random_state` gives the same parts with defects at the same places.
    n_views : int, default=1
        Photographs of each part, with other light, position and noise.
    image_size : int, default=256
        Height and width in pixels, 32 or more.
    random_state : int, RandomState or None, default=None
        With an int, the images are repeatable.

    Returns
    -------
    parts : Bunch
        With n = (n_good + n_defective) * n_views images, the good ones first and the views of a
        part in a row: ``data``: ndarray of shape (n, image_size, image_size, 3), uint8; ``target``:
        +1 good, -1 defective; ``masks``: bool, (n, image_size, image_size), True where defective;
        ``kinds``: "good" or the kind of defect; ``groups``: int, the number of the part.

    Raises
    ------
    ValueError
        If a parameter is out of range, or a part has no such defect.

    Examples
    --------
    >>> from skpadim.datasets import make_defects
    >>> parts = make_defects(4, 3, image_size=64, random_state=0)
    >>> parts.data.shape, parts.target.tolist()
    ((7, 64, 64, 3), [1, 1, 1, 1, -1, -1, -1])
    >>> parts.kinds.tolist()[4:]
    ['scratch', 'spot', 'missing']
    >>> boards = make_defects(1, 1, part="wood", defects="crack", n_views=2, random_state=0)
    >>> boards.groups.tolist(), boards.kinds.tolist()
    ([0, 0, 1, 1], ['good', 'good', 'crack', 'crack'])
    """
    kinds = _check_defects(part, defects)
    for name, value, least in (
        ("n_good", n_good, 0),
        ("n_defective", n_defective, 0),
        ("n_views", n_views, 1),
        ("image_size", image_size, 32),
    ):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name}={value!r} must be an integer of {least} or more.")
    if not isinstance(difficulty, Real) or not 0 <= difficulty <= 1:
        raise ValueError(
            f"difficulty={difficulty!r} must be a number from 0 (plain to see) to 1 (barely "
            "visible)."
        )
    kinds = ["good"] * n_good + [kinds[i % len(kinds)] for i in range(n_defective)]
    n_images, canvas = len(kinds) * n_views, Canvas(image_size)
    data = np.empty((n_images, image_size, image_size, 3), dtype=np.uint8)
    masks = np.zeros((n_images, image_size, image_size), dtype=bool)
    seeds = check_random_state(random_state).randint(2**31, size=len(kinds))
    for index, kind in enumerate(kinds):
        # Seeds of its own for the part, its defect and each view: none depends on the others.
        of_part, of_defect, *of_views = np.random.SeedSequence(int(seeds[index])).spawn(2 + n_views)
        drawn = draw(part, kind, canvas, (of_part, of_defect), difficulty)
        for view, seed in enumerate(of_views, start=index * n_views):
            data[view], masks[view] = _photograph(*drawn, np.random.default_rng(seed))
    kinds = np.repeat(np.array(kinds), n_views)
    return Bunch(
        data=data,
        target=np.where(kinds == "good", 1, -1),
        masks=masks,
        kinds=kinds,
        groups=np.repeat(np.arange(len(seeds)), n_views),
    )


def save_defects(
    root, category=None, *, n_train=60, n_good=30, n_defective=30, part="disc", **parameters
) -> Path:
    """Generate parts and write them as PNG files in the layout of MVTec AD.

    ``train/good``, ``test/good`` and ``test/<kind>`` hold the images, ``ground_truth/<kind>`` a
    mask of each defective one, ``<name>_mask.png``, 255 where defective.

    Parameters
    ----------
    root : path
        Folder of data sets; made where there is none.
    category : str, default=None
        Name of the new folder in it; `part` where it is not given.
    n_train, n_good, n_defective : int, default=60, 30, 30
        Number of good parts to train on, and of good and defective ones to test on.
    part, **parameters
        As of :func:`make_defects`.

    Returns
    -------
    folder : Path
        ``root/category``. It appears when it is complete.

    Raises
    ------
    FileExistsError
        If there is such a folder or file: nothing is overwritten.
    ValueError
        As :func:`make_defects`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from skpadim.datasets import save_defects
    >>> with TemporaryDirectory() as root:
    ...     folder = save_defects(
    ...         root, part="wood", n_train=2, n_good=1, n_defective=1, image_size=64
    ...     )
    ...     sorted(path.relative_to(root).as_posix() for path in folder.rglob("*.png"))
    ['wood/ground_truth/scratch/000_mask.png', 'wood/test/good/000.png',
    'wood/test/scratch/000.png', 'wood/train/good/000.png', 'wood/train/good/001.png']
    """
    folder = Path(root) / (part if category is None else category)
    if os.path.lexists(folder):
        raise FileExistsError(
            f"{folder} exists and is not overwritten: delete it or give another category."
        )
    with folder_written_whole(folder) as unfinished:
        # One draw, so that no part is both in the training and the test set.
        parts = make_defects(n_train + n_good, n_defective, part=part, **parameters)
        counts = {}
        for image, mask, kind, group in zip(
            parts.data, parts.masks, parts.kinds, parts.groups, strict=True
        ):
            place = "train/good" if group < n_train else f"test/{kind}"
            name = f"{counts.setdefault(place, 0):03}"
            counts[place] += 1
            _write(unfinished / place / f"{name}.png", image)
            if kind != "good":
                _write(unfinished / "ground_truth" / kind / f"{name}_mask.png", mask * 255)
    return folder


def _check_defects(part, defects):
    """The kinds of defect asked for."""
    if not isinstance(part, str) or part not in PARTS:
        raise ValueError(f"part={part!r} must be one of {', '.join(map(repr, PARTS))}.")
    if isinstance(defects, str):
        defects = PARTS[part] if defects == "all" else (defects,)
    kinds = list(defects)
    if not kinds or any(kind not in PARTS[part] for kind in kinds):
        raise ValueError(
            f"defects={kinds!r}: a part of kind {part!r} can have "
            f"{', '.join(map(repr, PARTS[part]))}; give one, several or 'all'."
        )
    return kinds


def _photograph(pixels, mask, rng):
    """Photograph a part, in float colours, and its mask: pose, light, focus and noise are drawn."""
    size = len(mask)
    angle, zoom = np.deg2rad(rng.normal(scale=1.5)), rng.uniform(0.985, 1.015)
    shift = rng.uniform(-0.015, 0.015, size=2) * size
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    middle = np.full(2, (size - 1) / 2)
    pose = {"matrix": turn, "offset": middle - turn @ (middle + shift), "order": 1}
    slope, focus = rng.uniform(-0.12, 0.12, size=2), rng.uniform(0.3, 0.5) * size / 256
    gain = rng.uniform(0.94, 1.06) * rng.uniform(0.985, 1.015, size=3)
    axis = (np.arange(size) / size - 0.5).astype(np.float32)
    light = 1 + slope[0] * axis[:, None] + slope[1] * axis
    photo = np.empty((size, size, 3), dtype=np.float32)
    for channel in range(3):
        moved = affine_transform(pixels[..., channel], mode="mirror", output=np.float32, **pose)
        photo[..., channel] = gaussian_filter(moved, focus) * light * gain[channel]
    # A sensor's noise: grows with the light, and differs a little between the colours.
    photo += (0.004 + 0.012 * np.sqrt(np.maximum(photo, 0))) * rng.standard_normal(
        photo.shape, dtype=np.float32
    )
    if mask.any():
        mask = affine_transform(mask.astype(np.float32), mode="constant", **pose) > 0.4
    return (255 * np.clip(photo, 0, 1)).round().astype(np.uint8), mask


def _write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype("uint8")).save(path)
