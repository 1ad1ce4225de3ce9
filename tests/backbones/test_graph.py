"""A network made ready gives the maps that the network gives as it is written."""

import threading
import types

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F
from torchvision.models.resnet import resnet18

from skpadim import PatchEmbedder
from skpadim.backbones import ModuleBackbone, _graph, load_backbone
from skpadim.backbones._backbone import Backbone, Layer
from skpadim.backbones._graph import RectifiedConv2d, make_ready
from skpadim.backbones._tracer import record
from skpadim.backbones.winograd import WinogradConv2d

LAYERS = ("layer1", "layer2", "layer3")
CPU = torch.device("cpu")


def relative_error(outputs, expected):
    return float((outputs - expected).abs().max() / expected.abs().max())


def check(backbone, layers, channels=None, images=None, is_recorded=True, rtol=5e-6):
    """See that a network made ready gives a backbone's maps; return it."""
    images = torch.randn(2, 3, 64, 72) if images is None else images
    layers = tuple(layers)
    network = make_ready(backbone, layers, CPU, channels=channels)
    assert isinstance(network, fx.GraphModule) == is_recorded
    before = images.clone()
    with torch.no_grad():
        expected = list(backbone(images, layers))
        maps = network(images)
    assert torch.equal(images, before)
    if channels is not None and maps[-1].shape[1] < expected[-1].shape[1]:
        expected[-1] = expected[-1][:, channels]
    assert len(maps) == len(layers)
    for got, want in zip(maps, expected, strict=True):
        assert got.shape == want.shape
        assert relative_error(got, want) < rtol
    return network


