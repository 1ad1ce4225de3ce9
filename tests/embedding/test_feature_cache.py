"""Features that are kept: what `memory` promises to one process; test_parallel.py has several."""

import errno
import os
import pickle
import sys
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV
from torch import nn

from skpadim import PadimDetector, PatchEmbedder
from skpadim.backbones import ModuleBackbone
from skpadim.embedding import _feature_cache
from skpadim.embedding._fingerprint import digest_backbone
from skpadim.embedding._network import iter_maps
from skpadim.model_selection import NormalFold

SETTINGS = {"image_size": 64, "crop_size": None, "random_state": 0, "batch_size": 4}


@pytest.fixture
def computed(monkeypatch):
    """Numbers of images that went through a network, call by call."""
    counts = []

    def count(network, pixels, device):
        counts.append(len(pixels))
        return iter_maps(network, pixels, device)

    for module in ("_cached_maps", "_patch_embedder"):
        monkeypatch.setattr(f"skpadim.embedding.{module}.iter_maps", count)
    return counts


@pytest.fixture
def paths(folder):
    return sorted(folder.iterdir())[:6]


def _embedder(backbone="filter_bank", **parameters):
    return PatchEmbedder(backbone, **{**SETTINGS, **parameters})


def _network(bias=0.0):
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Conv2d(4, 8, 3, stride=2))
    for number, parameter in enumerate(network.parameters()):
        nn.init.constant_(parameter, 0.1 * (number + 1) + bias)
    return network


def _files(folder):
    return sorted(
        path for path in Path(folder).rglob("*") if path.is_file() and "skpadim" in str(path)
    )


@pytest.mark.parametrize("projection", ["random", "semi_orthogonal"])
@pytest.mark.parametrize("backbone", ["filter_bank", "resnet18"])
def test_an_image_goes_through_the_network_once(tmp_path, paths, computed, backbone, projection):
    weights = "imagenet" if backbone == "filter_bank" else None
    for layers in ("auto", ("layer1",), ("layer2", "layer3")):
        parameters = {"layers": layers, "projection": projection, "weights": weights}
        expected = _embedder(backbone, **parameters).fit_transform(paths)
        computed.clear()
        got = _embedder(backbone, **parameters, memory=tmp_path).fit_transform(paths)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert sum(computed) == (len(paths) if layers == "auto" else 0)


def test_a_search_puts_each_image_through_the_network_once(
    tmp_path, parts, make_detector, computed
):
    grid = {"layers": [("layer1",), ("layer1", "layer2"), ("layer2", "layer3")], "n_features": [8]}
    searches = {}
    for memory in (None, tmp_path):
        computed.clear()
        search = GridSearchCV(
            make_detector(memory=memory, contamination=0.2),
            grid,
            cv=NormalFold(3),
            scoring="roc_auc",
        )
        searches[memory] = search.fit(parts.data, parts.target)
    assert sum(computed) == len(parts.data)
    for name in ("mean_test_score", "split0_test_score"):
        np.testing.assert_allclose(
            searches[tmp_path].cv_results_[name], searches[None].cv_results_[name], atol=1e-6
        )
    plain, kept = (searches[memory].best_estimator_ for memory in (None, tmp_path))
    assert kept.offset_ == pytest.approx(plain.offset_, rel=1e-5)


def test_found_by_content_not_by_name(tmp_path, paths, computed):
    embedder = _embedder(memory=tmp_path / "memory").fit()
    expected = embedder.transform(paths)
    computed.clear()
    copies = [tmp_path / f"copy_{path.name}" for path in paths]
    for path, copy in zip(paths, copies, strict=True):
        copy.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(embedder.transform(copies), expected)
    assert not computed
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(copies[2])  # another image, same name
    changed = embedder.transform(copies)
    assert computed == [1]
    np.testing.assert_array_equal(changed, _embedder().fit().transform(copies))


