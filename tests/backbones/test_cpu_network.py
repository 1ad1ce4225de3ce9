"""Networks with convolutions of our own give what they gave without."""

import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck, resnet18

from skpadim import PatchEmbedder
from skpadim.backbones import ModuleBackbone, _cpu_network, load_backbone
from skpadim.backbones._backbone import Backbone, Layer
from skpadim.backbones._cpu_network import with_winograd
from skpadim.backbones._low_precision import with_low_precision_weights
from skpadim.backbones._residual import FoldedBlock
from skpadim.backbones._winograd import WinogradConv2d

LAYERS = ("layer1", "layer2", "layer3")

pytestmark = pytest.mark.usefixtures("compiled_loops")


def relative_error(outputs, expected):
    return float((outputs - expected).abs().max() / expected.abs().max())


def replaced(network):
    return [name for name, m in network.named_modules() if isinstance(m, WinogradConv2d)]


@pytest.fixture
def network():
    return load_backbone("resnet18", weights=None).cut(LAYERS).for_inference()


def test_convolutions_without_stride_and_the_first_are_replaced(network):
    fast = with_winograd(network)
    names = [
        *("layer1.0.convolutions.0", "layer1.0.convolutions.1"),
        *("layer1.1.convolutions.0", "layer1.1.convolutions.1"),
        *("layer2.0.convolutions.1", "layer2.1.convolutions.0", "layer2.1.convolutions.1"),
        *("layer3.0.convolutions.1", "layer3.1.convolutions.0", "layer3.1.convolutions.1"),
    ]
    assert replaced(fast) == [f"module.{name}" for name in ("conv1", *names)]
    assert all(module.rectifies for module in fast.modules() if isinstance(module, WinogradConv2d))
    assert not any(isinstance(module, nn.ReLU) for module in fast.modules())
    assert replaced(network) == []


@pytest.mark.parametrize("layers", [("conv1", "layer2"), ("layer1.0.bn1", "layer2")])
def test_a_layer_inside_of_what_would_be_joined_is_given_as_it_is(layers):
    network = load_backbone("resnet18", weights=None).module
    backbone = ModuleBackbone(network, layers=layers).cut(layers).for_inference()
    fast = with_winograd(backbone)
    assert replaced(fast)
    images = torch.rand(2, 3, 64, 64)
    for got, expected in zip(fast(images, layers), backbone(images, layers), strict=True):
        assert relative_error(got, expected) < 5e-6


@pytest.mark.parametrize("downsamples", [True, False])
@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck])
def test_folded_blocks_equal_torchvisions(kind, downsamples):
    torch.manual_seed(0)
    shortcut = nn.Conv2d(64, 16 * kind.expansion, 1, stride=2) if downsamples else None
    n_in = 64 if downsamples else 16 * kind.expansion
    block = kind(n_in, 16, 2 if downsamples else 1, shortcut, norm_layer=lambda n: nn.Identity())
    images = torch.randn(2, n_in, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(FoldedBlock(block.eval())(images), block(images))


def test_blocks_with_another_activation_are_left(network):
    network.module.layer1[0].relu = nn.LeakyReLU(0.3)
    fast = with_winograd(network)
    assert type(fast.module.layer1[0]) is BasicBlock
    assert type(fast.module.layer1[1]) is FoldedBlock


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Conv2d(64, 64, 5, padding=1),
        nn.Conv2d(68, 64, 3, padding=1),
        nn.Conv2d(8, 64, 3, padding=1),
        nn.Conv2d(64, 8, 3, padding=1),
        nn.Conv2d(3, 64, 7, padding=3),
        nn.Conv2d(3, 64, 7, stride=2),
        nn.Conv2d(4, 64, 7, stride=2, padding=3),
        nn.Conv2d(3, 8, 7, stride=2, padding=3),
    ],
)
def test_other_convolutions_are_left(module):
    network = load_backbone("resnet18", weights=None).with_modules({"module": module})
    assert replaced(with_winograd(network)) == []


