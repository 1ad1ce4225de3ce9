"""Large images: seen in tiles, and models that lie in files."""

import errno
import gc
import os
import weakref

import joblib
import numpy as np
import pytest
import torch

from skpadim import PadimDetector, PatchEmbedder
from skpadim.datasets import make_defects
from skpadim.machine import _file_memory

SIZE = 192


@pytest.fixture(scope="module")
def parts():
    return make_defects(12, 4, part="transistor", difficulty=0, image_size=SIZE, random_state=0)


@pytest.fixture(scope="module")
def good(parts):
    return parts.data[parts.target == 1]


@pytest.fixture
def in_files(monkeypatch):
    """Keep arrays in files, whatever their size, and count them."""
    made = []

    def empty_in_file(shape, dtype):
        made.append(shape)
        return _file_memory.empty_in_file(shape, dtype)

    monkeypatch.setattr("skpadim.machine._devices._LEAST_BYTES_IN_FILE", -1)
    monkeypatch.setattr("skpadim.machine._devices.empty_in_file", empty_in_file)
    monkeypatch.setattr("skpadim.machine._file_memory._MAX_RESIDENT_BYTES", 0)
    return made


def make(backbone="filter_bank", **parameters):
    defaults = {"image_size": SIZE, "random_state": 0, "tile_size": 96, "contamination": 0.1}
    return PadimDetector(backbone, **{**defaults, **parameters})


@pytest.mark.parametrize("backbone", ["filter_bank", "auto"])
def test_one_tile_is_the_whole_image(backbone, parts, good):
    detectors = [make(backbone, tile_size=size).fit(good) for size in (None, SIZE, 512)]
    maps = [detector.anomaly_map(parts.data[-3:]) for detector in detectors]
    np.testing.assert_allclose(maps[1], maps[0], rtol=1e-4)
    np.testing.assert_array_equal(maps[2], maps[1])


def test_no_seam_shows(parts, good):
    whole, tiled = (make("auto", tile_size=size).fit(good) for size in (None, 128))
    (expected,), (found,) = (each.anomaly_map(parts.data[-1:]) for each in (whole, tiled))
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.999
    assert np.abs(found - expected).max() < 0.05 * expected.max()
    for axis in (0, 1):  # the border between tiles is at 96
        steps, own = (np.abs(np.diff(each, axis=axis)) for each in (found - expected, expected))
        assert steps.mean(axis=1 - axis)[95] < 0.3 * own.mean(axis=1 - axis)[95]


def test_tiles_are_networks_inputs_by_themselves(good):
    tiled = PatchEmbedder("filter_bank", image_size=SIZE, tile_size=96, random_state=0).fit()
    embeddings = tiled.transform(good[:2])
    alone = PatchEmbedder("filter_bank", image_size=96, random_state=0).fit()
    corner = alone.transform(good[:2, :96, :96])
    # Patches of the first tile up to the middle of what it has in common with the next.
    np.testing.assert_allclose(embeddings[:, :8, :8], corner[:, :8, :8], atol=1e-5)
    assert embeddings.shape == (2, 24, 24, tiled.n_features_out_)


# Fewer images than features and more; with regularization="auto" all moments are read.
CASES = [
    {},
    {"n_features": 9},
    {"n_features": 9, "regularization": "auto"},
    {"sharing": "neighbourhood", "n_features": 9},
    {"sharing": "image"},
    {"precision": "bfloat16", "n_features": 9},
]


