"""Winograd's convolutions equal the plain ones, and are put where they are faster."""

import copy
import importlib.util
import os
import pickle
import platform
import re
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from skpadim import PatchEmbedder
from skpadim.backbones import ModuleBackbone, _winograd, load_backbone
from skpadim.backbones._winograd import WinogradConv2d, with_winograd

LAYERS = ("layer1", "layer2", "layer3")

if not (
    sys.platform == "linux"
    and platform.machine() == "x86_64"
    and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    and importlib.util.find_spec("numba")
):
    pytest.skip("needs Linux, a CPU with AVX2, and Numba", allow_module_level=True)


def make_convolution(n_in=40, n_out=37, **parameters):
    torch.manual_seed(n_in)
    return nn.Conv2d(n_in, n_out, 3, padding=1, **parameters).requires_grad_(False)


def make_images(*shape):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)


def relative_error(outputs, expected):
    return float((outputs - expected).abs().max() / expected.abs().max())


@pytest.fixture
def threads():
    """Set the number of torch's threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@settings(max_examples=60, deadline=None)
@given(
    n_images=st.integers(1, 9),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    eighths=st.integers(1, 8),
    n_out=st.integers(1, 70),
    bias=st.booleans(),
)
def test_equals_the_convolution_in_float64(n_images, height, width, eighths, n_out, bias):
    convolution = make_convolution(8 * eighths, n_out, bias=bias)
    images = make_images(n_images, 8 * eighths, height, width)
    outputs = WinogradConv2d(convolution)(images)
    expected = convolution.double()(images.double())
    assert outputs.shape == expected.shape
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    terms = F.conv2d(images.double().abs(), convolution.weight.abs(), padding=1)
    assert (outputs - expected).abs().max() < 1e-6 * terms.max()
    if min(height, width) >= 6:  # of fewer outputs, all may happen to be small
        assert relative_error(outputs, expected) < 5e-6


def test_the_transforms_are_exact_but_for_rounding():
    from skpadim.backbones._winograd_kernel import transform_products, transform_window

    rng = np.random.default_rng(0)
    window, kernel = rng.normal(size=6), rng.normal(size=3)
    points = [0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)]
    at_points = [*(kernel @ [1, p, p * p] for p in points), kernel[2]]
    # What the kernels are divided by: the derivative of (x - p) (x - q) ... at each point.
    scale = [np.prod([p - q for q in points if q != p]) for p in points]
    at_points = np.divide(at_points, [*scale, 1])
    tile = transform_products(*np.multiply(transform_window(*window), at_points))
    np.testing.assert_allclose(tile, np.correlate(window, kernel), rtol=1e-12)


@pytest.mark.parametrize("n_out", [16, 64, 80, 57])
def test_an_image_is_convolved_alike_in_any_company_by_any_number_of_threads(n_out, threads):
    winograd = WinogradConv2d(make_convolution(64, n_out))
    images = make_images(7, 64, 14, 10)
    threads(1)
    expected = winograd(images)
    for n_threads in (1, 2, 5):
        threads(n_threads)
        assert torch.equal(winograd(images), expected)
        assert torch.equal(torch.cat([winograd(image[None]) for image in images]), expected)


def test_images_need_not_be_in_channels_last_layout():
    winograd = WinogradConv2d(make_convolution())
    images = make_images(2, 40, 12, 12)
    assert torch.equal(winograd(images.contiguous()), winograd(images))
    part = make_images(2, 80, 12, 12)[:, ::2]
    assert torch.equal(winograd(part), winograd(part.contiguous()))


def test_threads_of_the_caller_do_not_get_into_each_others_way():
    winograd = WinogradConv2d(make_convolution(64, 64))
    images = [make_images(2, 64, 16 + 4 * i, 16) for i in range(4)]
    expected = [winograd(batch) for batch in images]
    same = [False] * len(images)

    def convolve(i):
        same[i] = all(torch.equal(winograd(images[i]), expected[i]) for _ in range(50))

    callers = [threading.Thread(target=convolve, args=(i,)) for i in range(len(images))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(same)


def test_it_runs_on_the_threads_that_torch_has():
    code = """
