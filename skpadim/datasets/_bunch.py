"""What every loader returns: samples as a Bunch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from skpadim.datasets._samples import GOOD, UNKNOWN, Sample


def check_subset(subset, splits: Sequence[str], only_by_name: Sequence[str] = ()) -> list[str]:
    """Splits that a subset stands for.

    Parameters
    ----------
    subset : str
        Name of a split, or "all".
    splits, only_by_name : sequence of str
        Splits of the data set: those of "all", and further ones.
    """
    if subset == "all":
        return list(splits)
    accepted = (*splits, *only_by_name)
    if subset not in accepted:
        raise ValueError(f"subset={subset!r} must be {', '.join(map(repr, accepted))} or 'all'.")
    return [subset]


def make_bunch(
    samples: Sequence[Sample],
    *,
    return_X_y: bool,
    as_frame: bool,
    read: Callable[[str], object] = lambda path: path,
    **about,
) -> Bunch | tuple:
    """Samples as a Bunch, or as images and target.

    Parameters
    ----------
    samples : sequence of Sample
    return_X_y, as_frame : bool
        As the loaders'.
    read : callable
        What the path of a mask becomes in ``masks``; the path itself by default.
    **about
        Further entries of the Bunch.
    """
    # Of objects in each version of pandas: paths stay plain strings, and None stays None.
    frame = pd.DataFrame(list(samples), columns=list(Sample._fields), dtype=object)
    target = np.select([frame["kind"] == GOOD, frame["kind"] == UNKNOWN], [1, 0], -1)
    frame.insert(3, "target", target)
    # Filled one by one: of a whole list NumPy would make an array of the masks' pixels.
    masks = np.empty(len(frame), dtype=object)
    for index, path in enumerate(frame["mask"]):
        masks[index] = None if path is None else read(path)
    data = frame[["path"]] if as_frame else frame["path"]
    target = frame["target"] if as_frame else target
    if return_X_y:
        return data, target
    kinds = frame["kind"] if as_frame else np.array(frame["kind"], dtype=str)
    masks = pd.Series(masks, name="mask", dtype=object)
    return Bunch(data=data, target=target, masks=masks, kinds=kinds, frame=frame, **about)