@pytest.mark.parametrize("parameters", CASES, ids=str)
def test_models_in_files_are_the_same(parameters, parts, good, in_files, monkeypatch, tmp_path):
    parameters = {**parameters, "image_size": 128}  # two tiles by two, one over the other
    found = make(**parameters, batch_size=3).fit(good)
    n_files = len(in_files)
    assert n_files > 0
    images = parts.data[-6:]
    scores = found.score_samples(images)
    assert len(in_files) > n_files or parameters.get("sharing") == "image"
    again = make(**parameters).partial_fit(good[:5]).partial_fit(good[5:])
    joblib.dump(found, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    np.testing.assert_array_equal(mapped.score_samples(images), scores)
    mapped.partial_fit(good[:1])  # what it reads is read-only
    monkeypatch.undo()
    expected = make(**parameters, batch_size=3).fit(good)
    assert len(in_files) > 0
    np.testing.assert_array_equal(expected.score_samples(images), scores)
    assert found.offset_ == expected.offset_
    np.testing.assert_allclose(again.score_samples(images), scores, rtol=1e-3)


def test_factors_of_a_mapped_model_lie_in_a_file_too(good, in_files, tmp_path):
    model = make(n_features=9, image_size=128).fit(good)
    joblib.dump(model, tmp_path / "model.joblib")
    mapped = joblib.load(tmp_path / "model.joblib", mmap_mode="r")
    n_files = len(in_files)
    mapped.score_samples(good[:1])
    assert len(in_files) == n_files + 1


def test_files_are_gone_with_the_model(in_files, good):
    gc.collect()  # what other tests have left
    before = len(list(_file_memory._mapped))
    model = make(n_features=9, image_size=128).fit(good)
    assert len(list(_file_memory._mapped)) > before
    del model
    gc.collect()
    assert len(list(_file_memory._mapped)) == before


def test_what_is_let_go_is_not_lost(monkeypatch):
    tensor = _file_memory.empty_in_file((1000, 1000), torch.float32)
    tensor.copy_(torch.arange(1_000_000.0).view(1000, 1000))
    assert _file_memory.is_in_file(tensor[5:7])
    assert not _file_memory.is_in_file(torch.zeros(3))
    monkeypatch.setattr("skpadim.machine._file_memory._MAX_RESIDENT_BYTES", 0)
    _file_memory.let_pages_go()
    assert tensor.sum(dtype=torch.float64).item() == sum(range(1_000_000))


def test_threads_may_add_files_while_others_look(monkeypatch):
    monkeypatch.setattr("skpadim.machine._file_memory._MAX_RESIDENT_BYTES", 0)
    tensors = [_file_memory.empty_in_file((1,), torch.float32)]
    mappings = _file_memory._mapped

    class AddsMore(weakref.WeakKeyDictionary):
        def __iter__(self):  # another thread adds some when this one has begun
            for mapping in super().__iter__():
                note_more()
                yield mapping

        def values(self):
            for value in super().values():
                note_more()
                yield value

    def note_more():
        tensors.append(_file_memory.empty_in_file((1,), torch.float32))

    monkeypatch.setattr(_file_memory, "_mapped", AddsMore(mappings.items()))
    assert not _file_memory.is_in_file(torch.zeros(3))
    _file_memory.let_pages_go()


def test_a_full_disk_is_told_in_words(good, in_files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    detector = make()
    with pytest.raises(OSError, match="temporary files in .* no room .* TMPDIR"):
        detector.fit(good)
    assert not hasattr(detector, "gaussian_")


def test_regions_take_the_tiles_that_they_lie_in(parts, good):
    roi = np.zeros((SIZE, SIZE), bool)
    roi[8:60, 100:180] = True
    detector = make(roi=roi).fit(good)
    assert len(detector.embedder_._windows) < len(make().fit(good).embedder_._windows)
    maps = detector.anomaly_map(parts.data)
    np.testing.assert_array_equal(np.isnan(maps[0]), ~roi)
    changed = np.where(roi[..., None], parts.data, 0)
    np.testing.assert_array_equal(detector.anomaly_map(changed), maps)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"image_size": 200}, r"image_size \(after crop_size\) is 200 x 200.*multiples of 32"),
        ({"tile_size": 100}, "tile_size is 100 x 100.*multiples of 32"),
        ({"tile_size": 1}, r"as \(64, 64\)"),
        ({"tile_size": 32}, "tile_size=32 is less than 64, twice the stride of layer3"),
        ({"tile_size": (96, 96, 96)}, "tile_size=.* pair"),
        ({"memory": "folder"}, "memory keeps no features of tiles"),
    ],
)
def test_what_does_not_suit_tiles_is_told(parameters, problem, good):
    with pytest.raises(ValueError, match=problem):
        make(**parameters).fit(good)


def test_memory_is_refused_after_the_fit_too(good, tmp_path):
    detector = make(image_size=128).fit(good).set_params(memory=tmp_path)
    with pytest.raises(ValueError, match="memory keeps no features of tiles"):
        detector.predict(good[:1])


def test_workers_are_not_needed(good):
    one, two = (make(n_jobs=n, batch_size=2, image_size=128).fit(good) for n in (None, 2))
    assert one.offset_ == two.offset_


def test_few_images_are_held_at_a_time(monkeypatch, good):
    embedder = make(image_size=128).fit(good).embedder_
    assert embedder.images_at_a_time == 32
    monkeypatch.setattr("skpadim.embedding._patch_embedder._MAX_BYTES_AT_A_TIME", 2**19)
    assert embedder.images_at_a_time == 1