def modules_of(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def n_additions(network):
    calls = (node for node in network.graph.nodes if node.op == "call_module")
    return sum(len(node.args) == 2 for node in calls)


def randomised(network):
    """A network whose batch norms have statistics that folding must take into account."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                values.data.uniform_(0.5, 1.5)
            for values in (module.bias, module.running_mean):
                values.data.normal_(0, 0.3)
    return network


# (convolutions of Winograd's, other ones that rectify, how many of all add), up to layer3.
JOINED = {
    "resnet18": (11, 2, 6),
    "resnet50": (12, 28, 13),
    "mobilenet_v3_small": (0, 11, 0),
}


@pytest.mark.usefixtures("compiled_loops")
@pytest.mark.parametrize("name", JOINED)
def test_all_that_can_be_is_joined_and_folded(name):
    backbone = load_backbone(name, weights=None)
    randomised(backbone.module)
    network = check(backbone, LAYERS)
    winograd, rectified, additions = JOINED[name]
    assert len(modules_of(network, WinogradConv2d)) == winograd
    assert all(module.rectifies for module in modules_of(network, WinogradConv2d))
    assert len(modules_of(network, RectifiedConv2d)) == rectified
    assert n_additions(network) == additions
    assert not modules_of(network, (nn.BatchNorm2d, nn.ReLU))
    assert not any(node.op == "call_method" for node in network.graph.nodes)  # such as a clone
    assert not modules_of(backbone, WinogradConv2d)  # which is left as it was


# One of each family that has other modules, or another structure.
@pytest.mark.parametrize(
    "name",
    [
        *("densenet121", "efficientnet_b0", "inception_v3", "mnasnet0_5"),
        *("regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "convnext_tiny"),
    ],
)
def test_every_layer_is_the_plain_networks(name):
    backbone = load_backbone(name, weights=None)
    randomised(backbone.module)
    images = torch.randn(1, 3, 96, 80)
    check(backbone, backbone.layers, images=images)
    check(backbone, ("layer2",), channels=[3, 5, 11], images=images)


def test_no_loops_are_needed(monkeypatch):
    monkeypatch.setattr(_graph, "has_winograd", lambda dtype: False)
    backbone = load_backbone("resnet18", weights=None)
    randomised(backbone.module)
    network = check(backbone, LAYERS, channels=[2, 3, 50])
    assert not modules_of(network, WinogradConv2d)
    assert len(modules_of(network, RectifiedConv2d)) == 13


@pytest.mark.parametrize("shape", [(2, 8, 9, 9), (8, 1, 1), (3, 2, 8, 9, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_added_may_have_another_shape_and_precision(shape, dtype):
    torch.manual_seed(0)
    convolution, images = nn.Conv2d(3, 8, 3, padding=1), torch.randn(2, 3, 9, 9)
    added = torch.randn(shape, dtype=dtype)
    with torch.no_grad():
        before = added.clone()
        got = RectifiedConv2d(convolution)(images, added)
        torch.testing.assert_close(got, (convolution(images) + added).relu())
        assert torch.equal(added, before)


@torch.no_grad()
@pytest.mark.parametrize("in_one_step", [True, False])
@pytest.mark.parametrize("added", [None, torch.ones(2, 8, 5, 5)])
def test_relu6_clips_both_ends(monkeypatch, in_one_step, added):
    monkeypatch.setattr(_graph, "_clips_in_one_step", lambda convolution: in_one_step)
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4)
    images = 50 * torch.randn(2, 4, 9, 9)
    outputs = convolution(images) + (0 if added is None else added)
    got = RectifiedConv2d(convolution, limit=6.0)(images, *([] if added is None else [added]))
    torch.testing.assert_close(got, nn.functional.relu6(outputs), rtol=1e-5, atol=1e-5)
    assert got.min() == 0
    assert got.max() == 6


@pytest.mark.parametrize("layers", [("conv1", "layer2"), ("layer1.0.bn1", "layer2")])
def test_a_layer_inside_of_what_would_be_joined_is_given_as_it_is(layers):
    backbone = ModuleBackbone(randomised(resnet18()), layers=layers)
    assert modules_of(check(backbone, layers), RectifiedConv2d)


@pytest.mark.parametrize("names", [("layer2", "layer2.1"), ("layer2.1.relu", "layer2")])
def test_layers_may_be_one_within_the_other(names):
    backbone = ModuleBackbone(randomised(resnet18()), layers=names)
    check(backbone, backbone.layers, channels=[0, 1])


class Unusual(nn.Module):
    """A network that treats one of its convolutions in a way of its own."""

    def __init__(self, way=None):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.wide = nn.Conv2d(32, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.last = nn.Conv2d(32, 32, 3, padding=1)
        self.rectify = nn.ReLU()
        self.overwrite = nn.ReLU(inplace=True)
        randomised(self)
        self.weight = self.wide.weight.detach().clone()
        self.way = way

    def forward(self, images):
        return self.last(getattr(self, self.way)(self.stem(images)))

    def in_a_list(self, maps):
        if not hasattr(self, "steps"):
            self.steps = [self.wide]
        return self.rectify(self.steps[0](maps))

    def with_an_attribute(self, maps):
        self.wide.gain = 3.0
        return self.wide(maps) * self.wide.gain

    def shared(self, maps):
        return self.rectify(self.wide(self.norm(self.wide(maps))))

    def used_twice(self, maps):
        maps = self.wide(maps)
        return self.rectify(maps) - maps

    def added_to_itself(self, maps):
        maps = self.wide(maps)
        return self.rectify(maps + maps)

    def a_sum_used_twice(self, maps):
        maps = self.wide(maps) + maps
        return self.rectify(maps) - maps

    def normalised_and_not(self, maps):
        maps = self.wide(maps)
        return self.norm(maps) + maps

    def added_to_in_place(self, maps):
        wide = self.wide(maps)
        wide += maps
        return self.rectify(wide)

    def added_to_as_a_method(self, maps):
        return self.wide(maps).add_(maps).relu_()

    def added_by_a_function(self, maps):
        return F.relu(torch.add(maps, self.wide(maps)), inplace=True)

    def a_multiple_added(self, maps):
        return torch.relu(torch.add(self.wide(maps), maps, alpha=0.5))

    def a_number_added(self, maps):
        return torch.relu_(self.wide(maps) + 0.5)

    def a_row_added(self, maps):
        return self.rectify(self.wide(maps) + maps.mean((1, 2), keepdim=True))

    def added_to_what_is_smaller(self, maps):
        return self.rectify(self.wide(maps.mean((2, 3), keepdim=True)) + maps)

    def rectified_twice(self, maps):
        once = self.rectify(self.wide(maps))
        return self.rectify(once + maps)

    def rectified_for_others(self, maps):
        self.overwrite(maps)
        return self.wide(maps)

    def overwritten_after_it_is_read(self, maps):
        wide = self.wide(maps)
        rectified = torch.relu_(maps)
        return self.rectify(wide + rectified)

    def overwritten_as_a_view(self, maps):
        wide = self.wide(maps)
        wide.flatten(2).relu_()
        return self.norm(wide)

    def overwritten_under_another_name(self, maps):
        same = maps
        maps += 1
        return self.wide(same)

    def known_by_its_type(self, maps):
        maps = maps + 1 if isinstance(maps, torch.Tensor) else maps
        return self.wide(maps)

    def one_by_one(self, maps):
        return torch.stack([self.wide(image) for image in maps])

    def depending_on_values(self, maps):
        return self.wide(maps) if maps.mean() > 0.05 else maps

    def depending_on_sizes(self, maps):
        return self.wide(maps) if maps.shape[2] > 40 else maps

    def with_weights_of_the_images(self, maps):
        self.wide.weight.copy_(self.weight * (5 + maps.mean()))
        return self.rectify(self.wide(maps))

    def with_weights_by_way_of_data(self, maps):
        self.wide.weight.data = self.weight * (5 + maps.mean())
        return self.wide(maps)

    def with_weights_as_a_tensor(self, maps):
        return F.conv2d(self.wide(maps), self.wide.weight.flip(0))

    def compared(self, maps):
        return self.wide(maps) * ((maps > 0) & (maps < 1))

    def without_autocast(self, maps):
        with torch.autocast("cpu", enabled=False):
            return self.wide(maps.float())

    def with_autocast(self, maps):
        with torch.autocast("cpu", torch.bfloat16):
            return self.wide(maps).float()


RECORDED = [
    *("in_a_list", "with_an_attribute", "shared", "used_twice", "added_to_itself"),
    "a_sum_used_twice",
    *("normalised_and_not", "added_to_in_place", "added_to_as_a_method", "added_by_a_function"),
    *("a_multiple_added", "a_number_added", "a_row_added", "added_to_what_is_smaller"),
    *("rectified_twice", "rectified_for_others", "overwritten_after_it_is_read"),
    *("with_weights_as_a_tensor", "compared", "without_autocast"),
]
NOT_RECORDED = [
    *("overwritten_as_a_view", "overwritten_under_another_name", "known_by_its_type"),
    *("one_by_one", "depending_on_values", "depending_on_sizes"),
    *("with_weights_of_the_images", "with_weights_by_way_of_data", "with_autocast"),
]


@pytest.mark.parametrize("way", [*RECORDED, *NOT_RECORDED])
@pytest.mark.parametrize("layers", [("last",), ("stem", "last")])
def test_unusual_networks_give_what_they_gave(way, layers):
    backbone = ModuleBackbone(Unusual(way), layers)
    for scale in (1, -0.1, 100):  # what depends on the images, for several
        images = scale * torch.randn(2, 3, 64, 72) + scale
        rtol = 1e-3 if way == "with_autocast" else 5e-6
        check(backbone, layers, images=images, is_recorded=way in RECORDED, rtol=rtol)


@pytest.mark.parametrize(
    "way", ["added_to_in_place", "added_to_as_a_method", "added_by_a_function"]
)
def test_additions_are_joined_however_they_are_written(way):
    backbone = ModuleBackbone(Unusual(way), ("last",))
    assert n_additions(check(backbone, ("last",))) == 1


@pytest.mark.parametrize("way", RECORDED)
def test_a_convolution_may_be_a_layer_whatever_is_done_next(way):
    backbone = ModuleBackbone(Unusual(way), ("wide", "last"))
    check(backbone, ("wide", "last"), images=5 * torch.randn(2, 3, 64, 72))


def test_what_cannot_be_recorded_runs_in_a_fitted_detector(good, make_detector):
    scores = [
        make_detector(Unusual(way), layers=("stem", "last")).fit(good).score_samples(good)
        for way in ("depending_on_values", "depending_on_values")
    ]
    assert (scores[0] == scores[1]).all()


@pytest.mark.parametrize("hooks", ["rectification", "convolution", "block", "layer", "network"])
@pytest.mark.parametrize("way", ["hook", "input", "forward"])
def test_modules_with_functions_of_their_own_are_left_as_they_are(hooks, way):
    network = randomised(resnet18())
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    network = nn.Sequential(stem, network.layer1, network.layer2)
    hooked = {
        "rectification": network[0][2],
        "convolution": network[1][0].conv1,
        "block": network[1][0],
        "layer": network[1],
        "network": network,
    }[hooks]
    if way == "hook":
        hooked.register_forward_hook(lambda module, inputs, output: output.clamp(max=0.5))
    elif way == "input":
        hooked.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2 - 0.1,))
    else:
        plain = type(hooked).forward
        hooked.forward = types.MethodType(lambda self, images: plain(self, images) - 1, hooked)
    backbone = ModuleBackbone(network, ("1", "2"))
    # The largest values are cut off, which the rounding was relative to.
    check(backbone, ("1", "2"), is_recorded=hooks != "network", rtol=5e-5)


def test_modules_that_are_used_several_times_are_folded_each_time_with_its_own_norm():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.rectify = nn.Conv2d(3, 32, 3, stride=4), nn.ReLU()
            self.convolution = nn.Conv2d(32, 32, 3, padding=1)
            self.one, self.other = nn.BatchNorm2d(32), nn.BatchNorm2d(32)
            self.last = nn.Identity()

        def forward(self, images):
            maps = self.rectify(self.stem(images))
            maps = self.rectify(self.one(self.convolution(maps)))
            maps = self.rectify(self.other(self.convolution(maps)))
            return self.last(self.rectify(self.convolution(maps)))

    backbone = ModuleBackbone(randomised(Shared()), ("last",))
    network = check(backbone, ("last",))
    assert not modules_of(network, (nn.BatchNorm2d, nn.ReLU))
    assert len(modules_of(network, (RectifiedConv2d, WinogradConv2d))) == 4


def test_a_convolution_with_two_names_is_replaced_once():
    wide = nn.Conv2d(32, 32, 3, padding=1)
    network = nn.Sequential(nn.Conv2d(3, 32, 1, stride=2), nn.ReLU(), wide, nn.ReLU(), wide)
    network = check(ModuleBackbone(network.append(nn.ReLU()), ("5",)), ("5",))
    called = [node.target for node in network.graph.nodes if node.op == "call_module"]
    assert network.get_submodule(called[-1]) is network.get_submodule(called[-2])


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(8, track_running_stats=False),
        nn.GroupNorm(2, 8),
        nn.InstanceNorm2d(8),
        nn.Identity(),
        nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(8)),
    ],
)
def test_other_norms_are_left(norm):
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), norm, nn.ReLU(inplace=True))
    check(ModuleBackbone(network, ("0", "2")), ("2",))


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.Conv2d(3, 9, 3, stride=2, groups=3),
        nn.Conv2d(3, 3, 3, stride=2, groups=3),
        nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(3, 8, 3, bias=False),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, stride=2)),
    ],
)
@pytest.mark.parametrize("affine", [True, False])
def test_norms_after_any_convolution_give_the_same(convolution, affine):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(convolution.out_channels, affine=affine)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    network = nn.Sequential(convolution, norm, nn.ReLU6(inplace=True), nn.MaxPool2d(2))
    backbone = ModuleBackbone(network, ("2", "3"))
    check(backbone, ("3",))
    check(backbone, ("2", "3"))


class Norm(nn.BatchNorm2d):
    """Calls a function, after an assertion, as timm's norms do."""

    def forward(self, x):
        torch._assert(x.ndim == 4, "expected maps")
        tensors = self.running_mean, self.running_var, self.weight, self.bias
        return F.batch_norm(x, *tensors, self.training, 0.1, self.eps)


def test_norms_written_as_functions_are_folded():
    torch.manual_seed(0)
    norm = Norm(5, eps=0.1)
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.5, 2)
    backbone = ModuleBackbone(nn.Sequential(nn.Conv2d(3, 5, 3, 2), norm, nn.ReLU()), ("2",))
    network = make_ready(backbone, ("2",), torch.device("cpu"))
    assert [node.op for node in network.graph.nodes] == ["placeholder", "call_module", "output"]
    images = torch.randn(2, 3, 40, 48)
    torch.testing.assert_close(network(images.clone()), backbone(images, ("2",)))


