"""How generated parts are drawn, with what, and the faults that change a part's own shape.

A part is a function of a canvas, a generator and, by keyword, a fault; without one it is good.
The fault takes nothing from the generator: the same part can be drawn with it and without.
Lengths are shares of the picture's side, so that one seed draws the same part at any size.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt


class Canvas:
    """A square picture: `x` (1, size) and `y` (size, 1) run from -0.5 (left, top) to 0.5."""

    def __init__(self, size):
        axis = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
        self.size, self.shape = size, (size, size)
        self.x, self.y = axis[None, :], axis[:, None]

    def edge(self, depth):
        """Share of each pixel that is inside, given its depth there (negative outside)."""
        return np.clip(depth * self.size + 0.5, 0, 1)

    def noise(self, rng, scale, scale_x=None):
        """Gaussian noise of mean 0 and variance 1, of a correlation length down and across."""
        down, across = self._kernel(scale), self._kernel(scale_x or scale)
        nodes = rng.standard_normal((down.shape[1], across.shape[1]), dtype=np.float32)
        return down @ nodes @ across.T

    def _kernel(self, scale):
        """Gaussian weights (size, nodes) of nodes `scale` apart; each pixel's have norm 1."""
        nodes = np.arange(-0.5 - 3 * scale, 0.5 + 4 * scale, scale, dtype=np.float32)
        weights = np.exp(-(((self.y - nodes) / scale) ** 2))
        return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def distance_to_line(x, y, points):
    """Distance of each place (x, y) to a line through `points`, (x, y) each."""
    nearest = np.float32(np.inf)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = np.float32(x1 - x0), np.float32(y1 - y0)
        u, v = x - np.float32(x0), y - np.float32(y0)
        along = np.clip((u * dx + v * dy) / (dx**2 + dy**2 + np.float32(1e-12)), 0, 1)
        nearest = np.minimum(nearest, (u - along * dx) ** 2 + (v - along * dy) ** 2)
    return np.sqrt(nearest)


def blend(below, above, share):
    """Lay a colour or picture over another, with opacity `share` (height, width)."""
    return below + share[..., None] * (np.asarray(above, dtype=np.float32) - below)


def box_depth(x, y, half_width, half_height, corner=0.0):
    """Depth of points inside a box around 0 with round corners; negative outside."""
    dx, dy = np.abs(x) - half_width + corner, np.abs(y) - half_height + corner
    return (
        corner - np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) - np.minimum(np.maximum(dx, dy), 0)
    )


class Surface(NamedTuple):
    """A part as drawn, before it is photographed."""

    pixels: np.ndarray  # (size, size, 3), float32: colour in [0, 1]
    depth: np.ndarray  # (size, size): how far inside the part a pixel is; negative outside


def disc(canvas: Canvas, rng, chip=None) -> Surface:
    """Draw a washer of brushed metal; `chip` is the angle and radius of a piece broken off."""
    x, y = canvas.x, canvas.y
    radius, outer, bore = np.hypot(x, y), rng.uniform(0.39, 0.405), rng.uniform(0.095, 0.105)
    depth = np.minimum(outer - radius, radius - bore)
    if chip:
        angle, size = chip
        u, v = x - outer * np.cos(angle), y - outer * np.sin(angle)
        jagged = 1 + 0.2 * np.cos(3 * np.arctan2(v, u)) + 0.1 * np.cos(7 * np.arctan2(v, u))
        depth = np.minimum(depth, np.hypot(u, v) - size * jagged)
    strokes = canvas.noise(rng, 1 / 200, 1 / 10) + 0.6 * canvas.noise(rng, 1 / 90, 1 / 4)
    metal = rng.uniform(0.56, 0.64) + rng.uniform(0.035, 0.055) * strokes
    light = rng.uniform(0, 2 * np.pi)
    metal += 0.05 * np.cos(2 * np.arctan2(y, x) + light) + 0.04 * canvas.noise(rng, 0.3)
    rim = canvas.edge(0.016 - depth)
    slope = (x * np.cos(light) + y * np.sin(light)) / np.maximum(radius, 0.05)
    metal += rim * np.where(radius < 0.2, -1, 1) * (0.04 + 0.17 * slope)
    colour = metal[..., None] * np.array([1.0, 0.97, 0.92]) + [0, 0, 0.01]
    return Surface(blend(_table(canvas, rng, depth), colour, canvas.edge(depth)), depth)


