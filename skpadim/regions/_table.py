"""An anomaly map to a table of the regions above a threshold, and such a table image by image."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from skpadim.files._csv import infer_types
from skpadim.images._items import list_items
from skpadim.images._masks import image_size
from skpadim.metrics._regions import find_regions

_NEEDED = ("image", "label", "top", "left", "bottom", "right", "image_height", "image_width", "rle")


def regions_of_map(
    anomaly_map: np.ndarray,
    threshold: float,
    image: int | str = 0,
    p_values: Callable | None = None,
    min_area: float = 0,
) -> pd.DataFrame:
    """Connected regions (of 8 neighbours) above a threshold; pixels of NaN are in none.

    Of a map (height, width); the columns are those of :meth:`PadimDetector.anomalous_regions`.
    `p_values` makes p-values of scores, the peaks with the sign changed.
    """
    height, width = anomaly_map.shape
    regions = find_regions(np.ascontiguousarray(anomaly_map > threshold)[None])
    starts = np.cumsum(regions.areas) - regions.areas
    rows, columns = np.divmod(regions.positions, width)
    values = np.ascontiguousarray(anomaly_map).reshape(-1)[regions.positions]
    peaks = np.maximum.reduceat(values, starts)
    table = pd.DataFrame(
        {
            "image": pd.Series([image] * len(starts), dtype=object),
            "label": 0,
            "top": np.minimum.reduceat(rows, starts),
            "left": np.minimum.reduceat(columns, starts),
            "bottom": np.maximum.reduceat(rows, starts) + 1,
            "right": np.maximum.reduceat(columns, starts) + 1,
            "centroid_y": np.add.reduceat(rows, starts) / regions.areas,
            "centroid_x": np.add.reduceat(columns, starts) / regions.areas,
            "area": regions.areas,
            "peak": peaks,
            "mean": np.add.reduceat(values, starts, dtype=np.float64) / regions.areas,
            "p_value": np.nan if p_values is None else p_values(-peaks),
            "image_height": height,
            "image_width": width,
        }
    )
    places = np.split(columns * height + rows, starts[1:])[: len(starts)]
    table["rle"] = [_run_lengths(np.sort(of_region), height * width) for of_region in places]
    table = table[table["area"] >= min_area].reset_index(drop=True)
    table["label"] = np.arange(1, len(table) + 1)
    return infer_types(table)


def join_tables(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables of :func:`regions_of_map`; an empty one if there are none."""
    tables = [table for table in tables if len(table)]
    if not tables:
        return regions_of_map(np.zeros((1, 1), np.float32), np.inf)
    return pd.concat(tables, ignore_index=True)


def _run_lengths(places, n_pixels):
    """Run lengths of a mask as COCO has them, from its sorted places column by column."""
    # By turns the numbers of pixels outside and inside, the first of which may be 0.
    ends = np.flatnonzero(np.diff(places) > 1)
    starts, stops = places[np.r_[0, ends + 1]], places[np.r_[ends, -1]] + 1
    lengths = np.diff(np.stack([starts, stops], axis=1).ravel(), prepend=0, append=n_pixels)
    return " ".join(map(str, lengths[:-1] if lengths[-1] == 0 else lengths))


def by_image(
    regions: pd.DataFrame, images: Sequence | None, root: str | os.PathLike | None
) -> Iterator[tuple[str, tuple[int, int] | None, pd.DataFrame]]:
    """Yield file name, size and regions of each image: of all images, if they are given.

    Names are made relative to `root`, if there is one, and have slashes. The size, height and
    width, is None where an image has no region and cannot be read.
    """
    missing = [name for name in _NEEDED if name not in regions]
    if missing:
        raise ValueError(
            f"regions has no column {missing[0]!r}: give the table of anomalous_regions, or one "
            "read from the file of 'skpadim score --regions'."
        )
    if images is not None:
        images = list_items(images)
        if not all(isinstance(image, (str, os.PathLike)) for image in images):
            raise ValueError("images has pixels: give the names of their files instead, in a list.")
    tables = dict(iter(regions.groupby("image", sort=False)))
    by_index = all(isinstance(image, Integral) for image in tables)
    if images is None:
        if tables and by_index:
            raise ValueError(
                "regions has the indices of images, not their paths: give the names of their "
                "files, images=[...], one an index."
            )
        names = {image: image for image in tables}
    elif by_index:
        names = dict(enumerate(map(os.fspath, images)))
    else:
        names = {os.fspath(image): os.fspath(image) for image in images}
    unknown = [image for image in tables if image not in names]
    if unknown:
        raise ValueError(f"regions has the image {unknown[0]!r}, which images does not have.")
    for image, name in names.items():
        table = tables.get(image, regions[:0])
        size = image_size(name)
        if len(table):
            size = int(table["image_height"].iloc[0]), int(table["image_width"].iloc[0])
        name = name if root is None else os.path.relpath(name, root)
        yield Path(name).as_posix(), size, table
