"""The picture of where alignment fails: figures/alignment_failures.html, drawn with the pages.

A pair each: what came and what became of it, or, where a fit is refused, two of its images.
"""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
from _figures import HERE, STYLE, svg
from matplotlib.figure import Figure
from PIL import Image

from skpadim import ImageAligner, PadimDetector
from skpadim.datasets import make_defects

SIDE = 128
SETTINGS = {"image_size": SIDE, "random_state": 0}


def draw_failures(app=None):
    """Write the picture; Sphinx calls this before it reads the pages."""
    with warnings.catch_warnings(), matplotlib.rc_context(STYLE | {"svg.hashsalt": "failures"}):
        warnings.simplefilter("ignore")  # of images that cannot be aligned, which it is about
        pairs = [*of_capsules(), of_hexagons(), *refused()]
        figure = Figure(figsize=(6.6, 5.0), layout="constrained")
        for axis, (title, below, pictures) in zip(figure.subplots(3, 3).flat, pairs, strict=True):
            gap = np.full((SIDE, SIDE // 16, 3), 255, np.uint8)
            axis.imshow(np.concatenate([pictures[0], gap, pictures[1]], axis=1))
            axis.set_title(title, fontsize=9.5)
            axis.set_xlabel(below, fontsize=8.5)
            axis.set(xticks=[], yticks=[], frame_on=False)
        drawing = svg(figure, "images that alignment fails on")
    HERE.joinpath("figures").mkdir(exist_ok=True)
    HERE.joinpath("figures", "alignment_failures.html").write_text(
        f'<figure class="measured"><div class="drawing">{drawing}</div><figcaption>'
        "Left as it came, right as it was scored. Of the hexagons: one that lies as most do, and "
        "one that does not. Last row: two images of a fit that is refused.</figcaption></figure>",
        encoding="utf-8",
    )


def of_capsules():
    """Images that a detector of capsules cannot bring to their place, or not well."""
    parts = make_defects(41, 0, part="capsule", **SETTINGS).data
    detector = PadimDetector("filter_bank", align="rigid", **SETTINGS).fit(parts[:40])
    new = Image.fromarray(parts[40])
    hidden = parts[40].copy()
    hidden[:, : int(0.35 * SIDE)] = 235
    table = np.asarray(new)[2, 2]
    corners = (0, 0.1 * SIDE, 0, 0.9 * SIDE, SIDE, SIDE, SIDE, 0)
    images = {
        "too far off": new.rotate(0, translate=(0, -50), fillcolor=tuple(table)),
        "another part": make_defects(1, 0, part="transistor", **SETTINGS).data[0],
        "a third is hidden": hidden,
        "tilted": new.transform(new.size, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR),
        "10 % nearer": new.resize((141, 141)).crop((6, 6, 134, 134)),
    }
    for title, image in images.items():
        image = np.asarray(image)[None]
        row = detector.aligner_.measure(image).iloc[0]
        said = "aligned" if row["aligned"] else "not aligned"
        flagged = "flagged" if detector.predict(image)[0] < 0 else "passes"
        below = f"{said}, peak {row['peak']:.2f}, {flagged}"
        yield title, below, (image[0], detector.aligner_.transform(image)[0])


def of_hexagons():
    """A mark that is brought to another corner."""
    images = photographs(hexagon, angle=60, mark=True)
    aligner = ImageAligner(image_size=SIDE, max_angle=60).fit(images)
    moved = aligner.transform(images).astype(float)
    apart = np.abs(moved - np.median(moved, axis=0)).mean(axis=(1, 2, 3))
    apart *= aligner.alignment_["aligned"].to_numpy()
    usual, worst = np.argsort(apart)[len(apart) // 4], apart.argmax()
    pair = moved[[usual, worst]].astype(np.uint8)
    below = f"aligned, peak {aligner.alignment_['peak'][worst]:.2f}"
    return "a hexagon with a mark", below, pair


def refused():
    """Images that no fit takes."""
    fabric, wood = (make_defects(24, 0, part=part, **SETTINGS).data for part in ("fabric", "wood"))
    bar = photographs(lambda x, y: 0.1 - np.abs(y), angle=10)
    for title, images in (("a weave", fabric), ("wood", wood), ("a bar", bar)):
        try:
            ImageAligner(image_size=SIDE).fit(images)
        except ValueError:
            yield title, "refused", images[:2]


def hexagon(x, y):
    """How deep places lie in a hexagon."""
    angle = (np.arctan2(y, x) + np.pi / 6) % (np.pi / 3) - np.pi / 6
    return 0.3 - np.hypot(x, y) * np.cos(angle)


def photographs(depth, angle, mark=False, n=24):
    """Images of a shape, shifted by up to 16 pixels and turned by up to some degrees."""
    rng = np.random.default_rng(0)
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE - 0.5
    images = []
    for shift, turn in zip(
        rng.uniform(-0.06, 0.06, (n, 2)), np.deg2rad(rng.uniform(-angle, angle, n)), strict=True
    ):
        u, v = x - shift[0], y - shift[1]
        u, v = np.cos(turn) * u - np.sin(turn) * v, np.sin(turn) * u + np.cos(turn) * v
        grey = 0.2 + 0.5 * np.clip(SIDE * depth(u, v) + 0.5, 0, 1)
        grey -= mark * 0.3 * np.clip(SIDE * (0.035 - np.hypot(u - 0.2, v)) + 0.5, 0, 1)
        images.append(grey + rng.normal(0, 0.02, grey.shape))
    return (255 * np.clip(images, 0, 1)).astype(np.uint8)[..., None].repeat(3, axis=3)


if __name__ == "__main__":
    draw_failures()
