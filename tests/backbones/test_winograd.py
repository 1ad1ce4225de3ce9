"""Winograd's convolutions equal the plain ones, and are put where they are faster."""

import copy
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from skpadim import PatchEmbedder
from skpadim.backbones import _winograd, load_backbone
from skpadim.backbones._winograd import WinogradConv2d, with_winograd

LAYERS = ("layer1", "layer2", "layer3")

if _winograd._kernel() is None:
    pytest.skip("needs a CPU with AVX2, Linux and Numba", allow_module_level=True)


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
from skpadim.backbones._winograd import WinogradConv2d
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
    assert torch.equal(copy.deepcopy(winograd)(images), winograd(images))


@pytest.mark.parametrize(("channels", "dtype"), [(40, torch.float64), (40, torch.bfloat16)])
def test_other_precisions_are_convolved_plainly(channels, dtype):
    convolution = make_convolution(channels, dtype=dtype)
    images = make_images(2, channels, 8, 8).to(dtype)
    assert torch.equal(WinogradConv2d(convolution)(images), convolution(images))


def test_gradients_pass():
    convolution = make_convolution()
    images = make_images(2, 40, 8, 8).requires_grad_()
    WinogradConv2d(convolution)(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_convolves_plainly():
    convolution = make_convolution().cuda()
    images = make_images(2, 40, 8, 8).cuda()
    winograd = WinogradConv2d(convolution.cpu()).cuda()
    torch.testing.assert_close(winograd(images), convolution.cuda()(images))


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


def test_it_is_compiled_where_nothing_can_be_kept(monkeypatch):
    from skpadim.backbones import _winograd_kernel

    keeps = []

    def cfunc(signature, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        keeps.append(cache)
        return lambda function: function

    monkeypatch.setattr(_winograd_kernel, "cfunc", cfunc)
    assert callable(_winograd_kernel._compile("any"))
    assert keeps == [False]


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