def bottle(canvas: Canvas, rng, chip=None) -> Surface:
    """Draw a glass bottle from above; `chip` is angle and radius of a piece off its lip."""
    x, y = canvas.x, canvas.y
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    wave = 0.003 * np.cos(2 * angle + rng.uniform(0, 2 * np.pi))
    at = [0, 0.2, 0.25, 0.262, 0.275, 0.30, 0.33, 0.345, 0.37, 0.40, 0.42]
    tone = np.array([0.03, 0.05, 0.09, 0.45, 0.30, 0.62, 0.42, 0.12, 0.30, 0.22, 0.10])
    tone *= rng.uniform(0.9, 1.1, size=tone.size)
    grey = np.interp(radius + wave, at, tone).astype(np.float32)
    lip = canvas.edge(np.minimum(radius - 0.258, 0.338 - radius))
    for window in rng.uniform(0, 2 * np.pi) + np.array([0, 2.1, 4.2]):
        facing = np.maximum(np.cos(angle - window), 0)
        grey += lip * facing**14 * 0.35 * canvas.edge(0.009 - np.abs(radius - 0.305))
        grey += 0.12 * facing**10 * canvas.edge(0.012 - np.abs(radius - 0.39))
    grey *= 1 + 0.07 * canvas.noise(rng, 0.03)
    grey += 0.02 * np.exp(0.7 * canvas.noise(rng, 0.05)) * canvas.edge(0.25 - radius)
    rough = canvas.noise(rng, 0.012)
    if chip:
        place, size = chip
        from_chip = np.hypot(x - 0.318 * np.cos(place), y - 0.318 * np.sin(place))
        broken = canvas.edge(size * (1 + 0.15 * rough) - from_chip) * lip
        grey = grey * (1 - broken) + broken * (0.16 + 0.07 * rough)
    tint = np.array([1.0, 0.66, 0.30]) * rng.uniform(0.94, 1.06, size=3)
    shine = np.clip(grey - 0.45, 0, 1)[..., None]  # reflections have the colour of the lamp
    colour = grey[..., None] * tint + shine * (1.15 - tint)
    depth = 0.415 - radius
    back = np.full(3, 0.9) + 0.01 * canvas.noise(rng, 0.2)[..., None]
    back = back * (1 - 0.25 * np.exp(-np.maximum(-depth, 0) / 0.03))[..., None]
    return Surface(blend(back, colour, canvas.edge(depth)), depth.astype(np.float32))


def transistor(canvas: Canvas, rng, bend=0.0, cut=0.0, leg=1, shift=0.0, turn=0.0) -> Surface:
    """Draw a transistor on a perforated board.

    `leg` is bent to the side by `bend`, or shortened by the share `cut`; the case is moved by
    `shift` and turned by `turn` radians.
    """
    x, y = canvas.x, canvas.y
    pitch, holes = 0.125, rng.uniform(-0.004, 0.004, size=2)
    u = (x - holes[0] + pitch / 2) % pitch - pitch / 2
    v = (y - holes[1] + pitch / 2) % pitch - pitch / 2
    from_hole = np.hypot(u, v)
    grain = canvas.noise(rng, 1 / 150, 1 / 20)[..., None]
    pixels = np.array([0.44, 0.30, 0.17]) * rng.uniform(0.94, 1.06) + 0.015 * grain
    pixels = blend(pixels, [0.75, 0.52, 0.30], canvas.edge(0.034 - from_hole))
    pixels = blend(pixels, [0.10, 0.06, 0.04], canvas.edge(0.019 - from_hole))
    top = rng.uniform(-0.015, 0.005)
    scuffs = 1 + 0.1 * canvas.noise(rng, 0.01, 0.03)
    for index in range(3):
        end = (holes[0] + (index - 1) * 0.125, holes[1] + 0.375)
        start, knee = ((index - 1) * 0.085, top), ((index - 1) * 0.10, 0.20)
        if index == leg:
            knee = (knee[0] + bend, knee[1])
            end = (end[0] + 0.6 * bend, end[1] - cut * 0.2)
        metal = 0.016 - distance_to_line(x, y, [start, knee, end])
        pixels = blend(pixels, 0.55 * pixels, 0.7 * canvas.edge(metal + 0.012))
        sheen = 0.5 + 18 * np.maximum(metal, 0) * scuffs
        pixels = blend(pixels, sheen[..., None] * [1.0, 1.0, 1.02], canvas.edge(metal))
    tilt = rng.normal(scale=0.015) + turn
    dx, dy = x - shift, y + 0.13 - top
    across = dx * np.cos(tilt) + dy * np.sin(tilt)
    down = dy * np.cos(tilt) - dx * np.sin(tilt)
    depth = box_depth(across, down, 0.19, 0.145, 0.03)
    pixels = blend(pixels, 0.4 * pixels, 0.8 * np.clip(1 + depth / 0.03, 0, 1))
    case = 0.13 + 0.012 * canvas.noise(rng, 1 / 150) + 0.02 * canvas.noise(rng, 0.2)
    case += canvas.edge(0.02 - depth) * (0.05 - 0.3 * down) + 0.05 * canvas.edge(-0.085 - down)
    for row, word in enumerate(("2N39", "C847")):
        ink = _text(word, across + 0.002, down - 0.055 * row + 0.01, 0.045)
        case = case + 0.38 * canvas.edge(0.004 - ink)
    colour = case[..., None] * [1.0, 1.0, 1.04]
    return Surface(blend(pixels, colour, canvas.edge(depth)), depth)