def test_norms_before_convolutions_are_left():
    network = randomised(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 8, 3, 2)))
    assert modules_of(check(ModuleBackbone(network, ("2",)), ("2",)), nn.BatchNorm2d)


@pytest.mark.parametrize("way", ["module", "function", "method", "sum"])
def test_a_layer_is_given_as_it_was_before_it_is_overwritten(way):
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3, 2)
            self.rectify = nn.ReLU(inplace=True)

        def forward(self, images):
            maps = self.first(images)
            if way == "module":
                self.rectify(maps)
            elif way == "function":
                F.hardtanh_(maps, 0, 0.1)
            elif way == "method":
                maps.mul_(2)
            else:
                maps += 1
            return self.last(maps)

    network = Overwriting()
    images = torch.randn(2, 3, 64, 72)
    backbone = ModuleBackbone(network, ("first", "last"))
    network = check(backbone, ("first", "last"), images=images)
    torch.testing.assert_close(network(images)[0], backbone.module.first(images))


def test_images_are_not_overwritten():
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3, 2))
    check(ModuleBackbone(network, ("1",)), ("1",))


def test_activations_overwrite_what_nobody_else_reads():
    steps = [nn.Conv2d(3, 8, 3, 2), nn.SiLU(), nn.Conv2d(8, 8, 3, 2), nn.SiLU(), nn.MaxPool2d(2)]
    backbone = ModuleBackbone(nn.Sequential(*steps, nn.ReLU6()), ("0", "3", "5"))
    network = check(backbone, ("0", "3", "5"))
    by_input = {
        node.args[0].target: network.get_submodule(node.target).inplace
        for node in network.graph.nodes
        if node.op == "call_module" and hasattr(network.get_submodule(node.target), "inplace")
    }
    # The first convolution is a layer; a pooling may return what it was given.
    assert list(by_input.values()) == [False, True, False]


