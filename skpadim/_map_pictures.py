"""Anomaly maps as files: values, and pictures to look at, drawn with Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from skpadim._files import written_whole

# Anchors of a colour scale whose lightness rises evenly from black to pale yellow.
_COLOURS = np.array(
    [(0, 0, 4), (50, 10, 94), (120, 28, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26),
     (252, 255, 164)]
)  # fmt: skip


def colour_map(anomaly_map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour an anomaly map, `low` black and `high` pale yellow.

    Parameters
    ----------
    anomaly_map : ndarray of shape (height, width)
    low, high : float
        Ends of the scale, in the map's units; values beyond them take the end's colour.

    Returns
    -------
    picture : ndarray of shape (height, width, 3), uint8
    """
    position = np.clip((anomaly_map - low) / max(high - low, 1e-12), 0, 1) * (len(_COLOURS) - 1)
    anchors = np.arange(len(_COLOURS))
    channels = [np.interp(position, anchors, _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def write_map(target: Path, anomaly_map: np.ndarray, image: np.ndarray, high: float) -> None:
    """Write a map twice, whole or not at all: values as .tiff, colours beside the image as .png.

    Parameters
    ----------
    target : Path
        Name without these suffixes; its folder is made.
    anomaly_map : ndarray of shape (height, width), float32
    image : ndarray of shape (height, width, 3), uint8
    high : float
        End of the colour scale, which begins at 0.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    coloured = np.hstack([image, colour_map(anomaly_map, 0, high)])
    for pixels, suffix in ((anomaly_map, "tiff"), (coloured, "png")):
        # The suffix comes after that of the image: a.png and a.jpg must not overwrite each other.
        with written_whole(target.with_name(f"{target.name}.{suffix}"), durable=False) as part:
            Image.fromarray(pixels).save(part, format=suffix)


def side_by_side(rows: list[list[np.ndarray]], titles: list[str], labels: list[str]) -> Image.Image:
    """Pictures in a grid, with a title over each column and a label below each row.

    Parameters
    ----------
    rows : list of lists of ndarray of shape (height, width, 3), uint8
        All of one size.
    titles : list of str
        One a column.
    labels : list of str
        One a row.

    Returns
    -------
    picture : PIL.Image.Image
    """
    height, width = rows[0][0].shape[:2]
    gap, line = 8, 18
    sheet = Image.new(
        "RGB",
        (len(titles) * (width + gap) + gap, line + len(rows) * (height + line + gap) + gap),
        "white",
    )
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((gap + column * (width + gap), 4), title, fill="black")
    for row, (pictures, label) in enumerate(zip(rows, labels, strict=True)):
        top = line + row * (height + line + gap)
        for column, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (gap + column * (width + gap), top))
        draw.text((gap, top + height + 2), label, fill="black")
    return sheet
