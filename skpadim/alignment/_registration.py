"""How far parts have moved from a reference: a search over turns by FFT, then least squares.

The search finds the shift for each of some turns and scales of the reference at once, as the peak
of a correlation of which the spectrum is partly whitened (phase correlation: C. D. Kuglin and D. C.
Hines, 1975). What is found is refined by the inverse compositional form of Lucas and Kanade's
method (S. Baker and I. Matthews, "Lucas-Kanade 20 years on", 2004), with gain and offset of the
light, and with weights that leave out what differs, such as defects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import label, maximum_filter
from torch.nn import functional as F

from skpadim.alignment._motion import (
    are_inside,
    as_complex,
    as_rows,
    inverse,
    no_motion,
    places,
    sample,
    to_unit,
)

# Longer sides, in pixels, of the images that are searched, and of those that refine it.
_SIDES = (64, 128)
_STEPS = (2, 2)  # of least squares at each
_EVERY = 13  # residual, of which the spread is measured
_TURN_STEP, _SCALE_STEP = 2.5, 0.04
# What is seen to turn is seen by so many degrees; what is seen to move, by this share of the side.
_SEEN_TURN, _FAR = 5, 0.15
_AT_A_TIME = 8


@dataclass(frozen=True)
class Limits:
    """How far parts may have moved."""

    shift: float  # share of the side
    angle: float = 0.0  # degrees; 0 where no turns are looked for
    scale: float = 1.0  # times larger or smaller

    @property
    def wider(self) -> Limits:
        """Of motions between two parts that have moved."""
        return Limits(min(0.45, 2 * self.shift), min(180, 2 * self.angle), self.scale**2)

    @cached_property
    def candidates(self) -> torch.Tensor:
        """Turns and scales that the search tries: motions (n, 4); none at all comes first."""
        turns = [0.0, *_both_ways(self.angle, _TURN_STEP)]
        scales = [1.0, *map(math.exp, _both_ways(math.log(self.scale), _SCALE_STEP))]
        return torch.tensor([[0.0, 0.0, turn, scale] for scale in scales for turn in turns])

    @property
    def parameters(self) -> list[int]:
        """Which columns of a motion may change."""
        return [0, 1] + [2] * (self.angle > 0) + [3] * (self.scale > 1)

    def allow(self, motions: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Which motions are within the limits, or beyond by no more than a step of the search."""
        reach = motions.new_tensor(size) * self.shift + max(size) / _SIDES[0]
        turns = motions[:, 2].abs() <= self.angle + _TURN_STEP
        scales = motions[:, 3].log().abs() <= math.log(self.scale) + _SCALE_STEP
        return (motions[:, :2].abs() <= reach).all(dim=1) & turns & scales


def _both_ways(limit, step):
    n_steps = math.ceil(limit / step)
    return [sign * limit * (i + 1) / n_steps for i in range(n_steps) for sign in (1, -1)]


def working_size(size: tuple[int, int], side: int = _SIDES[-1]) -> tuple[int, int]:
    """Height and width that images are compared at: the longer side is 128 pixels at most."""
    factor = min(1, side / max(size))
    return tuple(max(1, round(length * factor)) for length in size)


def resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Images (n, 1, height, width) at another size, bilinear and antialiased."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True)


