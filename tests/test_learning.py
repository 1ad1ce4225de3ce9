"""What a detector learns from its images: held once, and never what cannot be scored."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from skpadim._learning import image_digests, learn
from skpadim.images._batches import Images

# Enough images for moments, and so few that they are kept.
COUNTS = pytest.mark.parametrize("n", [6, 20])


class Overflowing(torch.nn.Module):
    """Three features a pixel; those of white ones are too large."""

    class Layer(torch.nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            x = torch.nn.functional.avg_pool2d(x, 4)
            return torch.where(x > 2, x * self.factor, x)

    def __init__(self, factor):
        super().__init__()
        self.layer1 = self.Layer(factor)

    def forward(self, x):
        return self.layer1(x)


def test_embeddings_that_nobody_else_holds_are_not_copied(good, make_detector):
    embedder = make_detector()._make_embedder().fit()
    learned = learn(embedder, Images(good[:5]), None)
    assert learned.state.rows.data_ptr() == learned.embeddings.data_ptr()


@COUNTS
def test_images_that_change_after_a_fit_change_nothing(good, make_detector, n):
    given = good[:n].copy()
    detector = make_detector(calibration=None).fit(given)
    in_parts = make_detector().partial_fit(given[:4]).partial_fit(given[4:])
    np.testing.assert_array_equal(given, good[:n])
    given[:] = 0
    expected = make_detector(calibration=None).fit(good[:n])
    np.testing.assert_array_equal(
        detector.score_samples(good[:3]), expected.score_samples(good[:3])
    )
    np.testing.assert_allclose(
        in_parts.score_samples(good[:3]), expected.score_samples(good[:3]), rtol=1e-5
    )


@COUNTS
@pytest.mark.parametrize("calibration", [None, "training", "leave_one_out"])
def test_a_detector_that_could_not_score_is_not_fitted(make_detector, n, calibration):
    black = np.zeros((n, 64, 64), np.uint8)
    detector = make_detector(regularization=0.0, calibration=calibration, contamination=0.4)
    before = pickle.dumps(detector)
    with pytest.raises(ValueError, match="Use a larger regularization"):
        detector.fit(black)
    assert pickle.dumps(detector) == before
    detector.partial_fit(black)
    for call in (detector.score_samples, detector.anomaly_map, detector.calibrate):
        with pytest.raises(ValueError, match=f"cannot be scored.*n_samples={n}") as raised:
            call(black)
        assert not isinstance(raised.value, np.linalg.LinAlgError)


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e37])
def test_features_without_distances_in_float32_are_an_error(make_detector, factor):
    dark = np.random.default_rng(0).uniform(0, 0.5, size=(8, 64, 64)).astype(np.float32)
    white = np.ones((2, 64, 64), np.float32)
    options = {"layers": ("layer1",), "n_features": None, "calibration": None}
    detector = make_detector(Overflowing(factor), **options).fit(dark)
    assert np.isfinite(detector.score_samples(dark)).all()
    for call in (detector.score_samples, detector.anomaly_map):
        with pytest.raises(ValueError, match="NaN or infinite: features that the backbone"):
            call(white)
    if not np.isfinite(factor):
        with pytest.raises(ValueError, match="embeddings of the training samples are NaN"):
            detector.fit(np.concatenate([dark, white]))


def test_images_of_a_tensor_have_the_digests_that_they_have_alone():
    images = torch.randint(0, 255, (30, 3, 201, 151), dtype=torch.uint8)
    np.testing.assert_array_equal(image_digests(images), image_digests(list(images)))


def test_files_are_told_by_all_of_their_content(tmp_path):
    paths = []
    for index in range(40):  # with white borders of more than 16 KB
        pixels = np.full((200, 300, 3), 255, dtype=np.uint8)
        pixels[100, index] = 0
        paths.append(tmp_path / f"{index}.bmp")
        Image.fromarray(pixels).save(paths[-1])
    digests = image_digests(paths)
    assert len(set(digests.tolist())) == 40
    (tmp_path / "other.bmp").write_bytes(paths[3].read_bytes())
    assert image_digests([str(tmp_path / "other.bmp")]) == digests[3]


def test_images_of_any_make_have_digests():
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 7), dtype=np.uint16)
    makes = [
        pixels, pixels.astype(">u2"), pixels.astype(np.longdouble), torch.from_numpy(pixels),
        Image.fromarray(pixels), pixels[::-1].copy()[::-1],
    ]  # fmt: skip
    assert len(set(image_digests(makes).tolist())) == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="of files that Windows does not have")
def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png is a pipe, socket or device"):
        image_digests([tmp_path / "pipe.png"])
