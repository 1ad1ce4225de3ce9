"""Pictures side by side on one sheet, with texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

_GAP, _LINE = 8, 16


def sheet_of(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[Sequence[str]],
    titles: Sequence[str] = (),
) -> Image.Image:
    """Pictures (height, width, 3) in rows, a caption below each, and a title over each column.

    Each is in the middle of a cell as large as the largest; the last row may be shorter.
    """
    height = max(picture.shape[0] for row in rows for picture in row)
    width = max(picture.shape[1] for row in rows for picture in row)
    n_lines = max(len(caption.splitlines()) for row in captions for caption in row)
    across, down = width + _GAP, height + n_lines * _LINE + _GAP
    top = _GAP + _LINE * bool(titles)
    n_columns = max(map(len, rows))
    sheet = Image.new("RGB", (n_columns * across + _GAP, top + len(rows) * down), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((_GAP + column * across, 4), title, fill="black")
    for row, (pictures, texts) in enumerate(zip(rows, captions, strict=True)):
        for column, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
            left, above = _GAP + column * across, top + row * down
            space = width - picture.shape[1], height - picture.shape[0]
            sheet.paste(Image.fromarray(picture), (left + space[0] // 2, above + space[1] // 2))
            # Pillow's own font has no other letters.
            text = text.encode("latin-1", "replace").decode("latin-1")
            draw.multiline_text((left, above + height + 2), text, fill="black")
    return sheet


def beside(sheets: Sequence[Image.Image]) -> Image.Image:
    """Pictures next to each other."""
    size = sum(sheet.width for sheet in sheets), max(sheet.height for sheet in sheets)
    joined = Image.new("RGB", size, "white")
    left = 0
    for sheet in sheets:
        joined.paste(sheet, (left, 0))
        left += sheet.width
    return joined
