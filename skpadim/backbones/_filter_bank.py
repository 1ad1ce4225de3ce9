"""A hand-made bank of oriented filters: the backbone that needs no weights.

A texture descriptor in the tradition of filter banks, made so that PaDiM's Gaussians fit its
features and that the paper's regularisation (0.01 on the covariance's diagonal) is right for them:

1. The logarithm of intensity: an exposure or a shading becomes an offset (homomorphic filtering,
   Oppenheim, Schafer & Stockham 1968).
2. A binomial pyramid (Burt & Adelson 1983); on each octave quadrature pairs of Morlet wavelets in
   half-octave bands and four orientations (Gabor 1946; Bovik, Clark & Geisler 1990). Their modulus,
   the local energy, does not depend on phase: textures need no alignment (Adelson & Bergen 1985).
3. The modulus averaged over overlapping cells, then its logarithm: the first order of a
   log-scattering transform (Bruna & Mallat 2013; Andén & Mallat 2014). Heavy tails become nearly
   Gaussian, factors of contrast become offsets.
4. Of the orientations the mean energy and the second angular harmonic (steerability: Freeman &
   Adelson 1991), not the four values: the mean is the steadier part of a texture, and the harmonic
   can so be given less weight.
5. Local mean, contrast and extremes of intensity, mean and contrast of opponent colours (Ohta,
   Kanade & Sakai 1980).
6. The deviation of energies and intensity among neighbouring cells: a second order, filters over
   magnitudes.
7. All of it relative to its mean over the image, softly divided by its deviation there (divisive
   normalisation, Heeger 1992; instance normalisation, Ulyanov et al. 2016): parts differ in
   exposure, finish and grain; a defect is a place that differs from its own part. The means are
   kept too, with a small weight, since a part may be wrong as a whole.

The layers hold the same families of features in growing windows. The measurements behind each
choice are in the documentation, under "How the filter bank was designed".
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from skpadim.backbones._backbone import Backbone, Layer
from skpadim.machine._torch_state import own_torch_state

ORIENTATIONS = 4
# Pixels of an octave's image, half an octave apart; the first as fine as its sampling carries.
WAVELENGTHS = (3.36, 4.76)
RADIUS = 4  # of the filters in pixels: about two standard deviations of the wider envelope
# Windows of layer1 overlap by half: a defect on the border of one is in the middle of the next.
CELL, STRIDE = 16, 8
# For each layer its octaves (those whose waves fit the window), and its stride and window in
# cells of layer1.
LAYERS = {"layer1": ((0, 1, 2), 1, 1), "layer2": ((0, 1, 2, 3), 2, 4), "layer3": ((2, 3, 4), 4, 8)}

# Constants of the features' units. None is fitted to a data set; results change little over the
# ranges given.
DARK = 0.03  # added to intensities in [0, 1] before the log: darker is camera noise (0.02 to 0.1)
FLOOR = 0.01  # added to energies: below 1 % of contrast there is only noise (0.005 to 0.02)
CONTRAST_FLOOR = 0.02  # of contrasts, which take in all frequencies and so more noise
NEIGHBOURS_FLOOR = 0.1  # of deviations among cells, which are in log units: 10 %
HARMONIC = 0.3  # weight: directions vary more among good places than energies (0.25 to 0.5)
NEIGHBOURS = 0.5  # weight: a deviation of nine values only is noisy (0.25 to 1)
SPREAD = 0.3  # an image's deviations are divided by theirs only where it is larger (0.3 to 1)
AVERAGE = 0.2  # weight of the image's means, which vary most among good parts (0.1 to 0.5)
# Of all: makes a regularisation of 0.01 stand for 2 % of noise, sqrt(0.01) / 5 (2 to 10).
GAIN = 5.0
# The coarsest layer places defects worst, so it weighs less (0.3 to 0.7).
LAYER_GAIN = {"layer1": 1.0, "layer2": 1.0, "layer3": 0.5}


def morlet_pair(wavelength: float, angle: float) -> torch.Tensor:
    """An even and an odd wavelet of zero mean, of shape (2, 2 RADIUS + 1, 2 RADIUS + 1).

    Their joint modulus is the amplitude of a wave of this wavelength (pixels) and direction
    (radians).
    """
    y, x = torch.meshgrid(*[torch.arange(-RADIUS, RADIUS + 1.0)] * 2, indexing="ij")
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    # Longer along the wave fronts than across them, which sharpens the direction.
    envelope = torch.exp(-(u**2 + 0.6 * v**2) / (2 * (wavelength / 2) ** 2))
    wave = 2 * math.pi / wavelength * u
    even = envelope * (wave.cos() - (envelope * wave.cos()).sum() / envelope.sum())
    return torch.stack([even, envelope * wave.sin()]) / (even * wave.cos()).sum()


def window_means(maps: torch.Tensor, window: int, stride: int) -> torch.Tensor:
    """Means over windows centred on every stride-th place; at borders over what is inside."""
    window += (window - stride) % 2  # so that windows can be centred on their stride
    return F.avg_pool2d(maps, window, stride, (window - stride) // 2, count_include_pad=False)


def window_variances(maps: torch.Tensor, window: int, stride: int) -> torch.Tensor:
    """Variances over the windows of :func:`window_means`.

    The mean of squares less the square of the mean would lose most digits where intensities vary
    little, which is where contrasts are judged.
    """
    margin = (window - stride) // 2
    inside = F.pad(maps, (margin, margin, margin, margin), value=math.nan)
    values = F.unfold(inside, window, stride=stride).unflatten(1, (maps.shape[1], -1))
    deviations = values - values.nanmean(2, keepdim=True)
    sides = [(side + 2 * margin - window) // stride + 1 for side in maps.shape[2:]]
    return deviations.square().nanmean(2).unflatten(2, sides)


def cell_variances(pixels: torch.Tensor) -> torch.Tensor:
    """Variances over the cells of layer1: within their sixteenths, and between those."""
    size = STRIDE // 2  # cells begin at multiples of it
    means = F.avg_pool2d(pixels, size)
    within = F.avg_pool2d((pixels - F.interpolate(means, scale_factor=size)).square(), size)
    window, stride = CELL // size, STRIDE // size
    return window_means(within, window, stride) + window_variances(means, window, stride)


def log_deviation(variance, floor):
    """Logarithm of the standard deviation, which `floor` keeps from running to minus infinity."""
    return 0.5 * torch.log(variance + floor**2)


def _n_channels(name):
    """Number of features of a layer, as :meth:`FilterBank._layer` puts them together."""
    n_bands = len(LAYERS[name][0]) * len(WAVELENGTHS)
    local = 3 * n_bands + 6
    # layer1 adds two extremes and the neighbours' deviations, layer3 the image's means.
    return local + {"layer1": 2 + n_bands + 1, "layer2": 0, "layer3": local}[name]


class FilterBank(Backbone):
    """Energies of oriented filters, contrasts and colours, relative to the image's own average.

    All features are used by default (111 in all three layers). Images of 32 pixels and more on a
    side have at least one cell in each layer.
    """

    name = "filter_bank"
    license = "none needed: it has no weights"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    n_features = None
    layers = {
        name: Layer(_n_channels(name), STRIDE * step) for name, (_, step, _) in LAYERS.items()
    }

    @own_torch_state()
    def __init__(self):
        super().__init__()
        pairs = torch.stack(
            [
                morlet_pair(wavelength, math.pi * k / ORIENTATIONS)
                for wavelength in WAVELENGTHS
                for k in range(ORIENTATIONS)
            ]
        )
        filters = pairs.transpose(0, 1).flatten(0, 1)[:, None]  # all even ones, then all odd ones
        # Even in length, so that a coarse pixel stays centred on two by two fine ones.
        binomial = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("blur", (binomial[:, None] * binomial)[None, None], persistent=False)

    def __reduce__(self):
        return FilterBank, ()  # made by formula: a model file need not hold it

    def forward(self, images, layers):
        """Feature maps of some layers (see :meth:`Backbone.forward`).

        `images` are RGB in [0, 1]. Sides that are no multiple of 32 pixels are enlarged to the
        next one, so that in every layer the cells divide the image evenly.
        """
        whole = STRIDE * max(step for _, step, _ in LAYERS.values())
        size = tuple(-(-side // whole) * whole for side in images.shape[-2:])
        if size != tuple(images.shape[-2:]):
            images = F.interpolate(images, size, mode="bilinear", align_corners=False)
        grey = torch.log(images.mean(1, keepdim=True) + DARK)
        points, extremes = self._points(images, grey)
        n_octaves = 1 + max(octave for name in layers for octave in LAYERS[name][0])
        energies, harmonics = [], []
        for octave in range(n_octaves):
            if octave > 0:
                grey = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), self.blur, stride=2)
            energy, harmonic = self._energies(grey, octave)
            energies.append(energy)
            harmonics.append(harmonic)
        return [self._layer(name, energies, harmonics, points, extremes) for name in layers]

    def _energies(self, grey, octave):
        """Log energies (n, bands, h, w) and harmonics (n, 2 bands, h, w) of an octave in cells."""
        # A modulus is smooth: where a cell holds many samples, every second one will do.
        step = 2 if octave < 2 else 1
        padded = F.pad(grey, (RADIUS, RADIUS, RADIUS, RADIUS), mode="replicate")
        even, odd = F.conv2d(padded, self.filters, stride=step).chunk(2, dim=1)
        modulus = (even**2 + odd**2 + 1e-12).sqrt()
        pixels = step << octave  # of the image, from one sample to the next
        if pixels > STRIDE:
            modulus = F.interpolate(modulus, scale_factor=pixels // STRIDE, mode="nearest")
            pixels = STRIDE
        modulus = window_means(modulus, CELL // pixels, STRIDE // pixels)
        by_direction = modulus.unflatten(1, (len(WAVELENGTHS), ORIENTATIONS))
        east, north_east, north, north_west = by_direction.unbind(2)
        total = by_direction.sum(2) + ORIENTATIONS * FLOOR
        harmonic = torch.cat([east - north, north_east - north_west], dim=1)
        harmonic = harmonic / total.repeat(1, 2, 1, 1)
        return torch.log(total / ORIENTATIONS), 2 * HARMONIC * harmonic

    def _points(self, images, grey):
        """Means and contrasts (n, 6, h, w) of intensity and colours, extremes (n, 2, h, w)."""
        red, green, blue = torch.log(images + DARK).split(1, dim=1)
        values = torch.cat([grey, red - green, (red + green) / 2 - blue], dim=1)
        mean = window_means(values, CELL, STRIDE)
        contrast = log_deviation(cell_variances(values), CONTRAST_FLOOR)
        both_signs = torch.cat([grey, -grey], dim=1)
        extremes = F.max_pool2d(both_signs, CELL, STRIDE, (CELL - STRIDE) // 2)
        extremes = extremes - torch.cat([mean[:, :1], -mean[:, :1]], dim=1)
        return torch.cat([mean, contrast], dim=1), extremes

    def _layer(self, name, energies, harmonics, points, extremes):
        """Put a layer's features together, average them over its windows, and normalise them."""
        octaves, step, window = LAYERS[name]
        parts = [energies[octave] for octave in octaves]
        parts += [harmonics[octave] for octave in octaves]
        parts.append(points)
        if name == "layer1":
            values = torch.cat([*parts[: len(octaves)], points[:, :1]], dim=1)
            neighbours = log_deviation(window_variances(values, 3, 1), NEIGHBOURS_FLOOR)
            parts += [extremes, NEIGHBOURS * neighbours]
        maps = torch.cat(parts, dim=1)
        mean = maps.mean((2, 3), keepdim=True)
        variance = maps.var((2, 3), keepdim=True, correction=0)
        if step > 1:
            maps = window_means(maps, window, step)
        maps = (maps - mean) * (SPREAD / (variance + SPREAD**2).sqrt())
        if name == "layer3":
            maps = torch.cat([maps, AVERAGE * mean.expand_as(maps)], dim=1)
        return GAIN * LAYER_GAIN[name] * maps
