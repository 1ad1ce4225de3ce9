import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skpadim import PadimDetector
from skpadim.datasets import make_defects

TILES = Path(__file__).parents[2] / "shared" / "data" / "magnetic_tile"


@pytest.fixture(scope="session")
def parts():
    """24 good and 9 defective parts of 64 x 64 pixels."""
    return make_defects(24, 9, image_size=64, random_state=0)


@pytest.fixture(scope="session")
def good(parts):
    return parts.data[parts.target == 1]


@pytest.fixture(scope="session")
def folder(parts, tmp_path_factory):
    """The parts as PNG files; the good ones first when sorted."""
    root = tmp_path_factory.mktemp("parts")
    for index, image in enumerate(parts.data):
        Image.fromarray(image).save(root / f"part_{index:03}.png")
    return root


@pytest.fixture(scope="session")
def tiles():
    """Root of the magnetic tiles, real photographs; skips where they are absent."""
    if not TILES.is_dir():
        pytest.skip("the magnetic tiles are not on this machine")
    return TILES


@pytest.fixture
def make_detector():
    """Make a small, repeatable detector."""

    def make(backbone="filter_bank", **parameters):
        defaults = {"image_size": 64, "crop_size": None, "random_state": 0, "batch_size": 8}
        return PadimDetector(backbone, **{**defaults, **parameters})

    return make


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache of weights, and a network on which nothing answers."""
    from skpadim.backbones import _weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(_weights, "_failures", {})
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        # Port 9 of this machine: connections are refused at once.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert "TORCH_HOME" in os.environ


@pytest.fixture
def rng():
    return np.random.default_rng(0)
