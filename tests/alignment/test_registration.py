import numpy as np
import pytest
import torch

from skpadim.alignment._motion import compose
from skpadim.alignment._registration import Limits, Reference, in_pixels, resized, working_size
from skpadim.datasets import make_defects


def greys(images):
    pixels = torch.from_numpy(images).float().mean(-1)[:, None] / 255
    return resized(pixels, working_size(images.shape[1:3]))[:, 0]


@pytest.fixture(scope="module", params=["transistor", "capsule"])  # fills the frame; lies in it
def part(request):
    return make_defects(1, 0, part=request.param, image_size=512, random_state=3).data


@pytest.mark.parametrize("scale", [1.0, 1.08])
def test_motions_are_found(part, photograph, some_motions, rng, scale):
    n, size = 12, 256
    motions = some_motions(n, rng, 24, 10, scale)
    light = rng.uniform(0.8, 1.2, n)
    images = greys(photograph(part.repeat(n, 0), motions, size, light))
    reference = greys(photograph(part, some_motions(1, rng, 0), size))[0]
    found, peaks = Reference(reference, Limits(0.15, 15.0, 1.1 if scale > 1 else 1.0)).register(
        images
    )
    errors = (in_pixels(found, reference.shape, (size, size)) - motions).abs()
    assert torch.hypot(errors[:, 0], errors[:, 1]).median() <= 0.25
    assert errors[:, 2].median() <= 0.2
    assert errors[:, 3].max() <= (0.005 if scale > 1 else 0)
    assert peaks.min() > 0.9


def test_frames_need_not_be_square(part, photograph, some_motions, rng):
    images = greys(photograph(part.repeat(4, 0), some_motions(4, rng, 10, 8), 128))
    square = Reference(images[0], Limits(0.2, 20.0)).register(images)[0]
    wide = Reference(images[0, 16:-16], Limits(0.25, 20.0)).register(images[:, 16:-16])[0]
    assert (square - wide)[:, :2].abs().max() < 1
    assert (square - wide)[:, 2].abs().max() < 1


def test_a_defect_has_no_say(part, photograph, some_motions, rng):
    motions = some_motions(6, rng, 20, 8)
    images = photograph(part.repeat(6, 0), motions, 256)
    images[:, 90:130, 90:140] = 255
    reference = greys(photograph(part, some_motions(1, rng, 0), 256))[0]
    found, _ = Reference(reference, Limits(0.15, 15.0)).register(greys(images))
    errors = in_pixels(found, reference.shape, (256, 256)) - motions
    assert errors[:, :2].abs().median() < 0.25
    assert errors[:, 2].abs().median() < 0.2


def test_motions_beyond_the_limits_are_told():
    limits = Limits(0.1, 10.0, 1.1)
    motions = torch.tensor(
        [[12.0, 0, 0, 1], [0, -20, 0, 1], [0, 0, -9, 1], [0, 0, 14, 1], [0, 0, 0, 1.3]]
    )
    assert limits.allow(motions, (128, 128)).tolist() == [True, False, True, False, False]


def test_repetition_and_symmetry_are_seen(rng):
    rows, columns = np.mgrid[:64, :64]
    stripes = torch.tensor(np.sin(rows) * np.sin(columns), dtype=torch.float32)
    assert Reference(stripes, Limits(0.2)).looks_alike_at() > 0.9
    disc = torch.tensor(np.hypot(rows - 31.5, columns - 31.5) < 20, dtype=torch.float32)
    reference = Reference(disc, Limits(0.2, 15.0))
    assert reference.looks_alike_at() < 0
    assert reference.largest_turn(0.015) == 0
    assert Reference(disc.roll(9, 1), Limits(0.2, 15.0)).largest_turn(0.015) == 0
    box = torch.zeros(64, 64)
    box[20:44, 10:54] = 1
    assert Reference(box, Limits(0.2, 15.0)).largest_turn(0.015) == 15
    assert Reference(box, Limits(0.2, 180.0)).largest_turn(0.015) == pytest.approx(90, abs=1)
    assert not Reference(box, Limits(0.2)).slides(0.9)
    box[:, 10:] = box[:, 20:21]  # an end is in the picture
    assert not Reference(box.roll(16, 1), Limits(0.2)).slides(0.9)
    assert Reference(box[:, 10:], Limits(0.2)).slides(0.9)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    aslant = ((rows - 1.5 * columns).abs() < 12).float()
    assert Reference(aslant, Limits(0.2)).slides(0.9)


def test_nothing_to_see_is_no_error():
    reference = Reference(torch.rand(64, 64), Limits(0.1, 5.0))
    motions, peaks = reference.register(torch.zeros(2, 64, 64))
    assert peaks.tolist() == [0, 0]
    assert compose(motions, motions).isfinite().all()
