"""Maps and embeddings in batches: iterators as they deliver, and images that cannot be read."""

import pickle

import joblib
import numpy as np
import pytest
from PIL import Image

from skpadim import PatchEmbedder, UnreadableImageError


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
