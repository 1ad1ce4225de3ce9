"""What `skpadim score` draws: maps and overlays of each image, and the sheet of the worst ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import registered_extensions
from scipy.ndimage import binary_dilation

from skpadim.files._files import written_whole
from skpadim.images._masks import image_size
from skpadim.images._read import as_picture, read_image
from skpadim.metrics._geometry import Window, with_peak
from skpadim.plotting._colours import map_colours, outline, overlay
from skpadim.plotting._sheet import sheet_of

_OUTLINE = (178, 42, 90)  # the report's
N_WORST, _N_COLUMNS, _SIDE = 40, 8, 192  # of the contact sheet, whose pictures are so large


class Pictures:
    """Files of each image, under its name from the folder that all images share."""

    def __init__(self, options, given, detector):
        self._maps, self._overlays = options.maps, options.overlays
        self._is_original = options.maps_size == "original"
        self._given, self._detector = given, detector
        self._threshold = -getattr(detector, "offset_", np.nan)

    def are_there(self, path: Path) -> bool:
        """Whether an image has all of its files."""
        return all(file.exists() for file in self._files(path).values())

    def write(self, path: Path, anomaly_map: np.ndarray) -> None:
        """Write the files of an image, from its map at the model's size."""
        # The suffix comes after that of the image: a.png and a.jpg must not overwrite each other.
        files = self._files(path)
        if not files:
            return
        in_image = pixels = None
        if self._is_original or "overlay" in files:
            pixels = as_picture(read_image(path))
            in_image = self._window.in_image(anomaly_map, pixels.shape[:2])
        if "values" in files:
            if self._is_original:
                values, beside = in_image, pixels
            else:
                values = anomaly_map
                beside = as_picture(self._detector.embedder_.preprocess(read_image(path)))
            threshold = self._threshold
            if np.isnan(threshold):  # a model without one
                threshold = np.fmax.reduce(values, axis=None) / 2
            _save(values, files["values"])
            _save(np.hstack([beside, map_colours(values, threshold)]), files["colours"])
        if "overlay" in files:
            _save(
                self._draw(pixels, in_image, np.fmax.reduce(anomaly_map, axis=None)),
                files["overlay"],
                quality=90,
            )

    def draw_worst(self, target: Path, rows: Sequence[dict]) -> None:
        """Draw the images of rows, the lowest score first, on one sheet."""
        from skpadim._padim import iter_maps_and_errors

        rows = sorted(rows, key=lambda row: float(row["score"]))[:N_WORST]
        paths = [row["path"] for row in rows]
        pictures, captions, title = [], [], f"threshold {self._threshold:.2f}"
        batches = iter_maps_and_errors(self._detector, paths, "raise")
        for row, anomaly_map in zip(rows, (m for maps, _ in batches for m in maps), strict=True):
            shape = image_size(row["path"])
            small = tuple(max(1, round(side * _SIDE / max(shape))) for side in shape)
            in_image = self._window.in_picture(anomaly_map, small)
            if np.isnan(in_image).any() and "hatched" not in title:
                title += ", hatched: not inspected"
            pixels = as_picture(read_image(row["path"], small))
            pictures.append(self._draw(pixels, in_image, np.fmax.reduce(anomaly_map, axis=None)))
            name = self._given.relative(row["path"]).as_posix()
            name = name if len(name) <= 30 else f"...{name[-27:]}"
            verdict = "anomalous" if int(row["label"]) < 0 else "good"
            captions.append(f"{name}\n{-float(row['score']):.2f}, {verdict}")
        sheet = sheet_of(*(_in_rows(each) for each in (pictures, captions)), [title])
        with written_whole(target) as part:
            sheet.save(part, format=registered_extensions().get(target.suffix.lower(), "PNG"))

    @cached_property
    def _window(self):
        return Window.of(self._detector, self._detector.embedder_.input_size_)

    def _draw(self, pixels, in_image, highest):
        """An image with what is anomalous in colours, and a line around it."""
        anomalous = with_peak(in_image, highest) > self._threshold
        drawn = overlay(pixels, in_image, self._threshold)
        width = max(1, round(max(in_image.shape) / 400))
        drawn[outline(binary_dilation(anomalous, iterations=width), width)] = _OUTLINE
        return drawn

    def _files(self, path):
        name, files = self._given.relative(path), {}
        if self._maps is not None:
            files["values"] = self._maps / f"{name}.tiff"
            files["colours"] = self._maps / f"{name}.png"
        if self._overlays is not None:
            files["overlay"] = self._overlays / f"{name}.jpg"
        return files


def _save(pixels, target, **options):
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target, durable=False) as part:
        Image.fromarray(pixels).save(part, format=registered_extensions()[target.suffix], **options)


def _in_rows(cells):
    return [cells[start : start + _N_COLUMNS] for start in range(0, len(cells), _N_COLUMNS)]
