import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skpadim import PadimDetector
from skpadim.backbones import _weights
from skpadim.datasets import make_defects

TILES = Path(__file__).parents[2] / "shared" / "data" / "magnetic_tile"


@pytest.fixture(scope="session")
def parts():
    """24 good parts and 9 with plain defects, of 64 x 64 pixels."""
    return make_defects(24, 9, difficulty=0, image_size=64, random_state=0)


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
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(_weights, "_failures", {})
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        # Port 9 of this machine: connections are refused at once.
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def serve():
    """Start an HTTP server on this machine with some content, a dict of path to bytes."""
    servers = []

    def start(content):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                body = content.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                length = len(body) + server.bytes_withheld
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.requests, server.content, server.bytes_withheld = [], content, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
