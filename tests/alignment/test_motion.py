import pytest
import torch

from skpadim.alignment._motion import about, are_inside, compose, inverse, no_motion, places, sample


def test_a_motion_says_where_things_go():
    image = torch.zeros(1, 1, 40, 60)
    image[0, 0, 19, 39] = 1  # ten pixels right of the middle, about
    turn = torch.tensor([[0.0, 0.0, 90.0, 1.0]])
    moved = sample(image, places(inverse(turn), (40, 60)))[0, 0]
    assert divmod(int(moved.argmax()), 60) == (10, 29)  # counter-clockwise: above it
    down = torch.tensor([[5.0, -3.0, 0.0, 1.0]])
    moved = sample(image, places(inverse(down), (40, 60)))[0, 0]
    assert divmod(int(moved.argmax()), 60) == (24, 36)
    back = sample(moved[None, None], places(down, (40, 60)))
    torch.testing.assert_close(back, image, atol=1e-4, rtol=0)


def test_motions_are_undone_and_composed(rng, some_motions):
    one, other = some_motions(5, rng, 9, 40, 1.3), some_motions(5, rng, 9, 40, 1.3)
    torch.testing.assert_close(compose(one, inverse(one)), no_motion(5), atol=1e-4, rtol=0)
    there = places(inverse(compose(one, other)), (64, 64))
    # The same places, found in two steps.
    x, y = places(inverse(other), (64, 64)).unbind(-1)
    steps = torch.stack([y, x], -1).flatten(1, 2) * 32
    first = inverse(one)
    angle = torch.deg2rad(first[:, 2])
    cos, sin = (first[:, 3] * f(angle) for f in (torch.cos, torch.sin))
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    steps = torch.einsum("nij,nkj->nki", turn, steps) + first[:, None, :2]
    torch.testing.assert_close(there.flip(-1).flatten(1, 2) * 32, steps, atol=1e-3, rtol=0)


def test_a_motion_about_another_centre_is_the_same():
    motions = torch.tensor([[3.0, -2.0, 30.0, 1.1]])
    whole = places(motions, (9, 9))[0].flip(-1) * 4.5  # rows and columns from the centre
    part = places(about(motions, (-0.5, -0.5)), (8, 8))[0].flip(-1) * 4
    # The part is all but the last row and column, so its centre is half a pixel before.
    torch.testing.assert_close(part - 0.5, whole[:8, :8], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("shift", "share"), [(0, 1), (16, 0.75), (64, 0)])
def test_what_lies_outside_is_known(shift, share):
    motions = torch.tensor([[float(shift), 0.0, 0.0, 1.0]])
    assert are_inside(places(motions, (64, 64))).float().mean() == pytest.approx(share, abs=0.02)