import os, torch
from skpadim.backbones._winograd import WinogradConv2d, _kernel
_kernel()
torch.set_num_threads(3)
plain = torch.nn.Conv2d(32, 32, 3, padding=1).requires_grad_(False)
winograd = WinogradConv2d(plain)
images = torch.randn(4, 32, 64, 64)
torch.relu(torch.randn(2_000_000)), plain(images)
before = len(os.listdir("/proc/self/task"))
winograd(images)
assert len(os.listdir("/proc/self/task")) == before, "new threads"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd())


def test_copies_convolve():
    winograd = WinogradConv2d(make_convolution())
    images = make_images(1, 40, 8, 8)
    expected = winograd(images)
    assert torch.equal(copy.deepcopy(winograd)(images), expected)
    assert torch.equal(pickle.loads(pickle.dumps(winograd))(images), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_torchs_defaults_do_not_matter(dtype, bias):
    images = make_images(2, 40, 9, 9)
    winograd = WinogradConv2d(make_convolution(bias=bias))
    expected = winograd(images)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(winograd(images), expected)
        assert torch.equal(pickle.loads(pickle.dumps(winograd))(images), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert torch.equal(winograd(images), expected)


def test_changed_weights_are_convolved_with():
    convolution = make_convolution()
    winograd = WinogradConv2d(convolution)
    images = make_images(2, 40, 8, 8)
    winograd(images)
    convolution.weight.mul_(2)
    convolution.bias.add_(1)
    assert relative_error(winograd(images), convolution(images)) < 5e-6
    other = make_convolution().requires_grad_(False)
    other.weight.neg_()
    winograd.load_state_dict(other.state_dict())
    assert relative_error(winograd(images), other(images)) < 5e-6
    winograd.weight = nn.Parameter(other.weight / 3, requires_grad=False)
    other.weight /= 3
    assert relative_error(winograd(images), other(images)) < 5e-6


def test_another_layout_of_the_weights_changes_nothing():
    winograd = WinogradConv2d(make_convolution())
    images = make_images(2, 40, 8, 8)
    expected = winograd(images)
    assert torch.equal(winograd.to(memory_format=torch.channels_last)(images), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_convolved_plainly(dtype):
    convolution = make_convolution(dtype=dtype)
    images = make_images(2, 40, 8, 8).to(dtype)
    assert torch.equal(WinogradConv2d(convolution)(images), convolution(images))


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[0],  # not a batch
        lambda images: torch._neg_view(images),
        lambda images: images[:0],
    ],
    ids=["three dimensions", "negated view", "no images"],
)
def test_unusual_images_are_convolved_as_plainly(change):
    convolution = make_convolution()
    images = change(make_images(2, 40, 8, 8))
    torch.testing.assert_close(WinogradConv2d(convolution)(images), convolution(images))


@pytest.mark.parametrize(
    "images",
    [torch.ones(1, 32, 8, 8), torch.ones(1, 40, 8, 8).double(), torch.ones(8, 8)],
    ids=["channels", "precision", "dimensions"],
)
def test_wrong_images_raise_as_they_do_plainly(images):
    convolution = make_convolution()
    with pytest.raises(RuntimeError) as plain:
        convolution(images)
    with pytest.raises(RuntimeError, match=re.escape(str(plain.value))):
        WinogradConv2d(convolution)(images)


def test_fake_tensors_get_a_shape():
    from torch._subclasses import FakeTensorMode

    winograd = WinogradConv2d(make_convolution())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        images = mode.from_tensor(make_images(2, 40, 8, 8))
        assert winograd(images).shape == (2, 37, 8, 8)


def test_autocast_is_heeded():
    winograd = WinogradConv2d(make_convolution())
    with torch.autocast("cpu", torch.bfloat16):
        assert winograd(make_images(2, 40, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("wanted", ["images", "weight", "bias"])
def test_gradients_pass(wanted):
    winograd = WinogradConv2d(make_convolution())
    images = make_images(2, 40, 8, 8)
    variable = {"images": images, "weight": winograd.weight, "bias": winograd.bias}[wanted]
    variable.requires_grad_()
    winograd(images).sum().backward()
    assert variable.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_convolves_plainly():
    convolution = make_convolution().cuda()
    images = make_images(2, 40, 8, 8).cuda()
    torch.testing.assert_close(WinogradConv2d(convolution)(images), convolution(images))


def replaced(network):
    return [name for name, m in network.named_modules() if isinstance(m, WinogradConv2d)]


def test_convolutions_without_stride_are_replaced():
    network = load_backbone("resnet18", weights=None).cut(LAYERS).for_inference()
    names = [
        *("layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"),
        *("layer2.0.conv2", "layer2.1.conv1", "layer2.1.conv2"),
        *("layer3.0.conv2", "layer3.1.conv1", "layer3.1.conv2"),
    ]
    assert replaced(with_winograd(network)) == [f"module.{name}" for name in names]
    assert replaced(network) == []


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
        self.way = way
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
        *("one by one", "training", "weights of the images"),
    ],
)
def test_unusual_networks_give_what_they_gave(way, good, monkeypatch):
    def embed():
        layers = ["stem", "last"]
        embedder = PatchEmbedder(Unusual(way), layers=layers, image_size=64, crop_size=None)
        return torch.from_numpy(embedder.set_params(device="cpu").fit_transform(good[:3]))

    fast = embed()
    monkeypatch.setattr("skpadim._embedding.with_winograd", lambda network: network)
    assert relative_error(fast, embed()) < 5e-6


def test_a_convolution_with_two_names_is_replaced_once():
    module = ModuleBackbone(Unusual("shared"), layers=["wide", "last"])
    fast = with_winograd(module).module
    assert isinstance(fast.wide, WinogradConv2d)
    assert fast.again is fast.wide


@pytest.fixture
def fresh_kernel():
    """Look for the compiled convolution anew in a test, and again after it."""
    _winograd._kernel.cache_clear()
    yield
    _winograd._kernel.cache_clear()


def test_nothing_is_replaced_on_other_cpus(monkeypatch, fresh_kernel):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert replaced(with_winograd(load_backbone("resnet18", weights=None))) == []


def test_nothing_is_replaced_without_numba(monkeypatch, fresh_kernel):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "skpadim.backbones._winograd_kernel")
    monkeypatch.delattr("skpadim.backbones._winograd_kernel")
    assert replaced(with_winograd(load_backbone("resnet18", weights=None))) == []


