"""A network of one's own as the backbone."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from skpadim.backbones import Backbone, Layer, ModuleBackbone, load_backbone


class Branching(nn.Module):
    """A network whose layers have names of their own, and one that is never run."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.BatchNorm2d(6), nn.ReLU())
        self.deep = nn.Conv2d(6, 7, 2, 2)
        self.head = nn.Linear(7, 2)
        self.unused = nn.Linear(1, 1)

    def forward(self, x):
        return self.head(self.deep(self.stem(x)).mean((2, 3)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Branching()
    # Statistics that folding must take into account.
    network.stem[1].running_mean.uniform_(-1, 1)
    network.stem[1].running_var.uniform_(0.5, 2)
    return network


def test_named_layers_end_to_end(network, good, make_detector):
    detector = make_detector(network, layers=("stem", "deep")).fit(good)
    assert detector.backbone_ == "Branching"
    assert detector.gaussian_.n_features_in_ == 13
    assert detector.embedder_.grid_ == (16, 16)
    assert network.training  # the user's own module is left as it was


def n_weights(module):
    return sum(tensor.numel() for tensor in module.parameters())


def test_weights_that_are_not_needed_are_left_out(network):
    backbone = ModuleBackbone(network, ("stem", "deep"))
    images = torch.randn(2, 3, 40, 48)
    for layers, n_left in ((("stem", "deep"), 2), (("stem",), 1)):
        cut = backbone.cut(layers)
        parts = cut.module.stem, cut.module.deep, cut.module.head, cut.module.unused
        assert [n_weights(part) > 0 for part in parts] == [i < n_left for i in range(4)]
        for shorter in (cut, pickle.loads(pickle.dumps(cut)), cut.cut(layers[:1])):
            names = tuple(shorter.layers)
            for got, want in zip(shorter(images, names), backbone(images, names), strict=True):
                assert torch.equal(got, want)
    assert n_weights(backbone) == n_weights(network)


class Borrowing(nn.Module):
    """Uses weights of submodules that never run, or not yet."""

    def __init__(self):
        super().__init__()
        self.stem, self.last = nn.Conv2d(3, 4, 4, 4), nn.Identity()
        self.never, self.later = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head, self.scale = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.head.weight = self.later.weight
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, x):
        maps = self.stem(x)
        rows = maps.flatten(2).transpose(1, 2)
        rows = self.attention(rows, rows, rows)[0] + nn.functional.linear(rows, self.never.weight)
        rows = self.later(rows) * float(self.scale.running_var[0])
        return self.head(self.last(rows.transpose(1, 2).unflatten(2, maps.shape[2:])).mean((2, 3)))


def test_weights_that_are_borrowed_are_kept():
    torch.manual_seed(0)
    backbone = ModuleBackbone(Borrowing(), ("last",))
    images = torch.randn(2, 3, 40, 48)
    cut = backbone.cut(("last",))
    assert torch.equal(cut(images, ("last",))[0], backbone(images, ("last",))[0])
    assert n_weights(cut) < n_weights(backbone)


def test_a_torchvision_network_of_ones_own_equals_the_named_one(good, make_detector):
    named = load_backbone("resnet18", weights=None)
    network = torchvision.models.resnet18(weights=None)
    network.load_state_dict(named.module.state_dict())
    images = torch.randn(1, 3, 64, 64)
    layers = ("layer1", "layer2", "layer3")
    for got, want in zip(
        ModuleBackbone(network)(images, layers), named(images, layers), strict=True
    ):
        assert torch.equal(got, want)


def test_normalisation_is_the_backbones(network, good, make_detector):
    scores = [
        make_detector(ModuleBackbone(network, ("stem",), mean=mean, std=std), layers=("stem",))
        .fit(good)
        .score_samples(good)
        for mean, std in [((0, 0, 0), (1, 1, 1)), ((0.5, 0.5, 0.5), (0.1, 0.1, 0.1))]
    ]
    assert not np.allclose(*scores)


def test_layers_are_sorted_from_fine_to_coarse(network):
    assert list(ModuleBackbone(network, ("deep", "stem")).layers) == ["stem", "deep"]


def test_channels_last_outputs_are_turned():
    class Permuted(nn.Sequential):
        pass

    class Turn(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    network = nn.Sequential(nn.Conv2d(3, 5, 4, 4), Turn())
    backbone = ModuleBackbone(network, ("1",))
    images = torch.randn(1, 3, 32, 40)
    assert torch.equal(backbone(images, ("1",))[0], network[0](images))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("auto", "no submodule 'layer1', 'layer2', 'layer3'.*among .*'stem', 'deep'"),
        (("stem", "top"), "no submodule 'top'"),
        (("head",), "Layer 'head' of Branching does not return a feature map"),
        (("unused",), "never runs the layers .*unused"),
        (("deep", "stem"), "fine to coarse"),
    ],
)
def test_bad_layers_are_refused(network, good, make_detector, layers, message):
    with pytest.raises(ValueError, match=message):
        make_detector(network, layers=layers).fit(good)