class Reference:
    """An image of a part, prepared for others to be compared with.

    `image` is (height, width), grey, of the working size; `limits` say which motions are looked
    for. All images are of its size, and motions in its pixels.
    """

    def __init__(self, image: torch.Tensor, limits: Limits):
        self.limits, self.size = limits, tuple(image.shape)
        sizes = dict.fromkeys(working_size(self.size, side) for side in _SIDES)
        self._levels = [_Level(resized(image[None, None], size)[0, 0]) for size in sizes]
        small = self._levels[0].image[None, None]
        candidates = limits.candidates.to(image.device)
        grid = places(inverse(candidates), self._levels[0].size)
        turned = sample(small.expand(len(candidates), -1, -1, -1), grid)[:, 0]
        self._candidates, self._spectra = candidates, _spectrum(turned).conj().resolve_conj()

    def register(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Motions (n, 4) of images (n, height, width), and how alike they are then.

        That is the correlation of the image moved back with the reference, of what is in both, from
        -1 to 1.
        """
        images = [resized(images[:, None], level.size) for level in self._levels]
        motions = self._search(images[0][:, 0])
        size = self._levels[0].size
        for level, at_level, steps in zip(
            self._levels, images, _STEPS[-len(images) :], strict=True
        ):
            motions, size = in_pixels(motions, size, level.size), level.size
            motions = level.refine(at_level, motions, self.limits.parameters, steps)
        # Where there is nothing to be seen, nothing has moved.
        motions = torch.where(motions.isfinite(), motions, no_motion(1).to(motions.device))
        return motions, level.correlation(at_level, motions)

    def looks_alike_at(self) -> float:
        """How alike the reference is to itself at another place within reach, from -1 to 1.

        That is the highest correlation at a shift that is more alike than the shifts around it; -1
        where there is none.
        """
        image = self._levels[-1].image.numpy(force=True)
        alike = _autocorrelation(image, [int(self.limits.shift * side) for side in self.size])
        peaks = maximum_filter(alike, 5) == alike
        # At the border what lies around is not known; and the middle is the place itself.
        peaks[[0, 1, -2, -1]] = peaks[:, [0, 1, -2, -1]] = False
        middle = [slice(side // 2 - 1, side // 2 + 2) for side in alike.shape]
        peaks[tuple(middle)] = False
        return float(alike[peaks].max(initial=-1))

    def slides(self, alike: float) -> bool:
        """Whether it stays alike by so much all the way to a shift of some 15 % of the side.

        Then it looks the same along a line, as a bar does that runs through the whole frame.
        """
        image = self._levels[-1].image.numpy(force=True)
        values = _autocorrelation(image, [int(_FAR * side) for side in self.size])
        regions, _ = label(values >= alike, np.ones((3, 3)))
        around = regions == regions[tuple(side // 2 for side in values.shape)]
        return bool(around[[0, -1]].any() or around[:, [0, -1]].any())

    def largest_turn(self, loss: float) -> float:
        """Degrees up to which turns can be told apart, at most the limit.

        That is 0 if a turn of 5° costs less correlation with itself than `loss`; else half of a
        turn that does. About whatever centre: the turned reference may be shifted.
        """
        image = self._levels[-1].image
        degrees = torch.arange(_SEEN_TURN, min(180, 2 * self.limits.angle) + 1)
        turns = no_motion(len(degrees)).to(image.device)
        turns[:, 2] = degrees
        by_shifts, losses = Reference(image, Limits(0.4)), []
        for some in turns.split(_AT_A_TIME):
            turned = sample(image.expand(len(some), 1, -1, -1), places(some, self.size))[:, 0]
            losses += (1 - by_shifts.register(turned)[1]).tolist()
        if not losses or min(losses) >= loss:
            return self.limits.angle
        first = next(i for i, value in enumerate(losses) if value < loss)
        turn = first + int(np.argmin(losses[first : first + _SEEN_TURN]))
        return min(self.limits.angle, degrees[turn].item() / 2) if first else 0.0

    def _search(self, images):
        """Motions (n, 4) of small images (n, height, width), to some half of a pixel."""
        size = self._levels[0].size
        correlations = torch.fft.irfft2(_spectrum(images)[:, None] * self._spectra, s=size)
        reach = [min((side - 1) // 2, math.ceil(self.limits.shift * side) + 1) for side in size]
        window = [2 * side + 1 for side in reach]
        near = torch.roll(correlations, reach, (-2, -1))[..., : window[0], : window[1]]
        peaks, at = near.flatten(2).max(dim=2)
        best = peaks.argmax(dim=1)  # of equals the first, the smallest turn
        at = at.gather(1, best[:, None])[:, 0]
        motions = self._candidates[best]
        motions[:, 0] = at // window[1] - reach[0]
        motions[:, 1] = at % window[1] - reach[1]
        return motions


class _Level:
    """The reference at one size, and how its pixels change with the parameters of a motion."""

    def __init__(self, image):
        self.image, self.size = image, tuple(image.shape)
        y, x = (
            torch.arange(side, dtype=image.dtype, device=image.device) - (side - 1) / 2
            for side in self.size
        )
        by_row, by_column = torch.gradient(image)
        turn = by_column * y[:, None] - by_row * x
        scale = by_row * y[:, None] + by_column * x
        changes = torch.stack([by_row, by_column, torch.deg2rad(turn), scale]).flatten(1)
        # As many points as the smaller image has, where most is to be seen.
        n_points = math.prod(working_size(self.size, _SIDES[0]))
        points = changes[:2].square().sum(dim=0).topk(n_points, sorted=False).indices
        self._changes = changes[:, points]
        # What the light makes of the reference: gain and offset.
        self._light = torch.stack([image, torch.ones_like(image)]).flatten(1)[:, points]
        self._points = (x + 1j * y[:, None]).flatten()[points]

    def refine(self, images, motions, parameters, n_steps):
        """Motions after some steps of weighted least squares."""
        design = torch.cat([self._changes[parameters], self._light])
        still, n, weights = no_motion(1).to(images.device), len(parameters), 1.0
        columns = torch.eye(4, device=images.device)[parameters]
        shift, turn = as_complex(motions)
        for _ in range(n_steps):
            at = turn[:, None] * self._points + shift[:, None]
            grid = torch.view_as_real(at) * to_unit(self.size, images)
            moved, inside = sample(images, grid[:, None])[:, 0, 0], are_inside(grid)
            solution = _least_squares(design, moved, weights * inside)
            weights = _biweights(moved - solution @ design, inside)
            changes = solution[:, :n] / solution[:, n : n + 1]
            by, turned = as_complex(still + changes @ columns)
            # Composed with the inverse of what the reference would have to be moved by.
            turn = turn / turned
            shift = shift - turn * by
        refined = motions.clone()
        refined[:, parameters] = as_rows(shift, turn)[:, parameters]
        return refined

    def correlation(self, images, motions):
        """Of images moved back with the reference, where both are."""
        grid = places(motions, self.size)[:, ::2, ::2]  # a quarter of the pixels tells as much
        weights = are_inside(grid).flatten(1).to(images.dtype)
        total = weights.sum(1, keepdim=True).clamp(min=1)

        def centred(values):
            return weights * (values - (weights * values).sum(1, keepdim=True) / total)

        a = centred(sample(images, grid).flatten(1))
        b = centred(self.image[None, ::2, ::2].flatten(1))
        return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)


def in_pixels(
    motions: torch.Tensor, size: tuple[int, int], wanted: tuple[int, int]
) -> torch.Tensor:
    """Motions in pixels of images of a size, in those of another."""
    factors = motions.new_tensor([new / old for new, old in zip(wanted, size, strict=True)])
    return torch.cat([motions[:, :2] * factors, motions[:, 2:]], 1)


def _least_squares(design, values, weights):
    """Solutions (n, k) of values (n, m) as combinations of the rows of a design (k, m)."""
    weighted = design * weights[:, None]
    normal, right = (weighted @ design.T).double(), (weighted @ values[..., None]).double()
    # A motion that changes nothing that is seen stays at nothing.
    normal.diagonal(dim1=1, dim2=2).mul_(1 + 1e-6).add_(1e-9)
    return torch.linalg.solve(normal, right)[..., 0].to(values.dtype)


def _autocorrelation(image, reach):
    """Correlations of an image (height, width) with itself, of what overlaps, by shifts."""
    height, width = image.shape
    alike = np.empty((2 * reach[0] + 1, 2 * reach[1] + 1))
    for dy in range(reach[0] + 1):
        for dx in range(-reach[1], reach[1] + 1):
            one = image[dy:, max(dx, 0) : width + min(dx, 0)]
            other = image[: height - dy, max(-dx, 0) : width - max(dx, 0)]
            one, other = one - one.mean(), other - other.mean()
            sizes = np.linalg.norm(one) * np.linalg.norm(other)
            value = np.vdot(one, other) / max(sizes, 1e-12)
            alike[reach[0] + dy, reach[1] + dx] = alike[reach[0] - dy, reach[1] - dx] = value
    return alike


def _biweights(residuals, inside):
    """Tukey's: what is off by more than some four standard deviations has no say."""
    some = torch.where(inside[:, ::_EVERY], residuals[:, ::_EVERY].abs(), torch.nan)
    spread = (1.4826 * some.nanmedian(dim=1, keepdim=True).values).nan_to_num_(1.0)
    return (1 - (residuals / (4.7 * spread.clamp_(min=1e-3))).square_()).clamp_(min=0).square_()


def _spectrum(images):
    """Spectrum of images (n, height, width), faded out at the border, and partly whitened."""
    for axis in (-2, -1):
        side = images.shape[axis]
        window = torch.hann_window(side + 2, periodic=False, device=images.device)[1:-1]
        fade = (2 * window).clamp_(max=1)  # flat in the middle
        images = images - images.mean(dim=(1, 2), keepdim=True) if axis == -2 else images
        images = images * (fade[:, None] if axis == -2 else fade)
    spectrum = torch.fft.rfft2(images)
    sizes = spectrum.abs()
    return spectrum / (sizes + 1e-3 * sizes.amax(dim=(1, 2), keepdim=True) + 1e-12).sqrt()