@pytest.mark.parametrize("change", [None, "no bias", "padding", "activation", "grouped"])
@pytest.mark.parametrize("names", [("layer1", "layer2"), ("layer1", "layer2.1"), ("layer2.0",)])
def test_narrow_layers_are_the_channels_of_wide_ones(change, names):
    network = randomised(resnet18(norm_layer=nn.Identity if change == "no bias" else None))
    if change == "padding":
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.padding_mode = "reflect"
    elif change == "activation":
        network.layer2[-1].relu.forward = lambda images: images.clamp(0, 0.3)
        network.layer2[0].relu.forward = network.layer2[-1].relu.forward
    elif change == "grouped":
        for block in network.layer2:
            block.conv2 = nn.Conv2d(128, 128, 3, padding=1, groups=4)
    backbone = ModuleBackbone(network, names)
    for channels, n_channels in ([1, 5, 70], 3), ([], 128):
        if change in ("activation", "grouped"):
            n_channels = 128
        network = check(backbone, names, channels=channels, rtol=5e-5)
        assert network(torch.rand(1, 3, 64, 64))[-1].shape[1] == n_channels


@pytest.mark.parametrize("takes", ["maps", "mean"])
def test_a_layer_that_the_network_goes_on_with_is_not_narrowed(takes):
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.coarse, self.rectify = nn.Conv2d(3, 32, 3, stride=4, padding=1), nn.ReLU()
            self.fine = nn.Conv2d(32, 8, 1)

        def forward(self, images):
            maps = self.rectify(self.coarse(images))
            maps = maps if takes == "maps" else maps + maps.mean(1, keepdim=True)
            return self.fine(F.interpolate(maps, scale_factor=2))

    backbone = ModuleBackbone(Decoder(), ("rectify", "fine"))
    layers = ("fine", "rectify")  # in the order of their strides
    network = check(backbone, layers, channels=[1, 5, 30])
    assert network(torch.rand(1, 3, 64, 64))[1].shape[1] == 32