def test_a_network_for_one_size_only_is_refused():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    with pytest.raises(ValueError, match="Sequential does not run on images of 224 x 288"):
        ModuleBackbone(network, ("1",))


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="backbone=3 must be a name, a Backbone or a torch"):
        load_backbone(3)


def test_an_in_place_module_does_not_overwrite_the_layer_before_it():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, 2)
    ).eval()
    images = torch.randn(2, 3, 40, 48)
    expected = network[1](network[0](images))
    backbone = ModuleBackbone(network, ("1", "3"))
    for variant in (backbone, backbone.cut(("1", "3"))):
        torch.testing.assert_close(variant(images, ("1", "3"))[0], expected)


def test_images_are_not_overwritten():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3, 2))
    images = torch.randn(2, 3, 40, 48)
    before = images.clone()
    ModuleBackbone(network, ("1",))(images, ("1",))
    assert torch.equal(images, before)


class Dropping(Backbone):
    """A backbone of one's own that would be random in training mode."""

    name, layers = "dropping", {"layer1": Layer(4, 4)}

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 4, 4)

    def forward(self, images, layers):
        return [nn.functional.dropout(self.convolution(images), training=self.training)]


def test_a_backbone_of_ones_own_is_frozen_in_a_copy(good, make_detector):
    backbone = Dropping()
    detector = make_detector(backbone, layers="layer1").fit(good)
    scores = detector.score_samples(good)
    with torch.no_grad():
        backbone.convolution.weight.mul_(3)
    np.testing.assert_array_equal(detector.score_samples(good), scores)
    assert backbone.training


class Tokens(nn.Module):
    """A transformer in small: a class token and one for each patch of 14 x 14 pixels."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 14, 14)
        self.first = nn.Parameter(torch.ones(1, 1, 6))
        self.block = nn.Linear(6, 6)

    def forward(self, x):
        assert x.shape[2] % 14 == x.shape[3] % 14 == 0, "not a multiple of the patch"
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.block(torch.cat([self.first.expand(len(x), -1, -1), tokens], 1))


def test_tokens_become_maps_without_the_first(good, make_detector):
    torch.manual_seed(0)
    backbone = ModuleBackbone(Tokens(), ("block",), patch_size=14, n_prefix_tokens=1)
    assert backbone.layers == {"block": Layer(6, 14)}
    images = torch.randn(2, 3, 28, 42)
    patches = backbone.module.patches(images)
    expected = backbone.module.block(patches.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    for variant in (backbone, pickle.loads(pickle.dumps(backbone.cut(("block",))))):
        torch.testing.assert_close(variant(images, ("block",))[0], expected)
    detector = make_detector(backbone, layers="block", image_size=70).fit(good)
    assert detector.embedder_.grid_ == (5, 5)
    with pytest.raises(ValueError, match="image_size=64: Tokens cannot .*image_size=56 or 70"):
        make_detector(backbone, layers="block").fit(good)


class Unchecked(Tokens):
    def forward(self, x):
        return super().forward(x[:, :, : x.shape[2] // 14 * 14, : x.shape[3] // 14 * 14])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"returns 321 tokens, shape \(1, 321, 6\).*patch_size=..., n_prefix_tokens=..."),
        ({"patch_size": 14}, "makes 16 x 20 patches.*Use n_prefix_tokens=1 if"),
        ({"patch_size": 7}, "makes 32 x 41 patches.*Use a larger patch_size"),
        ({"patch_size": 0}, "patch_size=0 must be a number of pixels, or a pair"),
    ],
)
def test_tokens_that_are_not_those_of_the_patches_are_told(parameters, message):
    with pytest.raises(ValueError, match=message):
        ModuleBackbone(Unchecked(), ("block",), **parameters)
    with pytest.raises(ValueError, match=r"(?s)multiple of the patch.*\. A vision .* patch_size"):
        ModuleBackbone(Tokens(), ("block",))