class Unusual(nn.Module):
    """A network that treats one of its convolutions in a way of its own."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 32, 3, padding=1)
        self.weight = self.wide.weight.detach().clone()
        self.rectify = nn.ReLU()
        self.way = way
        if way == "positive":
            for convolution in (self.stem, self.wide):
                convolution.weight.data.abs_()
                convolution.bias.data.fill_(0.1)
        elif way == "hooked":
            self.rectify.register_forward_hook(lambda module, inputs, output: output.clamp(max=0.1))
        if way == "list":
            self.steps = [self.wide]
        elif way == "forward":
            self.wide.forward = types.MethodType(lambda conv, x: 2 * F.relu(x), self.wide)
        elif way == "attribute":
            self.wide.gain = 3.0
        elif way == "shared":
            self.again = self.wide

    def forward(self, images):
        maps = self.stem(images)
        if self.way == "list":
            maps = self.steps[0](maps)
        elif self.way == "one by one":
            maps = torch.stack([self.wide(image) for image in maps])
        elif self.way == "attribute":
            maps = self.wide(maps) * self.wide.gain
        elif self.way == "shared":
            maps = self.again(self.wide(maps))
        elif self.way == "positive":
            maps = self.wide(maps)  # nowhere below zero for the images of a probe
            maps = self.rectify(maps) + maps
        elif self.way == "hooked":
            maps = self.rectify(self.wide(maps))
        elif self.way == "weights by way of data":
            self.wide.weight.data = self.weight * (1 + images.mean())
            maps = self.wide(maps)
        elif self.way == "used twice":
            maps = self.wide(maps)
            maps = self.rectify(maps) - maps
        elif self.way == "added to in place":
            wide = self.wide(maps)
            wide += maps
            maps = self.rectify(wide)
        elif self.way == "training":
            assert not self.wide.training
            maps = self.wide(maps)
        elif self.way == "weights of the images":
            self.wide.weight.copy_(self.weight * (1 + images.mean()))
            maps = self.wide(maps)
        else:
            maps = self.wide(maps)
        return self.last(maps)


@pytest.mark.parametrize(
    "way",
    [
        *("list", "forward", "attribute", "shared"),
        *("one by one", "used twice", "added to in place", "training", "weights of the images"),
        *("positive", "hooked", "weights by way of data"),
    ],
)
def test_unusual_networks_give_what_they_gave(way, good, monkeypatch):
    def embed():
        layers = ["stem", "last"]
        embedder = PatchEmbedder(Unusual(way), layers=layers, image_size=64, crop_size=None)
        return torch.from_numpy(embedder.set_params(device="cpu").fit_transform(good[:3]))

    fast = embed()
    monkeypatch.setattr(
        "skpadim.embedding._patch_embedder.with_winograd", lambda network, dtype: network
    )
    assert relative_error(fast, embed()) < 5e-6


def rectified_steps():
    """A network whose first maps are nowhere below zero for images of values between -3 and 3."""
    torch.manual_seed(0)
    steps = nn.Sequential()
    steps.stem, steps.rectify = nn.Conv2d(3, 32, 7, stride=2, padding=3), nn.ReLU()
    steps.last = nn.Conv2d(32, 32, 3, padding=1)
    steps.stem.bias.data = 3 * steps.stem.weight.data.abs().sum(dim=(1, 2, 3))
    return steps


@pytest.mark.parametrize("layers", [("stem", "last"), ("rectify", "last")])
def test_a_layer_before_its_rectification_is_given_as_it_is(layers):
    backbone = ModuleBackbone(rectified_steps(), layers=layers)
    images = 100 * torch.randn(2, 3, 40, 40)
    fast = with_winograd(backbone)
    assert replaced(fast)
    for got, expected in zip(fast(images, layers), backbone(images, layers), strict=True):
        assert relative_error(got, expected) < 5e-6


@pytest.mark.parametrize("way", ["hook", "forward"])
def test_a_rectification_that_does_more_is_left(way):
    steps = rectified_steps()
    if way == "hook":
        steps.rectify.register_forward_hook(lambda module, inputs, output: output.clamp(max=50))
    else:
        steps.rectify.forward = lambda images: images.clamp(0, 50)
    backbone = ModuleBackbone(steps, layers=["last"])
    images = 100 * torch.randn(2, 3, 40, 40)
    (got,), (expected,) = (b(images, ["last"]) for b in (with_winograd(backbone), backbone))
    assert relative_error(got, expected) < 5e-6


def test_a_network_for_images_of_one_size_is_left():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide = nn.Conv2d(3, 16, 7, stride=2, padding=3)
            self.places = nn.Parameter(torch.ones(1, 1, 32, 32))

        def forward(self, images):
            return self.wide(images) * self.places

    class FixedBackbone(Backbone):
        name, layers = "fixed", {"only": Layer(16, 2)}

        def __init__(self):
            super().__init__()
            self.network = Fixed().requires_grad_(False)

        def forward(self, images, layers):
            return [self.network(images)]

    backbone = FixedBackbone()
    assert with_winograd(backbone) is backbone


class Decoder(nn.Module):
    """A network that goes on after its deepest layer."""

    def __init__(self, takes):
        super().__init__()
        torch.manual_seed(0)
        self.resnet, self.takes = resnet18(), takes
        self.fine = nn.Conv2d(128, 32, 1)

    def forward(self, images):
        resnet = self.resnet
        maps = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(images))))
        layer2 = resnet.layer2(resnet.layer1(maps))
        if self.takes == "channels":
            return self.fine(layer2)
        return self.fine(layer2 + layer2.mean(1, keepdim=True))


def plain_resnet(change):
    torch.manual_seed(0)
    network = resnet18(norm_layer=nn.Identity if change == "no bias" else None)
    if change == "padding":
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.padding_mode = "reflect"
    elif change == "activation":
        network.layer2[1].relu.forward = lambda images: images.clamp(0, 0.3)
    return network


@pytest.mark.parametrize("change", [None, "no bias", "padding", "activation"])
def test_narrow_layers_are_the_channels_of_wide_ones(change):
    layers, channels = ("layer1", "layer2"), [1, 5, 70]
    backbone = ModuleBackbone(plain_resnet(change), layers).cut(layers).for_inference()
    images = torch.rand(2, 3, 64, 64)
    wide, narrow = (b(images, layers)[1] for b in (backbone, backbone.narrow("layer2", channels)))
    assert narrow.shape[1] == (128 if change == "activation" else 3)
    expected = wide if change == "activation" else wide[:, channels]
    assert relative_error(narrow, expected) < 5e-6


@pytest.mark.parametrize("takes", ["channels", "mean"])
def test_a_layer_that_the_network_goes_on_with_is_not_narrowed(takes):
    layers = ("resnet.layer2", "fine")
    backbone = ModuleBackbone(Decoder(takes), layers).for_inference()
    assert backbone.narrow("resnet.layer2", [1, 5, 70]) is backbone


def test_a_network_that_switches_autocast_off_keeps_its_weights():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 16, 3, stride=4)
            self.exact = nn.Conv2d(16, 16, 1)

        def forward(self, images):
            maps = self.stem(images)
            with torch.autocast(maps.device.type, enabled=False):
                return self.exact(maps.float())

    backbone = ModuleBackbone(Careful(), ["stem", "exact"])
    assert with_low_precision_weights(backbone, torch.bfloat16) is backbone
    usual = ModuleBackbone(nn.Sequential(nn.Conv2d(3, 16, 3, stride=4)), ["0"])
    converted = with_low_precision_weights(usual, torch.bfloat16)
    assert converted.module[0].weight.dtype == torch.bfloat16
    assert usual.module[0].weight.dtype == torch.float32


def test_a_convolution_with_two_names_is_replaced_once():
    module = ModuleBackbone(Unusual("shared"), layers=["wide", "last"])
    fast = with_winograd(module).module
    assert isinstance(fast.wide, WinogradConv2d)
    assert fast.again is fast.wide


def test_nothing_is_replaced_without_compiled_loops(monkeypatch):
    monkeypatch.setattr(_cpu_network, "has_winograd", lambda dtype: False)
    assert replaced(with_winograd(load_backbone("resnet18", weights=None))) == []


def test_embeddings_are_those_of_the_plain_network(monkeypatch, good):
    def embed():
        embedder = PatchEmbedder("resnet18", weights=None, random_state=0, image_size=96)
        embeddings = embedder.set_params(crop_size=None, device="cpu").fit_transform(good[:6])
        return torch.from_numpy(embeddings), embedder

    fast, embedder = embed()
    assert replaced(embedder._network_on(torch.device("cpu"), LAYERS, True)[0])
    monkeypatch.setattr(
        "skpadim.embedding._patch_embedder.with_winograd", lambda network, dtype: network
    )
    plain, _ = embed()
    assert relative_error(fast, plain) < 5e-6
