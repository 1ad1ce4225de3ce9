"""What is kept of networks: found again where it fits, and gone with its network."""

import gc

import numpy as np
import pytest
import torch

from skpadim import PatchEmbedder
from skpadim.embedding import _network

SETTINGS = {"weights": None, "crop_size": None, "random_state": 0, "image_size": 64}


@pytest.fixture
def made(monkeypatch):
    """A list that gets longer by each network that is made ready."""
    calls, make_ready = [], _network.make_ready

    def make(*arguments, **parameters):
        calls.append(arguments)
        return make_ready(*arguments, **parameters)

    monkeypatch.setattr(_network, "make_ready", make)
    return calls


def embed(images, **parameters):
    return PatchEmbedder("resnet18", **{**SETTINGS, **parameters}).fit_transform(images)


def test_the_embedders_of_a_search_have_one_ready_network(good, made, tmp_path):
    for number, n_features in enumerate((10, 20)):
        images = good[3 * number : 3 * number + 3]
        embed(images, memory=tmp_path, n_features=n_features)
    assert len(made) == 1


@pytest.mark.parametrize(
    "grid", [{"image_size": (64, 96)}, {"precision": ("float32", "bfloat16")},
             {"layers": (("layer1",), ("layer1", "layer2"))}, {"random_state": (0, 1)}]
)  # fmt: skip
def test_what_was_made_for_another_use_is_not_used(good, grid, tmp_path):
    ((name, values),) = grid.items()
    for value in (*values, values[0]):
        expected = embed(good[:3], **{name: value})
        kept = embed(good[:3], memory=tmp_path, **{name: value})
        np.testing.assert_allclose(kept, expected, atol=0.02 if value == "bfloat16" else 1e-5)


def test_other_features_of_one_network_are_not_mixed_up(good):
    embedder = PatchEmbedder("resnet18", n_features=40, **SETTINGS).fit()
    network, cpu = embedder._network, torch.device("cpu")
    arguments = (network, embedder.layers_, cpu, "float32")
    readies = [
        _network.ready_network(*arguments, compile=False, width=64, channels=channels)
        for channels in (np.arange(3), np.arange(3, 6))
    ]
    assert readies[0] is not readies[1]


def test_a_ready_network_goes_with_its_embedder(good):
    gc.collect()
    before = len(_network._ready)
    embedder = PatchEmbedder("resnet18", **SETTINGS).fit()
    embedder.transform(good[:1])
    assert len(_network._ready) == before + 1
    del embedder
    gc.collect()
    assert len(_network._ready) == before