def test_images_of_all_kinds_are_kept(tmp_path, parts, computed):
    embedder = _embedder(memory=tmp_path).fit()
    floats = (parts.data[:3] / 255).astype(np.float32)
    for images in (parts.data[:3], [Image.fromarray(image) for image in parts.data[3:5]], floats):
        expected = _embedder().fit_transform(images)
        for _ in range(2):
            np.testing.assert_allclose(embedder.transform(images), expected, atol=1e-6)
    assert sum(computed) == 2 * 3 + 2 * 2 + 2 * 3  # here and where nothing is kept


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": 96},
        {"crop_size": 48},
        {"precision": "bfloat16"},
        {"backbone": _network(0.5)},
        {"backbone": ModuleBackbone(_network(), ["0", "2"], mean=(0, 0, 0))},
        {"layers": ["1", "2"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_features_is_not_taken_from_before(tmp_path, paths, changes):
    settings = {"backbone": _network(), "layers": ["0", "2"]}
    _embedder(**settings, memory=tmp_path).fit_transform(paths)
    changed = {**settings, **changes}
    if isinstance(changed["backbone"], ModuleBackbone):
        changed["layers"] = tuple(changed["backbone"].layers)
    expected = _embedder(**changed).fit_transform(paths)
    got = _embedder(**changed, memory=tmp_path).fit_transform(paths)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_changed_weights_in_a_file_of_the_same_name(tmp_path, paths):
    import torch
    from torchvision.models import resnet18

    weights = tmp_path / "weights.pth"
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(resnet18().state_dict(), weights)
        parameters = {"backbone": "resnet18", "weights": weights, "layers": ("layer1", "layer2")}
        expected = _embedder(**parameters).fit_transform(paths)
        got = _embedder(**parameters, memory=tmp_path / "memory").fit_transform(paths)
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("damage", ["empty", "short", "long", "flipped", "another format"])
def test_damaged_entries_are_computed_again(tmp_path, paths, computed, damage):
    embedder = _embedder(memory=tmp_path).fit()
    expected = embedder.transform(paths)
    undamaged = [path.read_bytes() for path in _files(tmp_path)]
    for path, content in zip(_files(tmp_path), undamaged, strict=True):
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        path.write_bytes(
            {
                "empty": b"",
                "short": content[:-4],
                "long": content + b"0000",
                "flipped": bytes(flipped),
                "another format": b"skpadim0" + content[8:],
            }[damage]
        )
    computed.clear()
    np.testing.assert_array_equal(embedder.transform(paths), expected)
    assert sum(computed) == len(paths)
    computed.clear()
    np.testing.assert_array_equal(embedder.transform(paths), expected)
    assert not computed


def test_a_file_that_is_being_written_is_nobody_s_left_over(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    replace, n_locked = os.replace, 0

    def replace_locked(part, target):
        nonlocal n_locked
        with open(part) as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        n_locked += 1
        replace(part, target)

    monkeypatch.setattr(os, "replace", replace_locked)
    _feature_cache._write_map(tmp_path / "map.safetensors", torch.ones(2, 3))
    assert n_locked == 1


def test_a_full_disk_is_warned_of_and_does_no_harm(tmp_path, paths, monkeypatch):
    expected = _embedder().fit_transform(paths)
    embedder = _embedder(memory=tmp_path).fit()
    kept = _files(tmp_path)

    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_feature_cache.os, "replace", no_space)
    with pytest.warns(UserWarning, match="memory: features cannot be kept in .*No space") as caught:
        got = embedder.transform(paths)
    assert len(caught) == 1
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert _files(tmp_path) == kept


@pytest.mark.parametrize("kind", ["file", "below a file", "no folder"])
def test_memory_that_is_no_folder(tmp_path, paths, kind):
    (tmp_path / "file").write_text("")
    memory = {
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "memory",
        "no folder": joblib.Memory(None),
    }[kind]
    with pytest.raises(ValueError, match="memory=.* is no folder that features can be kept in"):
        _embedder(memory=memory).fit_transform(paths)


def test_memory_of_another_type():
    with pytest.raises(ValueError, match="'memory' parameter of PatchEmbedder must be"):
        _embedder(memory=3).fit()


def test_a_joblib_memory_bounds_and_clears_what_is_kept(tmp_path, paths, computed):
    memory = joblib.Memory(tmp_path, verbose=0)
    embedder = _embedder(memory=memory).fit()
    expected = embedder.transform(paths)
    assert _files(tmp_path)
    memory.reduce_size(bytes_limit=0)
    assert not _files(tmp_path)
    computed.clear()
    np.testing.assert_array_equal(embedder.transform(paths), expected)
    assert sum(computed) == len(paths)


def test_a_fitted_detector_travels_without_the_folder(tmp_path, good, parts):
    detector = PadimDetector("resnet18", weights=None, memory=tmp_path, **SETTINGS).fit(good)
    plain = PadimDetector("resnet18", weights=None, **SETTINGS).fit(good)
    expected = plain.score_samples(parts.data)
    np.testing.assert_allclose(detector.score_samples(parts.data), expected, rtol=1e-4)
    file = pickle.dumps(detector.set_params(memory=None))
    assert len(file) < 1.02 * len(pickle.dumps(plain))  # the network is cut
    np.testing.assert_allclose(pickle.loads(file).score_samples(parts.data), expected, rtol=1e-4)
    np.testing.assert_allclose(detector.score_samples(parts.data), expected, rtol=1e-4)


def test_memory_given_after_a_fit(tmp_path, good, parts, computed):
    detector = PadimDetector("filter_bank", **SETTINGS).fit(good)
    expected = detector.score_samples(parts.data)
    detector.set_params(memory=tmp_path)
    for _ in range(2):
        computed.clear()
        np.testing.assert_allclose(detector.score_samples(parts.data), expected, rtol=1e-5)
    assert not computed


def test_unreadable_images_are_named(tmp_path, paths):
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:100])
    embedder = _embedder(memory=tmp_path / "memory").fit()
    for path, message in ((broken, "cannot be read"), (tmp_path / "none.png", "does not exist")):
        with pytest.raises(ValueError, match=rf"Image 1 \(.*{path.name}\) {message}"):
            embedder.transform([paths[0], path])


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_half_way(tmp_path, parts, folder, make_detector, start_process):
    program = (
        "import os\n"
        "from skpadim import PadimDetector\nfrom skpadim.embedding import _feature_cache\n"
        "replace, done = os.replace, []\n"
        "def stop(*names):\n"
        "    if len(done) == 20:\n"
        "        open(sys.argv[3], 'w').close()\n"
        "        import time; time.sleep(60)\n"
        "    done.append(replace(*names))\n"
        "_feature_cache.os.replace = stop\n"
        "PadimDetector('filter_bank', image_size=64, crop_size=None, random_state=0, batch_size=8,"
        " memory=sys.argv[2]).fit(sys.argv[1])\n"
    )
    process = start_process(program, folder, tmp_path, tmp_path / "half-way")
    while not (tmp_path / "half-way").exists():
        assert process.is_alive()
        time.sleep(0.001)
    process.kill()
    process.join()
    assert len(_files(tmp_path)) >= 20
    assert len(list(tmp_path.rglob(".skpadim-*"))) == 1
    expected = make_detector().fit(folder).score_samples(parts.data)
    got = make_detector(memory=tmp_path).fit(folder).score_samples(parts.data)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert not list(tmp_path.rglob(".skpadim-*"))  # what was half written is gone


class _Scaled(nn.Module):
    def __init__(self, factor, activation=nn.functional.relu):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, stride=4)
        nn.init.ones_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)
        self.factor, self.activation = factor, activation

    def forward(self, images):
        return self.activation(self.convolution(images)) * self.factor


def _digest(*args, layers=("convolution",)):
    return digest_backbone(ModuleBackbone(_Scaled(*args), layers))


def test_fingerprints_tell_networks_apart():
    names = [lambda x: x + 1, lambda x: x + 2]
    shifts = [lambda x, by=by: x + by for by in (1, 2)]
    different = [_digest(1.0), _digest(2.0), _digest(1.0, nn.functional.silu)]
    different += [_digest(1.0, activation) for activation in names + shifts]
    assert len(set(different)) == len(different)
    assert _digest(1.0) == _digest(1.0)
    assert _digest(1.0, names[0]) == _digest(1.0, names[0])


def test_no_warnings_in_normal_use(tmp_path, paths):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _embedder(memory=str(tmp_path)).fit_transform(paths)
