"""An image, its map and its mask as small pictures that a page holds in its text."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, features

from skpadim.images._batches import Images
from skpadim.images._masks import image_size
from skpadim.images._read import as_picture
from skpadim.images._sizes import shrunk
from skpadim.metrics._geometry import Window

# Longer sides, in pixels. Maps are smooth: the page enlarges them.
_IMAGE, _MAP = 320, 96


def small_pictures(
    images: Images, index: int, anomaly_map: np.ndarray, mask: np.ndarray | None, window: Window
) -> dict:
    """The pictures of one image as data URIs, all of the image's proportions."""
    full = image_size(images.items[index])
    size = shrunk(full, _IMAGE)
    thumbnail = Image.fromarray(as_picture(images.read(index, size)))
    codec = "WEBP" if features.check("webp") else "JPEG"
    return {
        "size": full,
        "height": size[0],
        "width": size[1],
        "image": _data_uri(thumbnail, codec, quality=75),
        "map": _data_uri(_grey_map(anomaly_map, shrunk(full, _MAP), window), "PNG", optimize=True),
        "unseen": bool(np.isnan(anomaly_map).any()) or window.size != window.resized,
        "mask": None if mask is None else _data_uri(_small_mask(mask, size), "PNG"),
    }


def _grey_map(anomaly_map, size, window):
    """255 times the root of each value's share of the highest; transparent if not inspected."""
    in_image = window.in_picture(anomaly_map, size)
    values, unseen = np.nan_to_num(in_image), np.isnan(in_image)
    # The peak may lie between the pixels: what is flagged must show somewhere.
    values.flat[values.argmax()] = highest = max(float(np.nanmax(anomaly_map)), 1e-30)
    # The root makes fine steps where values are low.
    grey = 255 * np.sqrt(np.clip(values, 0, highest) / highest)
    picture = Image.fromarray(grey.round().astype(np.uint8))
    if unseen.any():
        picture.putalpha(Image.fromarray(255 * (~unseen).astype(np.uint8)))
    return picture


def _small_mask(mask, size):
    """Of a small defect at least a pixel is left."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BOX)
    return grey.point(lambda value: 255 * (value > 0)).convert("1")


def _data_uri(image, codec, **options):
    buffer = io.BytesIO()
    image.save(buffer, codec, **options)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{codec.lower()};base64,{text}"