def capsule(canvas: Canvas, rng, faded=0.0, first=0, smear=0.0) -> Surface:
    """Draw a gelatine capsule of two colours with a print.

    From character `first` on, the print is `faded` by that share and moved down by `smear`.
    """
    x, y = canvas.x, canvas.y
    half = rng.uniform(0.235, 0.245)
    along = np.maximum(np.abs(x) - half, 0)
    right = x > rng.uniform(-0.02, 0.0)
    girth = 0.175 + 0.006 * ~right  # the cap is slid over the body
    across = np.hypot(along, y) / girth
    depth = (1 - across) * girth
    height = np.sqrt(np.clip(1 - across**2, 0, 1))
    body = np.array([0.93, 0.88, 0.76]) * rng.uniform(0.97, 1.02, size=3)
    cap = np.array([0.80, 0.30, 0.10]) * rng.uniform(0.93, 1.07, size=3)
    pixels = np.where(right[..., None], body, cap).astype(np.float32)
    pixels = pixels * (1 + 0.025 * canvas.noise(rng, 0.03))[..., None]
    ink = canvas.noise(rng, 0.008)
    for index, letter in enumerate("A5Z"):
        faulty = index >= first
        place = y - smear * faulty
        stroke = _text(letter, x - 0.08 - 0.075 * index, place, 0.085)
        share = canvas.edge(0.0065 - stroke) * (0.85 + 0.1 * np.clip(ink, -1, 1))
        pixels = blend(pixels, [0.16, 0.13, 0.20], share * (1 - faded * faulty))
    pixels *= (0.50 + 0.52 * height)[..., None]
    glance = y + 0.45 * girth + 0.01 * canvas.noise(rng, 0.15)
    shine = np.exp(-((glance / 0.02) ** 2)) * canvas.edge(half - np.abs(x) + 0.02)
    pixels = blend(pixels, [1, 1, 0.97], rng.uniform(0.45, 0.6) * shine)
    return Surface(blend(_table(canvas, rng, depth, 0.22), pixels, canvas.edge(depth)), depth)


def fabric(canvas: Canvas, rng, slip=None) -> Surface:
    """Draw a twill; in the box `slip` (x, y, half width, half height) it is woven wrongly."""
    n = 30
    sway = 0.12 * canvas.noise(rng, 0.12), 0.12 * canvas.noise(rng, 0.12)
    u, v = (canvas.x + 0.5) * n + 3 + sway[0], (canvas.y + 0.5) * n + 3 + sway[1]
    column, row = u.astype(int), v.astype(int)
    over = (row + column) % 4 < 2
    if slip:
        x, y, *half_sides = slip
        inside = box_depth((column - 3) / n - 0.5 - x, (row - 3) / n - 0.5 - y, *half_sides) > 0
        over = np.where(inside, (row - column) % 4 < 2, over)
    bulge_u, bulge_v = 1 - (2 * (u % 1) - 1) ** 2, 1 - (2 * (v % 1) - 1) ** 2
    crown = np.where(over, bulge_u * (0.6 + 0.4 * bulge_v), bulge_v * (0.6 + 0.4 * bulge_u))
    thickness = 1 + 0.07 * rng.standard_normal((2, n + 7))
    yarn = np.where(over, thickness[0][column], thickness[1][row])
    fuzz = 1 + 0.10 * canvas.noise(rng, 1 / 180) + 0.04 * canvas.noise(rng, 0.1)
    shade = (0.5 + 0.5 * crown) * yarn * fuzz
    warp = np.array([0.40, 0.45, 0.55]) * rng.uniform(0.95, 1.05, size=3)
    weft = np.array([0.58, 0.59, 0.58]) * rng.uniform(0.95, 1.05, size=3)
    return _everywhere(canvas, np.where(over[..., None], warp, weft) * shade[..., None])


