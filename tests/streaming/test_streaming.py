"""What a detector learns from its images, held once; and maps and embeddings in batches.

Iterators are served as they deliver, and images that cannot be read are named or skipped.
"""

import os
import pickle

import joblib
import numpy as np
import pytest
import torch
from PIL import Image

from skpadim import PatchEmbedder, UnreadableImageError
from skpadim.images._batches import Images
from skpadim.streaming._learning import image_digests, learn

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


@pytest.fixture(scope="module")
def paths(folder, tmp_path_factory):
    """Twelve image files, of which two cannot be read and one is not there."""
    root = tmp_path_factory.mktemp("some bad")
    images = sorted(folder.iterdir())[:12]
    for path in images:
        (root / path.name).write_bytes(path.read_bytes())
    paths = sorted(root.iterdir())
    paths[3].write_bytes(b"no image")
    paths[8].write_bytes(b"")
    paths[9].unlink()
    return paths


BAD = [3, 8, 9]


@pytest.fixture
def detector(make_detector, good):
    return make_detector(batch_size=4).fit(good)


@pytest.fixture
def embedder():
    return PatchEmbedder("filter_bank", image_size=64, crop_size=None, batch_size=4).fit()


def skipping(batches):
    """All rows of batches, and what was warned of."""
    with pytest.warns(UserWarning, match="is skipped") as caught:
        rows = np.concatenate([np.array(batch) for batch in batches])
    return rows, [str(warning.message) for warning in caught]


def check_skipped(rows, expected, messages, paths):
    good = np.setdiff1d(np.arange(12), BAD)
    np.testing.assert_allclose(rows[good], expected, rtol=1e-5)
    assert np.isnan(rows[BAD]).all()
    assert len(messages) == len(BAD)
    for index, message in zip(BAD, messages, strict=True):
        assert message.startswith(f"Image {index} ({paths[index]}) ")
        assert "is skipped" in message


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("kind", [list, iter])
def test_maps_of_unreadable_images_are_nan(detector, paths, n_jobs, kind):
    expected = detector.anomaly_map([path for i, path in enumerate(paths) if i not in BAD])
    detector.set_params(n_jobs=n_jobs)
    with joblib.parallel_config("threading"):
        maps, messages = skipping(detector.iter_anomaly_maps(kind(paths), on_error="skip"))
    check_skipped(maps, expected, messages, paths)


@pytest.mark.parametrize("with_memory", [False, True])
def test_embeddings_of_unreadable_images_are_nan(embedder, paths, with_memory, tmp_path):
    expected = embedder.transform([path for i, path in enumerate(paths) if i not in BAD])
    embedder.set_params(memory=tmp_path if with_memory else None)
    for _ in range(1 + with_memory):  # what was kept of the first time serves the second
        embeddings, messages = skipping(
            batch.numpy().copy() for batch in embedder.iter_embeddings(paths, on_error="skip")
        )
        check_skipped(embeddings, expected, messages, paths)


def test_arrays_that_are_no_images_are_skipped_too(detector, good):
    floats = good[:6] / 255
    floats[2, 0, 0] = np.nan
    maps, messages = skipping(detector.iter_anomaly_maps(floats, on_error="skip"))
    assert np.isnan(maps).any(axis=(1, 2)).tolist() == [False, False, True, False, False, False]
    np.testing.assert_allclose(maps[:2], detector.anomaly_map(floats[:2]), rtol=1e-5)
    assert messages[0].startswith("Image 2 has NaN")


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("kind", [list, iter])
def test_the_error_has_index_and_path(detector, paths, n_jobs, kind):
    detector.set_params(n_jobs=n_jobs)
    with (
        joblib.parallel_config("threading"),
        pytest.raises(
            UnreadableImageError, match=r"^Image 3 \(.*3\.png\) cannot be read"
        ) as caught,
    ):
        list(detector.iter_anomaly_maps(kind(paths)))
    error = pickle.loads(pickle.dumps(caught.value))  # as it comes from a worker
    assert (error.index, error.path) == (3, str(paths[3]))
    assert str(error) == str(caught.value)
    with pytest.raises(UnreadableImageError) as caught:
        detector.fit([*paths[10:], *paths[10:], paths[9]], [1, 1, -1, 1, 1])
    assert (caught.value.index, caught.value.path) == (4, str(paths[9]))


def test_an_unknown_way_with_errors_is_refused_at_once(detector, embedder, good):
    with pytest.raises(ValueError, match="on_error='ignore' must be 'raise' or 'skip'"):
        detector.iter_anomaly_maps(good, on_error="ignore")
    with pytest.raises(ValueError, match="on_error='ignore' must be 'raise' or 'skip'"):
        list(embedder.iter_embeddings(good, on_error="ignore"))


class Belt:
    """An iterator that tells how many images were taken from it."""

    def __init__(self, images):
        self.images, self.n_taken = iter(images), 0

    def __iter__(self):
        return self

    def __next__(self):
        image = next(self.images)
        self.n_taken += 1
        return image


def test_an_iterator_gives_maps_as_it_delivers(detector, good):
    belt = Belt(good[:10])
    taken = []
    maps = []
    for batch in detector.iter_anomaly_maps(belt):
        taken.append(belt.n_taken)
        maps.append(batch)
    assert taken == [4, 8, 10]
    np.testing.assert_allclose(np.concatenate(maps), detector.anomaly_map(good[:10]), rtol=1e-5)


def test_an_iterator_gives_embeddings_as_it_delivers(embedder, good):
    belt = Belt(map(Image.fromarray, good[:10]))
    taken, embeddings = [], []
    for batch in embedder.iter_embeddings(belt):
        taken.append(belt.n_taken)
        embeddings.append(batch.numpy().copy())
    assert taken == [4, 8, 10]
    expected = embedder.transform(good[:10])
    np.testing.assert_allclose(np.concatenate(embeddings), expected, rtol=1e-6)


def test_batches_of_an_iterator_fill_the_rows_in_turn(embedder, good):
    out = embedder.new_embeddings(8)
    batches = embedder.iter_embeddings(iter(good[:10]), out=out)
    starts = [batch.data_ptr() for batch in batches]
    assert starts == [out[0].data_ptr(), out[4].data_ptr(), out[0].data_ptr()]


def test_with_workers_an_iterator_is_not_exhausted_either(detector, good):
    belt = Belt(np.tile(good, (20, 1, 1, 1)))
    detector.set_params(n_jobs=2)
    with joblib.parallel_config("threading"):
        batches = detector.iter_anomaly_maps(belt)
        next(batches)
        assert belt.n_taken <= 2 * 8 * 4
        batches.close()


def test_an_endless_iterator_is_served(detector, good):
    def camera():
        while True:
            yield good[0]

    batches = detector.iter_anomaly_maps(camera())
    assert [len(next(batches)) for _ in range(3)] == [4, 4, 4]


def test_what_is_no_image_is_called_by_its_place_in_the_iterator(detector, good):
    with pytest.raises(TypeError, match=r"X\[5\] is a NoneType"):
        list(detector.iter_anomaly_maps(iter([*good[:5], None]), on_error="skip"))
    with pytest.raises(ValueError, match="X has 0 images"):
        list(detector.iter_anomaly_maps(iter([])))
