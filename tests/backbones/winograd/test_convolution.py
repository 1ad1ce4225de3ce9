"""Winograd's convolutions equal the plain ones."""

import copy
import pickle
import re
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from skpadim.backbones.winograd import WinogradConv2d, can_be_winograd

LAYERS = ("layer1", "layer2", "layer3")

pytestmark = pytest.mark.usefixtures("compiled_loops")


def make_convolution(n_in=40, n_out=37, **parameters):
    torch.manual_seed(n_in)
    return nn.Conv2d(n_in, n_out, 3, padding=1, **parameters).requires_grad_(False)


def make_images(*shape):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)


def relative_error(outputs, expected):
    return float((outputs - expected).abs().max() / expected.abs().max())


@settings(max_examples=60, deadline=None)
@given(
    n_images=st.integers(1, 9),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    n_in=st.integers(1, 70),
    n_out=st.integers(1, 70),
    bias=st.booleans(),
)
def test_equals_the_convolution_in_float64(n_images, height, width, n_in, n_out, bias):
    convolution = make_convolution(n_in, n_out, bias=bias)
    images = make_images(n_images, n_in, height, width)
    outputs = WinogradConv2d(convolution)(images)
    expected = convolution.double()(images.double())
    assert outputs.shape == expected.shape
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    terms = F.conv2d(images.double().abs(), convolution.weight.abs(), padding=1)
    assert (outputs - expected).abs().max() < 1e-6 * terms.max()
    if min(height, width) >= 6:  # of fewer outputs, all may happen to be small
        assert relative_error(outputs, expected) < 5e-6


@settings(max_examples=40, deadline=None)
@given(
    n_images=st.integers(1, 5),
    height=st.integers(1, 45),
    width=st.integers(1, 45),
    n_out=st.integers(1, 70),
    bias=st.booleans(),
)
def test_the_first_convolution_of_a_network_equals_that_in_float64(
    n_images, height, width, n_out, bias
):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, n_out, 7, stride=2, padding=3, bias=bias).requires_grad_(False)
    images = make_images(n_images, 3, height, width)
    outputs = WinogradConv2d(convolution)(images)
    expected = convolution.double()(images.double())
    assert outputs.shape == expected.shape
    terms = F.conv2d(images.double().abs(), convolution.weight.abs(), stride=2, padding=3)
    assert (outputs - expected).abs().max() < 1e-6 * terms.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(12, 8), (13, 10)], ids=["whole tiles", "parts of tiles"])
@pytest.mark.parametrize("is_added_to", [True, False])
def test_outputs_are_added_to_and_rectified(dtype, size, is_added_to):
    convolution = make_convolution(32, 48)
    images, added = make_images(2, 32, *size).to(dtype), make_images(2, 48, *size).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        winograd = WinogradConv2d(convolution, rectifies=True)
        outputs = winograd(images, added if is_added_to else None)
    expected = convolution.double()(images.double()) + added.double() * is_added_to
    assert outputs.dtype == dtype
    bound = {torch.float32: 5e-6, torch.bfloat16: 2**-8}[dtype]
    assert relative_error(outputs, expected.clamp(min=0)) < bound


def test_outputs_are_added_to_and_rectified_where_gradients_are_wanted():
    convolution = make_convolution()
    images, added = make_images(2, 40, 9, 9), make_images(2, 37, 9, 9)
    expected = torch.relu(convolution(images) + added)
    winograd = WinogradConv2d(convolution, rectifies=True)
    torch.testing.assert_close(winograd(images.requires_grad_(), added), expected)


@pytest.mark.parametrize(
    "change",
    [
        lambda added: added[:1],
        lambda added: added[:, :, :1],
        lambda added: added.double(),
        torch._neg_view,
        lambda added: added.contiguous(),
    ],
    ids=["one for all images", "one row for all", "precision", "negated view", "layout"],
)
def test_what_is_added_may_be_unusual(change):
    convolution = make_convolution()
    images, added = make_images(2, 40, 9, 9), change(make_images(2, 37, 9, 9))
    outputs = WinogradConv2d(convolution, rectifies=True)(images, added)
    torch.testing.assert_close(outputs, torch.relu(convolution(images) + added))


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_what_is_not_a_number_stays_so(is_bfloat16):
    winograd = WinogradConv2d(make_convolution(), rectifies=True)
    images = make_images(1, 40, 8, 8)
    images[0, 0, 0, 0] = torch.nan
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
        assert winograd(images)[0, :, 0, 0].isnan().all()