def test_weights_are_held_in_the_precision_that_they_are_computed_in():
    layers = ("layer1", "layer2")
    backbone = load_backbone("resnet50", weights=None)
    network = make_ready(backbone, layers, CPU, torch.bfloat16)
    for module in modules_of(network, nn.Conv2d):
        is_converted = not isinstance(module, WinogradConv2d)
        assert module.weight.dtype == (torch.bfloat16 if is_converted else torch.float32)
    assert backbone.module.layer1[0].conv1.weight.dtype == torch.float32
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = network(images)
    with torch.no_grad():
        for got, want in zip(maps, backbone(images, layers), strict=True):
            assert 1e-4 < relative_error(got, want) < 0.05


@pytest.mark.parametrize("way", ["without_autocast", "with_autocast"])
def test_a_network_that_switches_autocast_keeps_its_precisions(way):
    backbone = ModuleBackbone(Unusual(way), ("last",))
    network = make_ready(backbone, ("last",), CPU, torch.bfloat16)
    wide = next(module for name, module in network.named_modules() if name.endswith("wide"))
    dtypes = []
    wide.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network(torch.rand(1, 3, 64, 64))
    assert dtypes == [torch.float32 if way == "without_autocast" else torch.bfloat16]


class Fixed(Backbone):
    """A backbone of one's own, which may take images of one size only."""

    name, layers = "fixed", {"fine": Layer(16, 2), "coarse": Layer(32, 4)}

    def __init__(self, size=None):
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU())
        self.coarse = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
        self.places = None if size is None else nn.Parameter(torch.randn(16, *size))
        self.eval().requires_grad_(False)

    def forward(self, images, layers):
        fine = self.fine(images)
        fine = fine if self.places is None else fine + self.places
        maps = {"fine": fine, "coarse": self.coarse(fine)}
        return [maps[layer] for layer in layers]