def test_a_compiler_that_fails_is_told_of_and_done_without(monkeypatch, fresh_kernel):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("numba.cfunc", fail)
    monkeypatch.delitem(sys.modules, "skpadim.backbones._winograd_kernel")
    monkeypatch.delattr("skpadim.backbones._winograd_kernel")
    with pytest.warns(RuntimeWarning, match=r"OSError: disk full.*more slowly"):
        network = with_winograd(load_backbone("resnet18", weights=None))
    assert replaced(network) == []


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot cache function: no locator available"),
        OSError("No space left on device"),
        EOFError("Ran out of input"),
    ],
)
def test_it_is_compiled_where_nothing_can_be_kept(monkeypatch, error):
    from skpadim.backbones import _winograd_kernel

    def cfunc(signature, cache=False):
        if cache:
            raise error
        return lambda function: "compiled"

    monkeypatch.setattr(_winograd_kernel, "cfunc", cfunc)
    assert _winograd_kernel._compile(lambda pointer: None) == "compiled"


def test_what_is_kept_is_named_after_all_that_it_depends_on(monkeypatch, tmp_path):
    from skpadim.backbones import _winograd_kernel

    def name():
        monkeypatch.setattr(_winograd_kernel, "cfunc", lambda *_, **__: lambda f: f.__qualname__)
        return _winograd_kernel._compile(lambda pointer: None)

    before = name()
    assert name() == before
    changed = tmp_path / "code.py"
    changed.write_text("# other instructions")
    with monkeypatch.context() as patch:
        patch.setattr(_winograd_kernel.code, "__file__", str(changed))
        assert name() != before
    monkeypatch.setattr(_winograd_kernel, "get_host_cpu_name", lambda: "another")
    assert name() != before


def test_embeddings_are_those_of_the_plain_network(monkeypatch, good):
    def embed():
        embedder = PatchEmbedder("resnet18", weights=None, random_state=0, image_size=96)
        embeddings = embedder.set_params(crop_size=None, device="cpu").fit_transform(good[:6])
        return torch.from_numpy(embeddings), embedder

    fast, embedder = embed()
    assert replaced(embedder._network_on(torch.device("cpu"), LAYERS, True)[0])
    monkeypatch.setattr("skpadim._embedding.with_winograd", lambda network: network)
    plain, _ = embed()
    assert relative_error(fast, plain) < 5e-6