@pytest.mark.parametrize("share", [0.001, 0.0038, 0.0041, -0.0019, -0.0021])
def test_bfloat16_is_rounded_to_the_nearest(share):
    identity = nn.Conv2d(16, 16, 3, padding=1).requires_grad_(False)
    identity.weight.zero_()[range(16), range(16), 1, 1] = 1
    identity.bias.fill_(share)
    numbers = torch.tensor([1.0, -1.0, 1e-30, 3e30, 0.0, 255.0])
    images = numbers[:, None, None, None].repeat(1, 16, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = WinogradConv2d(identity)(images)
    expected = (numbers.to(torch.bfloat16) + share).to(torch.bfloat16)
    assert torch.equal(outputs[:, 0, 0, 0], expected)


@pytest.mark.parametrize("n_in", [16, 17, 24, 40, 56, 63])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_channels_is_convolved_in_one_pass(n_in, dtype, monkeypatch):
    convolution = make_convolution(n_in)
    assert can_be_winograd(convolution)
    images = make_images(2, n_in, 11, 13).to(dtype)
    expected = convolution.double()(images.double())
    monkeypatch.setattr(nn.Conv2d, "forward", None)  # which convolves plainly
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs = WinogradConv2d(convolution.float())(images)
    assert relative_error(outputs, expected) < {torch.float32: 5e-6, torch.bfloat16: 2**-8}[dtype]


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(40, 37, 3, padding=1, dilation=2),
        nn.Conv2d(40, 37, 3),
        nn.Conv2d(40, 37, 3, padding="same"),
        nn.Conv2d(40, 37, 3, padding=1, stride=2),
        nn.Conv2d(40, 36, 3, padding=1, groups=4),
        nn.Conv2d(40, 37, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(40, 37, 5, padding=1),
        nn.Conv2d(40, 37, 7, stride=2, padding=3),
        nn.Conv2d(4, 37, 7, stride=2, padding=3),
        nn.Conv2d(1, 37, 3, padding=1),
    ],
    ids=str,
)
def test_convolutions_of_other_kinds_are_convolved_plainly(convolution):
    images = make_images(2, convolution.in_channels, 12, 12)
    convolution.requires_grad_(False)
    assert not can_be_winograd(convolution)
    torch.testing.assert_close(WinogradConv2d(convolution)(images), convolution(images))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_parameters_of_another_size_raise_as_they_do_plainly(name):
    convolution = make_convolution()
    smaller = getattr(convolution, name)[:, :20] if name == "weight" else torch.ones(3)
    setattr(convolution, name, nn.Parameter(smaller, requires_grad=False))
    images = make_images(1, 40, 8, 8)
    with pytest.raises(RuntimeError) as plain:
        convolution(images)
    with pytest.raises(RuntimeError, match=re.escape(str(plain.value))):
        WinogradConv2d(convolution)(images)


@pytest.mark.parametrize("tile", [3, 4])
def test_the_transforms_are_exact_but_for_rounding(tile):
    from skpadim.backbones.winograd._transforms import transform_products, transform_window

    rng = np.random.default_rng(0)
    window, kernel = rng.normal(size=6), rng.normal(size=7 - tile)
    points = [0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5)]
    at_points = [*(kernel @ np.power(p, range(7 - tile)) for p in points), kernel[-1]]
    # What the kernels are divided by: the derivative of (x - p) (x - q) ... at each point.
    scale = [np.prod([p - q for q in points if q != p]) for p in points]
    at_points = np.divide(at_points, [*scale, 1])
    tile = transform_products(tile, *np.multiply(transform_window(*window), at_points))
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


def test_it_runs_on_the_threads_that_torch_has(start_process):
    code = """
import os, torch
from skpadim.backbones.winograd import WinogradConv2d, has_winograd
has_winograd(torch.float32)
torch.set_num_threads(3)
plain = torch.nn.Conv2d(32, 32, 3, padding=1).requires_grad_(False)
winograd = WinogradConv2d(plain)
images = torch.randn(4, 32, 64, 64)
torch.relu(torch.randn(2_000_000)), plain(images)
before = len(os.listdir("/proc/self/task"))
winograd(images)
assert len(os.listdir("/proc/self/task")) == before, "new threads"
"""
    process = start_process(code)
    process.join()
    assert process.exitcode == 0


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
    winograd.weight.data = 2 * other.weight
    other.weight *= 2
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
