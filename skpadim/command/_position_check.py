"""Where `skpadim doctor` finds the parts of good images: a fact, and a finding if far apart."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

_N_LOOKED_AT, _SIDE = 32, 256  # images; pixels of their shorter side
# Pixels and degrees that the middle 80 % of the parts lie apart. Beyond the first, alignment finds
# more defects of generated parts with fine structure; beyond the second of any, often most of them.
_SOME = pd.Series({"dy": 2, "dx": 2, "angle": 1})
_MUCH = 5 * _SOME


def look_at_positions(paths: Sequence[Path], size: tuple[int, int], folder: Path | str):
    """Facts and findings; most of the images have this height and width."""
    from skpadim.alignment._image_aligner import ImageAligner

    sample = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, _N_LOOKED_AT).astype(int))]
    image_size = tuple(max(1, round(side * _SIDE / min(size))) for side in size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = ImageAligner("rigid", image_size=image_size).fit(sample).alignment_
    except ValueError as error:  # a texture, say
        return {"motion": str(error)}, {}
    table = table.loc[table["aligned"], [*_SOME.index]]
    full, middle = table.max() - table.min(), table.quantile(0.9) - table.quantile(0.1)
    words = f"parts lie up to {max(full['dy'], full['dx']):.0f} pixels apart"
    if full["angle"] >= 0.5:
        words += f" and are turned by up to {full['angle']:.0f}°"
    words += f", of images of {image_size[1]} x {image_size[0]}"
    if (middle <= _SOME).all():
        return {"motion": words}, {}
    motion = "rigid" if middle["angle"] > _SOME["angle"] else "translation"
    if motion == "rigid" and not 1 / 1.02 < size[0] / size[1] < 1.02:
        motion += " --keep-aspect-ratio"
    if (middle <= _MUCH).all():
        return {"motion": f"{words}: with --align {motion} more defects may be found"}, {}
    what = f"{words}, and a model compares each place with the same place."
    return {}, {what: f"skpadim fit {folder} --align {motion} -o MODEL"}
