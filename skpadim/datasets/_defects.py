"""Defects of generated parts: what is painted on a surface, and what is wrong with a part itself.

`difficulty` runs from 0, plain to see, to 1, barely visible. It scales a defect's size and
contrast; place, direction and shape come from the generator alone and stay.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_closing

from skpadim.datasets import _parts
from skpadim.datasets._parts import blend, distance_to_line

# The parts and the kinds of defect of each, in the order in which they take turns.
PARTS = {
    "disc": ("scratch", "spot", "missing", "dent"),
    "bottle": ("missing", "crack", "contamination"),
    "transistor": ("bent", "cut", "misplaced", "scratch"),
    "capsule": ("print", "crack", "dent", "spot"),
    "fabric": ("misweave", "hole", "fibre", "spot"),
    "wood": ("scratch", "hole", "crack", "spot"),
    "leather": ("scratch", "hole", "colour", "dent"),
    "grid": ("bent", "broken", "fibre", "contamination"),
}

# Shares of the contrast and of the size of painted defects that are left at difficulty 1. Chosen
# by measurement: the filter bank, fitted on 60 good images, then barely tells them from good ones.
_LEFT = {
    "disc": (0.14, 0.5),
    "bottle": (0.08, 0.4),
    "transistor": (0.10, 0.5),
    "capsule": (0.22, 0.55),
    "fabric": (0.42, 1.0),
    "wood": (0.2, 0.55),
    "leather": (0.2, 0.65),
    "grid": (0.2, 0.5),
}

# Defects lie in the middle of the picture: a detector's crop keeps 7/8 of its sides by default.
_REACH = 0.36


def draw(part, kind, canvas, seeds, difficulty):
    """Pixels and mask of a part, "good" or with a kind of defect; each of the two has a seed."""
    draw_part = getattr(_parts, part)
    good = draw_part(canvas, np.random.default_rng(seeds[0]))
    if kind == "good":
        return good.pixels, np.zeros(canvas.shape, dtype=bool)
    rng = np.random.default_rng(seeds[1])
    if (part, kind) in _FAULTS:
        fault = _FAULTS[part, kind](rng, 1 - difficulty)
        pixels = draw_part(canvas, np.random.default_rng(seeds[0]), **fault).pixels
        changed = np.abs(pixels - good.pixels).max(axis=-1) > 0.02
        # By chance some pixels look alike with and without the fault, such as threads of a weave.
        reach = max(1, canvas.size // 64)
        return pixels, binary_closing(changed, iterations=reach) | changed
    contrast, size = (left**difficulty for left in _LEFT[part])
    return _PAINTED[kind](canvas, good, rng, contrast, size)


# Painted defects: functions of canvas, surface, generator, contrast and size (1 when plain to see).


def scratch(canvas, surface, rng, contrast, size):
    """A thin, slightly bent line, lighter or darker."""
    place, angle = _place(canvas, surface, rng), rng.uniform(np.deg2rad(25), np.deg2rad(155))
    reach, bow = rng.uniform(0.08, 0.14) * size, rng.uniform(-0.15, 0.15)
    along = np.linspace(-1, 1, 6)[:, None] * [np.cos(angle), np.sin(angle)]
    across = (np.linspace(-1, 1, 6)[:, None] ** 2) * [-np.sin(angle), np.cos(angle)]
    line = distance_to_line(canvas.x, canvas.y, place + reach * (along + bow * across))
    share = canvas.edge(rng.uniform(0.004, 0.007) - line)
    return _tone(canvas, surface, share, rng.choice([-1, 1]) * 0.32 * contrast)


def crack(canvas, surface, rng, contrast, size):
    """A dark, jagged line with a branch."""
    place, angle = _place(canvas, surface, rng), rng.uniform(0, 2 * np.pi)
    turns = angle + np.cumsum(rng.normal(scale=0.5, size=8))
    steps = 0.034 * size * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    line = place + np.cumsum(steps, axis=0) - steps[:4].sum(axis=0)
    branch = line[4] + np.cumsum(steps[[6, 2, 5]] @ _turn(rng.choice([-0.9, 0.9])), axis=0)
    near = np.minimum(
        distance_to_line(canvas.x, canvas.y, line),
        distance_to_line(canvas.x, canvas.y, [line[4], *branch]) + 0.002,
    )
    return _tone(canvas, surface, canvas.edge(rng.uniform(0.004, 0.006) - near), -0.4 * contrast)


def spot(canvas, surface, rng, contrast, size):
    """A stain that darkens what is below it."""
    depth, radius = _blob(canvas, surface, rng, 0.035, 0.055, size)
    share = _soft(depth / (0.4 * radius)) * canvas.edge(surface.depth)
    tint = 1 - rng.uniform(0.45, 0.6) * contrast * np.array([0.9, 1.0, 1.1])
    return blend(surface.pixels, surface.pixels * tint, share), share > 0.15


def colour(canvas, surface, rng, contrast, size):
    """A wide patch of another hue."""
    depth, radius = _blob(canvas, surface, rng, 0.06, 0.09, size)
    share = _soft(depth / (0.3 * radius)) * canvas.edge(surface.depth)
    tint = 1 + 0.55 * contrast * rng.permutation([1.0, -0.2, -0.8])
    return blend(surface.pixels, surface.pixels * tint, share), share > 0.15


def hole(canvas, surface, rng, contrast, size):
    """A dark hole with a raised rim."""
    depth, radius = _blob(canvas, surface, rng, 0.022, 0.038, size)
    rim = canvas.edge(depth + 0.25 * radius) * canvas.edge(surface.depth)
    pixels = blend(surface.pixels, 1.35 * surface.pixels + 0.05, rim * contrast)
    inside = canvas.edge(depth) * canvas.edge(surface.depth)
    return blend(pixels, [0.05, 0.04, 0.04], 0.95 * contrast * inside), rim > 0.15


def dent(canvas, surface, rng, contrast, size):
    """A hollow: bright on the side that faces the light, dark on the other."""
    place, light = _place(canvas, surface, rng), rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(0.05, 0.075) * size
    u, v = (canvas.x - place[0]) / radius, (canvas.y - place[1]) / radius
    inside = np.clip(1 - u**2 - v**2, 0, 1)
    slope = 2.6 * (u * np.cos(light) + v * np.sin(light)) * inside
    share = canvas.edge(surface.depth)
    factor = 1 + 0.7 * contrast * slope * share
    return surface.pixels * factor[..., None], (inside * share) > 0.1


def fibre(canvas, surface, rng, contrast, size):
    """A foreign thread that lies on the surface."""
    place, angle = _place(canvas, surface, rng), rng.uniform(0, 2 * np.pi)
    turns = angle + np.cumsum(rng.normal(scale=0.35, size=12))
    steps = 0.024 * size * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    line = place + np.cumsum(steps, axis=0) - steps[:6].sum(axis=0)
    width = rng.uniform(0.0055, 0.008)
    near = distance_to_line(canvas.x, canvas.y, line)
    hue = np.array([[0.75, 0.12, 0.12], [0.10, 0.12, 0.30], [0.95, 0.93, 0.85]])[rng.integers(3)]
    shade = (0.6 + 0.4 * np.clip(1 - near / width, 0, 1))[..., None] * hue
    share = canvas.edge(width - near) * canvas.edge(surface.depth)
    return blend(surface.pixels, shade, contrast * share), share > 0.15


def contamination(canvas, surface, rng, contrast, size):
    """A lump of foreign matter."""
    depth, radius = _blob(canvas, surface, rng, 0.03, 0.05, size)
    share = canvas.edge(depth) * canvas.edge(surface.depth)
    height = np.sqrt(np.clip(depth / radius, 0, 1))
    grains = 1 + 0.15 * canvas.noise(rng, 0.01)
    hue = np.array([[0.85, 0.83, 0.75], [0.50, 0.42, 0.32], [0.62, 0.50, 0.22]])[rng.integers(3)]
    lump = ((0.55 + 0.55 * height) * grains)[..., None] * hue
    return blend(surface.pixels, np.clip(lump, 0, 1), contrast * share), share > 0.15


_PAINTED = {
    function.__name__: function
    for function in (scratch, crack, spot, colour, hole, dent, fibre, contamination)
}


# Faults: keywords of the part's drawing function, from a generator and ease (1 when plain to see).


def _between(ease, hard, easy):
    """Where something lies between barely visible and plain to see."""
    return hard * (easy / hard) ** ease


_FAULTS = {
    ("disc", "missing"): lambda rng, ease: {
        "chip": (rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.1) * _between(ease, 0.007, 0.07))
    },
    ("bottle", "missing"): lambda rng, ease: {
        "chip": (rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.1) * _between(ease, 0.006, 0.07))
    },
    ("transistor", "bent"): lambda rng, ease: {
        "leg": rng.integers(3),
        "bend": rng.choice([-1, 1]) * rng.uniform(0.8, 1.2) * _between(ease, 0.004, 0.055),
    },
    ("transistor", "cut"): lambda rng, ease: {
        "leg": rng.integers(3),
        "cut": rng.uniform(0.7, 1.0) * _between(ease, 0.03, 1.0),
    },
    ("transistor", "misplaced"): lambda rng, ease: {
        "shift": rng.choice([-1, 1]) * rng.uniform(0.7, 1.1) * _between(ease, 0.005, 0.06),
        "turn": rng.choice([-1, 1]) * rng.uniform(0.7, 1.1) * _between(ease, 0.015, 0.3),
    },
    ("capsule", "print"): lambda rng, ease: {
        "first": rng.integers(3),
        "faded": rng.uniform(0.8, 1.0) * _between(ease, 0.3, 1.0),
        "smear": rng.choice([-1, 1]) * _between(ease, 0.003, 0.03),
    },
    ("fabric", "misweave"): lambda rng, ease: {
        "slip": (
            *rng.uniform(-0.28, 0.28, size=2),
            *rng.uniform(0.75, 1.25, size=2) * _between(ease, 0.05, 0.12),
        )
    },
    ("grid", "bent"): lambda rng, ease: {
        "bump": (
            *rng.uniform(-0.26, 0.26, size=2),
            _between(ease, 0.09, 0.16),
            _between(ease, 0.014, 0.05) * np.array(_direction(rng)),
        )
    },
    ("grid", "broken"): lambda rng, ease: {
        "gap": (*rng.uniform(-0.3, 0.3, size=2), _between(ease, 0.008, 0.055))
    },
}


def _place(canvas, surface, rng):
    """A place (x, y) well inside the surface and in the middle of the picture."""
    near = np.maximum(np.abs(canvas.x), np.abs(canvas.y)) < _REACH - 0.06
    row, column = np.divmod(rng.choice(np.flatnonzero(near & (surface.depth > 0.045))), canvas.size)
    return np.array([canvas.x[0, column], canvas.y[row, 0]])


def _blob(canvas, surface, rng, smallest, largest, size):
    """Depth inside an irregular round shape, and its radius."""
    x, y = _place(canvas, surface, rng)
    radius = rng.uniform(smallest, largest) * size
    u, v = canvas.x - x, canvas.y - y
    angle, lobes = np.arctan2(v, u), 0
    for order in (2, 3, 5):
        lobes = lobes + rng.normal(scale=0.25 / order) * np.cos(order * angle + rng.uniform(0, 7))
    return radius * np.clip(1 + lobes, 0.5, 1.5) - np.hypot(u, v), radius


def _tone(canvas, surface, share, change):
    """Lighten or darken where `share` is; a dark surface is never darkened, nor a light one lit."""
    share = share * canvas.edge(surface.depth)
    level = (share[..., None] * surface.pixels).sum() / max(3 * share.sum(), 1e-6)
    if not 0 <= level + change <= 1:
        change = -change
    return surface.pixels + change * share[..., None], share > 0.15


def _soft(value):
    """A smooth step from 0 (at 0 and below) to 1 (at 1 and above)."""
    value = np.clip(value, 0, 1)
    return value**2 * (3 - 2 * value)


def _turn(angle):
    """Matrix that turns rows of coordinates."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _direction(rng):
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle), np.sin(angle)
