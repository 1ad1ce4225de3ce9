"""Winograd's convolutions equal the plain ones, and are put where they are faster."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skpadim import PatchEmbedder
from skpadim.backbones import load_backbone
from skpadim.backbones._winograd import WinogradConv2d, with_winograd

LAYERS = ("layer1", "layer2", "layer3")


def make_convolution(n_in=130, n_out=129, **parameters):
    torch.manual_seed(n_in)
    return nn.Conv2d(n_in, n_out, 3, padding=1, **parameters).requires_grad_(False)


def make_images(*shape):
    generator = torch.Generator().manual_seed(len(shape))
    return torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)


def relative_error(outputs, expected):
    return float((outputs - expected).abs().max() / expected.abs().max())


@settings(max_examples=40, deadline=None)
@given(
    n_images=st.integers(1, 9),
    height=st.integers(6, 21),
    width=st.integers(6, 21),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bias=st.booleans(),
)
def test_equals_the_convolution_in_float64(n_images, height, width, channels, bias):
    convolution = make_convolution(*channels, bias=bias)
    images = make_images(n_images, channels[0], height, width)
    outputs = WinogradConv2d(convolution)(images)
    expected = convolution.double()(images.double())
    assert outputs.shape == expected.shape
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert relative_error(outputs, expected) < 5e-6


def test_images_do_not_depend_on_their_neighbours():
    winograd = WinogradConv2d(make_convolution())
    images = make_images(20, 130, 16, 16)  # more than are taken together
    one_by_one = torch.cat([winograd(image[None]) for image in images])
    assert relative_error(winograd(images), one_by_one) < 1e-6


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 130, 5, 16), torch.float32), ((2, 130, 8, 8), torch.float64)],
)
def test_what_it_is_not_for_is_convolved_plainly(shape, dtype):
    convolution = make_convolution(dtype=dtype)
    images = make_images(*shape).to(dtype)
    assert torch.equal(WinogradConv2d(convolution)(images), convolution(images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_convolves_plainly():
    convolution = make_convolution().cuda()
    images = make_images(2, 130, 8, 8).cuda()
    torch.testing.assert_close(WinogradConv2d(convolution)(images), convolution(images))


def replaced(network):
    return [name for name, m in network.named_modules() if isinstance(m, WinogradConv2d)]


@pytest.fixture
def avx2(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def test_wide_convolutions_without_stride_are_replaced(avx2):
    network = load_backbone("resnet18", weights=None).cut(LAYERS).for_inference()
    names = [
        *("layer2.0.conv2", "layer2.1.conv1", "layer2.1.conv2"),
        *("layer3.0.conv2", "layer3.1.conv1", "layer3.1.conv2"),
    ]
    assert replaced(with_winograd(network)) == [f"module.{name}" for name in names]
    assert replaced(network) == []


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.Conv2d(128, 128, 5, padding=1),
        nn.Conv2d(64, 128, 3, padding=1),
    ],
)
def test_other_convolutions_are_left(avx2, module):
    network = load_backbone("resnet18", weights=None).with_modules({"module": module})
    assert replaced(with_winograd(network)) == []


def test_nothing_is_replaced_where_the_plain_convolution_is_fast(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert replaced(with_winograd(load_backbone("resnet18", weights=None))) == []


def test_embeddings_are_those_of_the_plain_network(avx2, monkeypatch, good):
    def embed():
        embedder = PatchEmbedder("resnet18", weights=None, random_state=0, image_size=96)
        embeddings = embedder.set_params(crop_size=None, device="cpu").fit_transform(good[:6])
        return torch.from_numpy(embeddings), embedder

    fast, embedder = embed()
    assert replaced(embedder._network_on(torch.device("cpu"), LAYERS, True)[0])
    monkeypatch.setattr("skpadim._embedding.with_winograd", lambda network: network)
    plain, _ = embed()
    assert relative_error(fast, plain) < 5e-6
