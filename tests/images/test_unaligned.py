"""Images turned and cropped at random: where they show what, and that nothing else decides it."""

import pickle

import numpy as np
import pytest
from PIL import Image

from skpadim.images._masks import UnalignedMask, read_mask
from skpadim.images._read import read_image
from skpadim.images._unaligned import UnalignedImage, unaligned_images


@pytest.fixture
def path(tmp_path):
    """A grey image, red in a square at its right."""
    pixels = np.full((300, 400, 3), 90, np.uint8)
    pixels[120:180, 280:340] = 250, 0, 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.fixture
def mask_path(path, tmp_path):
    is_red = np.asarray(Image.open(path))[..., 0] > 200
    Image.fromarray(is_red).save(tmp_path / "mask.png")
    return str(tmp_path / "mask.png")


def test_an_image_is_turned_about_its_centre_and_cropped(path):
    for seed in range(5):
        image = UnalignedImage(path, "a.png", seed)
        angle, top, left = image.motion
        pixels = np.asarray(image)
        assert pixels.shape == image.shape == (224, 224, 3)
        assert pixels.dtype == np.uint8
        rows, columns = np.nonzero(pixels[..., 0] > 200)
        # 70.4 pixels right of the centre, of 256 x 256; counter-clockwise, that rises.
        turned = 70.4 * np.exp(-1j * np.deg2rad(angle))
        expected = np.array([128 + turned.imag - top, 128 + turned.real - left])
        np.testing.assert_allclose([rows.mean() + 0.5, columns.mean() + 0.5], expected, atol=0.7)


def test_motions_fill_their_limits_and_what_lies_outside_is_black(path):
    motions = np.array([UnalignedImage(path, "a.png", seed).motion for seed in range(300)])
    np.testing.assert_allclose(motions.min(axis=0), [-10, 0, 0], atol=0.3)
    np.testing.assert_allclose(motions.max(axis=0), [10, 32, 32], atol=0.3)
    seed = int(np.argmax(np.abs(motions[:, 0]) - motions[:, 1:].sum(axis=1)))
    corner = np.asarray(UnalignedImage(path, "a.png", seed))[0, 0]
    np.testing.assert_array_equal(corner, 0)


def test_the_seed_and_the_name_decide_and_nothing_else(path, tmp_path):
    other = tmp_path / "moved" / "deep"
    other.mkdir(parents=True)
    names = ["x/1.png", "x/2.png"]
    here = unaligned_images([tmp_path / name for name in names], tmp_path, 3)
    there = unaligned_images([other / name for name in reversed(names)], str(other), 3)
    assert [image.motion for image in here] == [image.motion for image in reversed(there)]
    assert here[0].motion != here[1].motion
    assert here[0].motion != unaligned_images([tmp_path / names[0]], tmp_path, 4)[0].motion
    again = pickle.loads(pickle.dumps(here[0]))
    assert again == here[0]
    assert again.motion == here[0].motion


def test_a_mask_moves_as_its_image_does(path, mask_path):
    for seed in range(5):
        image = UnalignedImage(path, "a.png", seed)
        mask = np.asarray(UnalignedMask(mask_path, image))
        is_red = np.asarray(image)[..., 0] > 170
        assert mask.dtype == bool
        assert (mask & is_red).sum() > 0.95 * (mask | is_red).sum()


def test_a_mask_without_a_defect_is_told_and_a_crop_may_leave_none(path, mask_path, tmp_path):
    image = UnalignedImage(path, "a.png", 0, crop=(20, 20))  # of some place without the square
    assert not read_mask(UnalignedMask(mask_path, image), 0).any()
    Image.new("L", (400, 300)).save(mask_path)
    with pytest.raises(ValueError, match=r"masks\[7\] .*mask.png\) has no anomalous pixel"):
        read_mask(UnalignedMask(mask_path, image), 7)
    Image.new("L", (40, 30), 255).save(mask_path)
    with pytest.raises(ValueError, match=r"masks\[7\] .*mask.png\) is 30 x 40 pixels"):
        read_mask(UnalignedMask(mask_path, image), 7)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_and_deep_images_are_read_as_the_library_reads_them(tmp_path, rng, dtype):
    pixels = rng.integers(0, np.iinfo(dtype).max, size=(64, 64), dtype=dtype)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = UnalignedImage(str(tmp_path / "a.png"), "a", 0, size=(64, 64), crop=(56, 56))
    assert np.asarray(image).dtype == dtype
    assert np.asarray(image).shape == (56, 56, 3)
    found, whole = read_image(image), read_image(image.path)
    assert found.dtype == whole.dtype
    assert abs(found.double().mean() / whole.double().mean() - 1) < 0.1  # some corners are black


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a.png is empty \(0 bytes\)"):
        np.asarray(UnalignedImage(str(tmp_path / "a.png"), "a", 0))
