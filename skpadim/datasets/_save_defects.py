"""Generated parts as a folder of files, laid out as MVTec AD is."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from skpadim._files import folder_written_whole
from skpadim.datasets._generated import make_defects


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


def _write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype("uint8")).save(path)
