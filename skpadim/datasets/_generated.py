"""Generated pictures of textured parts, some with defects, and the masks of these."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.utils import Bunch, check_random_state

DEFECT_KINDS = ("scratch", "spot", "missing")


def make_defects(n_good=60, n_defective=30, *, image_size=256, random_state=None) -> Bunch:
    """Generate photographs of a part, a round disc of brushed metal, with and without defects.

    No two parts are alike: brush strokes, lighting, position and rotation vary. The defects are
    scratches (thin lines across the strokes), spots (blurred stains), and missing pieces (chips
    off the rim).

    Parameters
    ----------
    n_good, n_defective : int, default=60, 30
        Number of images without and with a defect. Kinds of defect take turns.
    image_size : int, default=256
        Height and width in pixels.
    random_state : int, RandomState or None, default=None
        With an int, the images are repeatable.

    Returns
    -------
    parts : Bunch
        ``data``: ndarray of shape (n, image_size, image_size, 3), uint8, the good ones first;
        ``target``: +1 good, -1 defective; ``masks``: bool, (n, image_size, image_size), True where
        defective; ``kinds``: "good" or the kind of defect.

    Examples
    --------
    >>> from skpadim.datasets import make_defects
    >>> parts = make_defects(4, 3, image_size=64, random_state=0)
    >>> parts.data.shape, parts.target.tolist()
    ((7, 64, 64, 3), [1, 1, 1, 1, -1, -1, -1])
    >>> parts.kinds.tolist()[4:]
    ['scratch', 'spot', 'missing']
    """
    random_state = check_random_state(random_state)
    kinds = ["good"] * n_good + [DEFECT_KINDS[i % len(DEFECT_KINDS)] for i in range(n_defective)]
    data = np.empty((len(kinds), image_size, image_size, 3), dtype=np.uint8)
    masks = np.zeros((len(kinds), image_size, image_size), dtype=bool)
    for index, kind in enumerate(kinds):
        # A generator for each image: its picture does not depend on how many came before.
        rng = np.random.default_rng(random_state.randint(2**31))
        data[index], masks[index] = _draw_part(kind, image_size, rng)
    return Bunch(
        data=data,
        target=np.array([1 if kind == "good" else -1 for kind in kinds]),
        masks=masks,
        kinds=np.array(kinds),
    )


def _draw_part(kind, size, rng):
    """One part and the mask of its defect."""
    rows, columns = np.mgrid[0:size, 0:size] / size - 0.5
    centre = rng.uniform(-0.02, 0.02, size=2)
    y, x = rows - centre[0], columns - centre[1]
    radius = np.hypot(y, x)
    disc, bore = radius < 0.40, radius < 0.10
    metal = _brushed_metal(size, rng)
    mask = np.zeros((size, size), dtype=bool)
    if kind == "scratch":
        mask = _near_line(y, x, rng) & disc & ~bore
        metal = np.where(mask, metal + rng.choice([-1, 1]) * rng.uniform(0.16, 0.3), metal)
    elif kind == "spot":
        spot = _spot(y, x, rng)
        mask = (spot > 0.5) & disc & ~bore
        metal = metal * (1 - rng.uniform(0.25, 0.5) * spot)
    elif kind == "missing":
        angle = rng.uniform(0, 2 * np.pi)
        chip = np.hypot(y - 0.40 * np.sin(angle), x - 0.40 * np.cos(angle))
        mask = (chip < rng.uniform(0.04, 0.08)) & disc
        disc = disc & ~mask
    table = 0.12 + 0.02 * gaussian_filter(rng.normal(size=(size, size)), size / 64)
    light = 1 + rng.uniform(-0.15, 0.15) * rows + rng.uniform(-0.15, 0.15) * columns
    grey = np.where(disc & ~bore, metal * light * rng.uniform(0.92, 1.08), table)
    grey = gaussian_filter(grey, size / 400) + rng.normal(scale=0.008, size=(size, size))
    tint = np.array([1.0, 0.97, 0.92])
    pixels = np.clip(grey[..., None] * tint, 0, 1)
    return (255 * pixels).round().astype(np.uint8), mask


def _brushed_metal(size, rng):
    """Grey strokes along a direction that varies by a few degrees."""
    noise = gaussian_filter(rng.normal(size=(size, size)), (size / 200, size / 12), mode="wrap")
    angle = rng.normal(scale=np.deg2rad(4))
    rows, columns = np.mgrid[0:size, 0:size] - size / 2
    turned = map_coordinates(
        noise,
        [
            np.cos(angle) * rows - np.sin(angle) * columns + size / 2,
            np.sin(angle) * rows + np.cos(angle) * columns + size / 2,
        ],
        order=1,
        mode="grid-wrap",
    )
    return 0.6 + 0.08 * turned / turned.std()


def _near_line(y, x, rng):
    """Pixels of a slightly bent line that crosses the brush strokes."""
    angle = rng.uniform(np.deg2rad(30), np.deg2rad(150))
    along_centre, length = rng.uniform(0.16, 0.32), rng.uniform(0.15, 0.3)
    place = rng.uniform(0, 2 * np.pi)
    y, x = y - along_centre * np.sin(place), x - along_centre * np.cos(place)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle) + rng.uniform(-1, 1) * along**2
    return (np.abs(across) < rng.uniform(0.004, 0.008)) & (np.abs(along) < length / 2)


def _spot(y, x, rng):
    """A stain, 1 in its middle and 0 outside, elliptic and blurred at the rim."""
    place, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.16, 0.34)
    y, x = y - distance * np.sin(place), x - distance * np.cos(place)
    size, stretch = rng.uniform(0.02, 0.05), rng.uniform(0.7, 1.4)
    return 1 / (1 + np.exp((np.hypot(y * stretch, x / stretch) / size - 1) * 8))
