"""ImageAligner: a reference of good parts, where others lie, and images moved back."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from skpadim._documentation import DocumentedMixin
from skpadim._persistence import VersionedStateMixin
from skpadim.alignment._motion import are_inside, compose, inverse, places, sample
from skpadim.alignment._registration import (
    Limits,
    Reference,
    in_pixels,
    resized,
    working_size,
)
from skpadim.images._batches import Images, read_ahead, stack_pixels
from skpadim.images._read import to_float
from skpadim.images._sizes import sizes_of
from skpadim.images._tags import TakesImagesMixin
from skpadim.machine._thread_limits import threads_limited

COLUMNS = ("dy", "dx", "angle", "scale", "peak", "aligned")
# Good images that the reference is made of, and that are compared at a time.
_MAX_FOR_REFERENCE, _AT_A_TIME = 64, 8
# Of the correlation with the reference: below the first there is no common picture; an image that
# is less alike than most by the second, and by what good ones vary, is none of them.
_LEAST_ALIKE, _LESS_ALIKE = 0.5, 0.15
# Of the correlation, too: what is lost by moving an image alone.
_LEAST_NOISE = 0.005


class ImageAligner(
    VersionedStateMixin,
    DocumentedMixin,
    TakesImagesMixin,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,
):
    """Bring parts that are shifted, turned or of another size to one place.

    From good images a reference is learned: the median of what they show, with the part where most
    have it. An image is compared with it in grey: by phase correlation for some turns and sizes,
    then by least squares to a fraction of a pixel, whatever the brightness and contrast, and with
    little weight on what differs, such as a defect. The image is then moved back.

    Parameters
    ----------
    motion : {"translation", "rigid", "similarity"}, default="rigid"
        How parts move: they are shifted; shifted and turned; or also nearer to the camera.
    image_size : int or (height, width), default=256
        Images are resized to this many pixels; an int means a square, whatever the image's shape.
    max_shift : float, default=0.15
        How far parts lie from the reference, at most: share of the side, in (0, 0.4].
    max_angle : float, default=15.0
        Degrees that they are turned by, at most, in (0, 180]; ignored with "translation". Of a part
        that looks the same after a turn (a hexagon after 60°) no more than half of that turn is
        looked for: it then lies as all others do.
    max_scale : float, default=1.1
        How many times larger or smaller they are, at most, in (1, 2]; only with "similarity".

    Attributes
    ----------
    reference_ : ndarray of shape (height, width), float32
        The reference, grey from 0 to 1, with a longer side of 128 pixels at most.
    alignment_ : DataFrame
        Where the parts of the training images lie, as :meth:`measure` tells it.
    min_peak_ : float
        An image with a lower peak is not aligned: 0.15 below the training images' median, or more
        where they differ more.
    sees_turns_ : bool
        Whether turns are looked for. They are not with ``motion="translation"``, nor where the
        part looks the same when it is turned, such as a bottle from above.

    Notes
    -----
    Refused, with a ValueError: textures that have no common picture (wood, leather), and those that
    repeat within `max_shift` (fabric, a grid), where one place is as good as another. They need no
    alignment: see ``sharing="image"`` of :class:`PadimDetector`. And a bar or an edge that runs
    through the whole frame: nobody can see how far it has moved along itself.

    A turned part in an image that is squeezed to a square has another shape. So images must have
    the proportions of `image_size`, within 2 %, unless ``motion="translation"``.

    See Also
    --------
    PadimDetector : Has ``align="rigid"``, and brings its maps back to the images as they are.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim import ImageAligner
    >>> from skpadim.datasets import make_defects
    >>> parts = make_defects(8, 0, part="capsule", image_size=64, random_state=0).data
    >>> aligner = ImageAligner("translation", image_size=64).fit(parts)
    >>> shifted = np.roll(parts, 5, axis=1)                     # five pixels further down
    >>> moved = aligner.measure(shifted)["dy"] - aligner.measure(parts)["dy"]
    >>> float(moved.median().round(1))
    5.0
    >>> aligner.transform(shifted).shape
    (8, 64, 64, 3)
    """

    _parameter_constraints = {
        "motion": [StrOptions({"translation", "rigid", "similarity"})],
        "image_size": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "max_shift": [Interval(Real, 0, 0.4, closed="right")],
        "max_angle": [Interval(Real, 0, 180, closed="right")],
        "max_scale": [Interval(Real, 1, 2, closed="right")],
    }

    def __init__(
        self, motion="rigid", *, image_size=256, max_shift=0.15, max_angle=15.0, max_scale=1.1
    ):
        self.motion = motion
        self.image_size = image_size
        self.max_shift = max_shift
        self.max_angle = max_angle
        self.max_scale = max_scale

    def fit(self, X, y=None):
        """Learn the reference.

        Parameters
        ----------
        X : images
            Three or more of good parts, as :class:`PadimDetector` takes them. Fewer than half may
            show something else, or lie beyond the limits.
        y : ignored

        Returns
        -------
        self : ImageAligner

        Raises
        ------
        ValueError
            If most images cannot be aligned, or if one place is as good as another.
        """
        self._validate_params()
        images = Images(X, min_images=3)
        images = X if isinstance(X, Images) else images  # whose motions are known then
        self._size = sizes_of(self.image_size, None)[0]
        limits = Limits(
            float(self.max_shift),
            float(self.max_angle) if self.motion != "translation" else 0.0,
            float(self.max_scale) if self.motion == "similarity" else 1.0,
        )
        chosen = _spread_out(len(images), _MAX_FOR_REFERENCE)
        greys = torch.cat(list(self._iter_greys(images.take(chosen))))
        reference, peaks = _learn(greys, limits)
        if limits.angle:
            noise = max(_LEAST_NOISE, 1 - peaks.median().item())
            angle = Reference(reference, limits).largest_turn(noise)
            if angle < limits.angle:
                limits = replace(limits, angle=angle)
                reference, peaks = _learn(greys, limits)
        min_peak = _least(peaks)
        if peaks.median() < _LEAST_ALIKE:
            raise ValueError(
                "The images have no common picture that they could be aligned by (the median "
                f"correlation with their reference is {peaks.median():.2f}, {_LEAST_ALIKE} is "
                "needed). A texture needs no alignment: leave it out, with sharing='image' in a "
                "PadimDetector."
            )
        if (prepared := Reference(reference, limits)).slides(1 - _LESS_ALIKE):
            raise ValueError(
                "The images look the same when they are shifted along a line, so that how far a "
                "part lies along it cannot be seen: it runs through the whole frame, as a bar or "
                "an edge does. Take images that show an end or a corner of it, or leave alignment "
                "out."
            )
        again = prepared.looks_alike_at()
        if again >= min_peak:
            raise ValueError(
                "The images repeat themselves, so that one place is as good as another (shifted, "
                f"their reference has a correlation of {again:.2f} with itself). Make "
                "max_shift smaller than what repeats, or leave alignment out."
            )
        self.reference_, self.min_peak_ = reference.numpy(), min_peak
        self.sees_turns_, self._limits = limits.angle > 0, limits
        self._reference = prepared
        images.motions = None
        n_aligned = len(self.measure_all(images))
        if n_aligned <= len(images) / 2:
            raise ValueError(
                f"Only {n_aligned} of {len(images)} images can be aligned: their parts lie "
                f"further apart than max_shift={self.max_shift}, max_angle={self.max_angle} and "
                f"max_scale={self.max_scale} allow, or move otherwise than motion={self.motion!r}."
            )
        self.alignment_ = _table(images.motions)
        return self

    def measure(self, X):
        """Say where the parts lie.

        Parameters
        ----------
        X : images

        Returns
        -------
        alignment : DataFrame
            A row an image. ``dy``, ``dx``: how much lower and further right than in the reference
            the part lies, in pixels of `image_size`; ``angle``: degrees that it is turned
            counter-clockwise; ``scale``: how many times larger it is, both about the centre of the
            image; ``peak``: correlation of the image, moved back, with the reference, at most 1;
            ``aligned``: whether the peak is `min_peak_` or more, and the motion within the limits.
        """
        check_is_fitted(self)
        return _table(self._measure(Images(X)))

    def transform(self, X):
        """Move the images back, so that all parts lie where the reference has them.

        Parameters
        ----------
        X : images

        Returns
        -------
        images : ndarray of shape (n_samples, height, width, 3)
            Of `image_size`; uint8 if all are 8-bit, else float32 in [0, 1]. What lay outside of an
            image is filled by reflection. Images that cannot be aligned are left as they lie, with
            a warning.
        """
        check_is_fitted(self)
        images = Images(X)
        images.align_by(self)
        batches = read_ahead(lambda i: images.read(i, self._size), len(images), _AT_A_TIME)
        pixels = stack_pixels([image for batch in batches for image in batch])
        warn_of_unaligned(images.unaligned())
        return pixels.permute(0, 2, 3, 1).numpy(force=True)

    def measure_all(self, images: Images) -> np.ndarray:
        """Note the motions of images; return the indices of those that can be aligned."""
        if images.motions is None:
            images.motions = self._measure(images)
        return np.flatnonzero(images.motions[:, 5] > 0)

    def locate(self, pixels: torch.Tensor) -> np.ndarray:
        """Row of :meth:`measure`, as numbers, of pixels (3, height, width) of `image_size`."""
        return self._locate(self._grey(pixels))[0]

    def move_back(self, pixels: torch.Tensor, row: np.ndarray) -> torch.Tensor:
        """Pixels (3, height, width) moved back, unless `row` says that they are not aligned."""
        if not row[5] > 0:
            return pixels
        grid = places(applied_motions(row[None]).to(pixels.device), self._size)
        moved = sample(pixels[None].to(torch.float32), grid)[0]
        # By way of integers of 32 bits it takes a third of the time.
        return moved.round_().int().byte() if pixels.dtype == torch.uint8 else moved

    def check_proportions(self, size: tuple[int, int] | None) -> None:
        """Raise if parts in images of a size (height, width) are not turned in the input."""
        height, width = self._size
        if size is None or self.motion == "translation":
            return
        if not 1 / 1.02 <= size[0] * width / (size[1] * height) <= 1.02:
            raise ValueError(
                f"is {size[1]} pixels wide and {size[0]} high: squeezed to {width} x {height}, a "
                "turned part has another shape. Use keep_aspect_ratio=True, an image_size (height, "
                "width) of these proportions, or align by 'translation' alone."
            )

    @property
    def digest(self) -> str:
        """Tells aligners apart that move images otherwise."""
        settings = repr((self._size, self._limits, self.min_peak_)).encode()
        return hashlib.sha256(settings + self.reference_.tobytes()).hexdigest()

    def _measure(self, images):
        """Rows of all images."""
        return np.concatenate([self._locate(greys) for greys in self._iter_greys(images)])

    def _locate(self, greys):
        with threads_limited(1):  # they would be woken some hundred times, for less than they do
            motions, peaks = self._reference.register(greys)
        aligned = self._limits.allow(motions, tuple(greys.shape[1:])) & (peaks >= self.min_peak_)
        motions = in_pixels(motions, tuple(greys.shape[1:]), self._size)
        return torch.cat([motions, peaks[:, None], aligned[:, None]], 1).numpy(force=True)

    def _iter_greys(self, images) -> Iterator[torch.Tensor]:
        """Grey images (n, height, width) of the working size, a few at a time."""

        def read(index):
            try:
                self.check_proportions(images.size_of(index))
            except ValueError as error:
                raise ValueError(f"Image {images.name_of(index)} {error}") from None
            return self._grey(images.read(index, self._size))

        for batch in read_ahead(read, len(images), _AT_A_TIME):
            yield torch.cat(batch)

    def _grey(self, pixels):
        colours = to_float(pixels.cpu()).permute(1, 2, 0)
        grey = colours @ torch.full((3,), 1 / 3)  # a tenth of the time of a mean
        return resized(grey[None, None], working_size(self._size))[:, 0]

    def __sklearn_is_fitted__(self):
        return hasattr(self, "alignment_")

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_reference", None)
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if hasattr(self, "reference_"):
            self._reference = Reference(torch.from_numpy(self.reference_), self._limits)


def _spread_out(n, most):
    """Up to so many indices of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _learn(greys, limits):
    """The reference (height, width) of grey images, and how alike they are to it."""
    light = greys.mean(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    greys = greys * (light.median() / light)
    # Begin with the image that others are most like, of a few.
    some = greys[_spread_out(len(greys), 16)]
    firsts = [greys[index] for index in _spread_out(len(greys), 5)]
    reference = max(firsts, key=lambda one: _register(one, limits.wider, some)[1].median())
    reach = limits.wider
    for _ in range(3):
        motions, peaks = _register(reference, reach, greys)
        fits = peaks >= _least(peaks)
        # So that parts lie around the reference's, none further off than need be.
        centre = motions[fits].median(dim=0).values[None]
        grid = places(
            compose(inverse(centre).expand(len(motions), -1), motions)[fits], greys[0].shape
        )
        moved = sample(greys[fits][:, None], grid)[:, 0]
        seen = moved.masked_fill(~are_inside(grid), torch.nan).nanmedian(dim=0).values
        reference, reach = torch.where(seen.isnan(), moved.median(dim=0).values, seen), limits
    return reference, _register(reference, limits, greys)[1]


def _register(reference, limits, greys):
    """Motions and peaks of many grey images."""
    prepared = Reference(reference, limits)
    motions, peaks = zip(*map(prepared.register, greys.split(_AT_A_TIME)), strict=True)
    return torch.cat(motions), torch.cat(peaks)


def _least(peaks):
    """Of an image that shows what most of them show."""
    median = peaks.median()
    spread = 1.4826 * (peaks - median).abs().median()
    return min(median - _LESS_ALIKE, median - 6 * spread).clamp(min=0.3).item()


def _table(rows):
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"aligned": bool})


def applied_motions(rows: np.ndarray) -> torch.Tensor:
    """Motions (n, 4) that images with these rows are moved back by; none of those not aligned."""
    motions = torch.from_numpy(rows[:, :4].astype(np.float32))
    motions[rows[:, 5] != 1] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    return motions


def warn_of_unaligned(names: list[str], consequence: str = "They are left as they lie.") -> None:
    """Warn of images that cannot be aligned."""
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        warnings.warn(
            f"{len(names)} image{'s' * (len(names) != 1)} cannot be aligned ({shown}): the part is "
            f"another one, or further off than the aligner looks. {consequence} "
            "ImageAligner.measure tells more.",
            UserWarning,
            stacklevel=3,
        )