@pytest.mark.usefixtures("compiled_loops")
def test_backbones_of_ones_own_are_made_ready_too():
    assert len(modules_of(check(Fixed(), ("fine", "coarse")), WinogradConv2d)) == 2
    check(Fixed(), ("coarse",), channels=[0, 4])
    check(Fixed((32, 36)), ("fine", "coarse"), is_recorded=False)


def test_other_threads_compute_while_a_network_is_recorded():
    backbone = load_backbone("resnet18", weights=None)
    network = make_ready(backbone, LAYERS, CPU)
    images, go_on = torch.randn(1, 3, 64, 64), threading.Event()
    wrong = []

    def compute():
        expected = backbone(images, LAYERS)
        while not go_on.is_set():
            for maps in (backbone(images, LAYERS), network(images)):
                for got, want in zip(maps, expected, strict=True):
                    if not isinstance(got, torch.Tensor) or relative_error(got, want) > 1e-5:
                        wrong.append(got)

    call = nn.Module.__call__
    thread = threading.Thread(target=compute)
    thread.start()
    try:
        for _ in range(5):
            recorders = [threading.Thread(target=record, args=(backbone, LAYERS)) for _ in "ab"]
            for recorder in recorders:
                recorder.start()
            for recorder in recorders:
                recorder.join()
    finally:
        go_on.set()
        thread.join()
    assert not wrong
    assert nn.Module.__call__ is call


@pytest.mark.usefixtures("compiled_loops")
def test_embeddings_are_those_of_the_plain_network(monkeypatch, good):
    def embed():
        embedder = PatchEmbedder("resnet18", weights=None, random_state=0, image_size=96)
        embeddings = embedder.set_params(crop_size=None, device="cpu").fit_transform(good[:6])
        return torch.from_numpy(embeddings), embedder

    def fail(*_):
        raise ValueError

    fast, embedder = embed()
    assert modules_of(
        embedder._network_on(CPU, LAYERS, *embedder._windows, True)[0], WinogradConv2d
    )
    monkeypatch.setattr(_graph, "record", fail)
    plain, _ = embed()
    assert relative_error(fast, plain) < 5e-6