def wood(canvas: Canvas, rng) -> Surface:
    """Draw a board with rings, fibres and pores along it."""
    drift = canvas.noise(rng, 0.35, 0.9)
    rings = (9 * (canvas.y + 0.5) + 1.1 * drift + rng.uniform(0, 1)) % 1
    late = rings**3 * np.clip((1 - rings) * 9, 0, 1)  # wood darkens slowly, then starts anew
    fibres = canvas.noise(rng, 1 / 170, 1 / 9)
    pores = np.clip(canvas.noise(rng, 1 / 220, 1 / 25) - 1.7, 0, 1)
    dark = 0.45 * late + 0.10 * fibres + 0.10 * canvas.noise(rng, 0.05, 0.5) + 0.6 * pores
    light = np.array([0.80, 0.60, 0.39]) * rng.uniform(0.96, 1.04, size=3)
    return _everywhere(canvas, blend(light, np.array([0.42, 0.25, 0.13]), dark + 0.25))


def leather(canvas: Canvas, rng) -> Surface:
    """Draw the pebbled grain of a hide."""
    n, size = 30, canvas.size
    shift = canvas.noise(rng, 0.1), canvas.noise(rng, 0.1)
    nodes = np.stack(np.mgrid[0:n, 0:n], axis=-1) + rng.uniform(0.1, 0.9, size=(n, n, 2))
    places = np.minimum((nodes / n * size).astype(int), size - 1)
    empty = np.ones(canvas.shape, dtype=bool)
    empty[places[..., 0], places[..., 1]] = False
    away, nearest = distance_transform_edt(empty, return_indices=True)
    cells = nearest[0] * size + nearest[1]
    crease = np.zeros(canvas.shape, dtype=bool)
    crease[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    crease[1:] |= cells[1:] != cells[:-1]
    inward = distance_transform_edt(~crease) / size
    pebble = np.minimum(inward / 0.010, 1) ** 0.7 - 8 * (away / size)
    height = pebble + 0.25 * shift[0]
    down, across = np.gradient(height.astype(np.float32), 256 / size)
    shade = 0.72 + 0.35 * pebble - 0.32 * (down + across) + 0.05 * shift[1]
    shade += 0.05 * canvas.noise(rng, 1 / 200)
    brown = np.array([0.47, 0.27, 0.16]) * rng.uniform(0.94, 1.06, size=3)
    return _everywhere(canvas, np.maximum(shade, 0.05)[..., None] * brown)


def grid(canvas: Canvas, rng, bump=None, gap=None) -> Surface:
    """Draw a mesh of woven wires.

    `bump` (x, y, radius, push) pushes wires aside within a circle; `gap` (x, y, half length)
    takes a piece out of the wire across that is nearest to it.
    """
    n = 9
    u = (canvas.x + 0.5) * n + 2 + 0.03 * canvas.noise(rng, 0.2)
    v = (canvas.y + 0.5) * n + 2 + 0.03 * canvas.noise(rng, 0.2)
    if bump:
        x, y, radius, push = bump
        near = np.clip(1 - ((canvas.x - x) ** 2 + (canvas.y - y) ** 2) / radius**2, 0, 1) ** 2
        u, v = u + near * push[0] * n, v + near * push[1] * n
    column, row = u.astype(int), v.astype(int)
    pixels = np.full((*canvas.shape, 3), 0.10) + 0.012 * canvas.noise(rng, 0.05)[..., None]
    across_u, across_v = u % 1 - 0.5, v % 1 - 0.5
    whole = np.ones(canvas.shape, dtype=np.float32)
    if gap:
        x, y, half = gap
        in_row = row == int((y + 0.5) * n + 2)
        whole = 1 - in_row * canvas.edge(half - np.abs(canvas.x - x))
    scuffs = 1 + 0.06 * canvas.noise(rng, 1 / 100) + 0.05 * canvas.noise(rng, 0.1)
    wire, steel = 0.17, np.array([0.72, 0.74, 0.76]) * rng.uniform(0.94, 1.06)
    crown = 0.75 + 0.25 * np.cos(2 * np.pi * across_v), 0.75 + 0.25 * np.cos(2 * np.pi * across_u)
    down_wire = (wire - np.abs(across_u)) / n, (1 - (across_u / wire - 0.25) ** 2 * 0.75), 1.0
    cross_wire = (wire - np.abs(across_v)) / n, (1 - (across_v / wire + 0.25) ** 2 * 0.75), whole
    first = (row + column) % 2 == 0  # here the wire across lies above
    for above in (False, True):
        for (depth, roundness, share), flip in ((down_wire, False), (cross_wire, True)):
            shown = (first == flip) == above
            tone = np.maximum(roundness, 0.05) * crown[flip] * scuffs * (1 if above else 0.72)
            opacity = canvas.edge(depth) * share * shown
            pixels = blend(pixels, tone[..., None] * steel, opacity)
    return _everywhere(canvas, pixels)


def _table(canvas, rng, depth, tone=0.13):
    """A dark table with the part's shadow on it."""
    grey = tone + 0.012 * canvas.noise(rng, 1 / 60) + 0.01 * canvas.noise(rng, 0.2)
    grey *= 1 - 0.6 * np.exp(-np.maximum(-depth, 0) / 0.02)
    return grey[..., None] * np.array([0.95, 1.0, 1.08])


def _everywhere(canvas, pixels):
    """A texture: its surface fills the picture."""
    depth = 0.5 - np.maximum(np.abs(canvas.x), np.abs(canvas.y))
    return Surface(pixels.astype(np.float32), depth)


# Strokes of characters in a box from (0, 0) top left to (0.6, 1).
_STROKES = {
    "2": [(0, 0.15), (0.3, 0), (0.6, 0.2), (0, 1), (0.6, 1)],
    "3": [(0, 0), (0.6, 0), (0.25, 0.4), (0.6, 0.7), (0.3, 1), (0, 0.9)],
    "4": [(0.5, 1), (0.5, 0), (0, 0.7), (0.6, 0.7)],
    "5": [(0.6, 0), (0.05, 0), (0, 0.45), (0.4, 0.4), (0.6, 0.7), (0.4, 1), (0, 0.95)],
    "7": [(0, 0), (0.6, 0), (0.2, 1)],
    "8": [(0.3, 0.4), (0, 0.2), (0.3, 0), (0.6, 0.2), (0, 0.75), (0.3, 1), (0.6, 0.75), (0.3, 0.4)],
    "9": [(0.6, 0.35), (0.1, 0.5), (0, 0.2), (0.3, 0), (0.6, 0.2), (0.5, 1)],
    "A": [(0, 1), (0.3, 0), (0.6, 1), (0.45, 0.62), (0.15, 0.62)],
    "C": [(0.6, 0.15), (0.3, 0), (0, 0.3), (0, 0.7), (0.3, 1), (0.6, 0.85)],
    "N": [(0, 1), (0, 0), (0.6, 1), (0.6, 0)],
    "Z": [(0, 0), (0.6, 0), (0, 1), (0.6, 1)],
}  # fmt: skip


def _text(word, x, y, height):
    """Distance of places (x, y) to the strokes of a word that is centred at x = y = 0."""
    near = (np.abs(x) < height * len(word)) & (np.abs(y) < height)
    x, y = (np.broadcast_to(places, near.shape)[near] for places in (x, y))
    distance, nearest = np.full(near.shape, np.float32(np.inf)), np.float32(np.inf)
    for index, letter in enumerate(word):
        left = (index - len(word) / 2) * 0.85 * height + 0.12 * height
        points = [(left + px * height, (py - 0.5) * height) for px, py in _STROKES[letter]]
        nearest = np.minimum(nearest, distance_to_line(x, y, points))
    distance[near] = nearest
    return distance
