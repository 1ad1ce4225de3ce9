import os

# Threads of torch that wait sleep, here and in the processes that tests start. Read on its import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import copy
import csv
import importlib.util
import multiprocessing
import platform
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky.backend import context as loky_context
from PIL import Image
from threadpoolctl import threadpool_limits

from skpadim import PadimDetector
from skpadim.backbones import _weights
from skpadim.datasets import make_defects
from skpadim.datasets._public import DATASETS

collect_ignore = ["backbones/winograd/guarded_loops.py"]  # a script that a test starts

TILES = Path(__file__).parents[2] / "shared" / "data" / "magnetic_tile"

MAX_PROCESSES = 8  # of up to 3 GB each

PRELOADED = [
    "torchvision.models",
    *("skpadim._padim", "skpadim.benchmark", "skpadim.gaussian._kernels", "skpadim.__main__"),
]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at its options
def pytest_cmdline_main(config):
    """Share the whole suite out to all cores, where pytest-xdist is installed.

    What is named on the command line is run in this process, and so is all with ``-n 0``, and where
    somebody wants to look on: ``--pdb``, ``--trace``, ``-s``.
    """
    option = config.option
    if (
        getattr(option, "numprocesses", 0) is None  # not asked for, and there is such an option
        and not hasattr(config, "workerinput")
        and config.args_source is config.ArgsSource.TESTPATHS
        and not (option.usepdb or option.trace or option.capture == "no")
        and (n_cores := joblib.cpu_count()) > 1
    ):
        option.numprocesses = min(n_cores, MAX_PROCESSES)
        if option.dist == "no":
            option.dist = "worksteal"
        # Processes of the tests share the cores: threads that wait must not spin.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if n_cores > 2:
            # Each process has several threads still, but not one for each core.
            n_threads = max(2, n_cores // option.numprocesses)
            os.environ.setdefault("OMP_NUM_THREADS", str(n_threads))


def pytest_collection_modifyitems(items):
    """Tests with workers come first: divided at the end, they would start theirs once more."""
    items.sort(key=lambda item: item.path.name != "test_parallel.py")


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """NumPy's BLAS has one thread: with small matrices more of them only wait, and actively."""
    with threadpool_limits(1, user_api="blas"):
        yield


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


@pytest.fixture(scope="session")
def compiled_loops():
    """Skip where there can be none."""
    if not (
        sys.platform == "linux"
        and platform.machine() == "x86_64"
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and importlib.util.find_spec("numba")
    ):
        pytest.skip("needs Linux, a CPU with AVX2, and Numba")


@pytest.fixture(scope="session", autouse=True)
def prepared_processes():
    """How processes start where the imports, which take seconds, are done; joblib's do so too.

    They are forked from one that has done nothing else.
    """
    if not hasattr(os, "fork"):
        yield multiprocessing.get_context("spawn")
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    loky_context.set_start_method("forkserver", force=True)
    # Arrays go along with tasks: such workers do not let joblib know when they are done with its
    # files, and it would wait for a second at each call.
    with joblib.parallel_config(max_nbytes=None):
        yield context
    loky_context.set_start_method(None, force=True)


@pytest.fixture(scope="session")
def start_process(prepared_processes):
    """Start a program in a process of its own, where the imports are done."""

    def start(program, *arguments):
        program = f"import sys\nsys.argv[1:] = {[*map(str, arguments)]}\n{program}"
        process = prepared_processes.Process(target=exec, args=(program, {"__name__": "__main__"}))
        process.start()
        return process

    return start


@pytest.fixture
def threads():
    """Set the number of torch's threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def drawn_once(monkeypatch):
    """The random weights of a small network are drawn once in a session, and copied."""
    from skpadim.backbones import _torchvision

    def load(name, weights, random_state):
        if (name, weights, random_state) != ("resnet18", None, 0):
            return load_anew(name, weights, random_state)
        if not _drawn:
            _drawn.append(load_anew(name, weights, random_state))
        return copy.deepcopy(_drawn[0])

    load_anew = _torchvision._load_network
    monkeypatch.setattr(_torchvision, "_load_network", load)


_drawn = []


@pytest.fixture
def make_detector(request):
    """Make a small, repeatable detector."""

    def make(backbone="filter_bank", **parameters):
        if backbone == "resnet18":
            request.getfixturevalue("drawn_once")
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
    """Start an HTTP server on this machine with some content, a dict of path to bytes.

    ``server.faults`` is a list, taken from its start, a fault a request: a status to answer with,
    "drop" (half of what is asked for), "ignore range", or None. ``server.ranges`` holds the Range
    headers of all requests.
    """
    servers = []

    def start(content):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                wanted = self.headers.get("Range")
                server.ranges.append(wanted)
                fault = server.faults.pop(0) if server.faults else None
                body = content.get(self.path)
                if body is None or isinstance(fault, int):
                    self.send_error(fault or 404)
                    return
                start = 0
                if wanted and fault != "ignore range":
                    start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                    if start >= len(body):
                        self.send_error(416)
                        return
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                else:
                    self.send_response(200)
                rest = body[start:]
                self.send_header("Content-Length", str(len(rest) + server.bytes_withheld))
                self.end_headers()
                self.wfile.write(rest[: len(rest) // 2] if fault == "drop" else rest)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.requests, server.content, server.bytes_withheld = [], content, 0
        server.faults, server.ranges = [], []
        # It looks for its end at such intervals.
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# Made-up copies of the data sets' layouts, with their oddities: tiny images, all categories.

SIZE = (48, 64)  # height and width


class Painter:
    """Grey noise, and a bright square where a mask says so."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def image(self, path, mask=None):
        pixels = self.rng.integers(90, 110, size=(*SIZE, 3), dtype=np.uint8)
        if mask is not None:
            pixels[mask] = 250
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format="PNG" if path.suffix == ".JPG" else None)

    def defect(self):
        row, column = self.rng.integers(4, SIZE[0] - 16, size=2)
        mask = np.zeros(SIZE, dtype=bool)
        mask[row : row + 12, column : column + 12] = True
        return mask

    def mask(self, path, mask, value=255):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(value)).save(path)


def litter(folder):
    """Files that are no images, as archives and file managers leave them."""
    for name in ("Thumbs.db", ".DS_Store", "readme.txt", "license.txt", "._000.png"):
        (folder / name).write_bytes(b"no image")


def _factory(name, write_category, after=None):
    """A function that writes a data set's categories below a folder, and returns the folder."""

    @pytest.fixture
    def make(tmp_path):
        def write(root=None, categories=DATASETS[name].categories, n_train=6):
            root = root or tmp_path / name
            painter = Painter()
            for category in categories:
                write_category(root / category, painter, n_train)
            litter(root)
            if after is not None:
                after(root, categories, n_train)
            return root

        return write

    return make


def _write_mvtec_ad(folder, painter, n_train):
    for index in range(n_train):
        painter.image(folder / "train/good" / f"{index:03}.png")
    for index in range(3):
        painter.image(folder / "test/good" / f"{index:03}.png")
    for kind, suffix in (("broken", ".png"), ("dirt", ".PNG")):
        for index in range(2):
            mask = painter.defect()
            painter.image(folder / "test" / kind / f"{index:03}{suffix}", mask)
            painter.mask(folder / "ground_truth" / kind / f"{index:03}_mask.png", mask)
    for each in ("", "train/good", "test", "test/dirt", "ground_truth/dirt"):
        litter(folder / each)


def _write_btad(folder, painter, n_train):
    image, mask_suffix = {"01": (".bmp", ".png"), "02": (".png", ".png")}.get(
        folder.name, (".bmp", ".bmp")
    )
    for index in range(n_train):
        painter.image(folder / "train/ok" / f"{index:04}{image}")
    for index in range(3):
        painter.image(folder / "test/ok" / f"{index:04}{image}")
        mask = painter.defect()
        painter.image(folder / "test/ko" / f"{index:04}{image}", mask)
        painter.mask(folder / "ground_truth/ko" / f"{index:04}{mask_suffix}", mask)
    litter(folder / "test/ko")


def _write_visa(folder, painter, n_train):
    for index in range(n_train + 2):
        painter.image(folder / "Data/Images/Normal" / f"{index:04}.JPG")
    for index in range(3):
        mask = painter.defect()
        painter.image(folder / "Data/Images/Anomaly" / f"{index:03}.JPG", mask)
        painter.mask(folder / "Data/Masks/Anomaly" / f"{index:03}.png", mask, value=index + 1)
    (folder / "image_anno.csv").write_text("image,label,mask\n")
    litter(folder / "Data/Images/Normal")


def _write_visa_splits(root, categories, n_train):
    rows = []
    for category in categories:
        for index in reversed(range(n_train + 2)):
            split = "train" if index >= 2 else "test"
            image = f"{category}/Data/Images/Normal/{index:04}.JPG"
            rows.append((category, split, "normal", image, ""))
        for index in range(3):
            image = f"{category}/Data/Images/Anomaly/{index:03}.JPG"
            mask = f"{category}/Data/Masks/Anomaly/{index:03}.png"
            rows.append((category, "test", "anomaly", image, mask))
    (root / "split_csv").mkdir()
    with (root / "split_csv/1cls.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])


def _write_visa_one_class(folder, painter, n_train):
    for index in range(n_train):
        painter.image(folder / "train/good" / f"{index + 2:04}.JPG")
    for index in range(2):
        painter.image(folder / "test/good" / f"{index:04}.JPG")
    for index in range(3):
        mask = painter.defect()
        painter.image(folder / "test/bad" / f"{index:03}.JPG", mask)
        painter.mask(folder / "ground_truth/bad" / f"{index:03}.png", mask)


def _write_mvtec_loco(folder, painter, n_train):
    for split, count in (("train", n_train), ("validation", 2), ("test", 3)):
        for index in range(count):
            painter.image(folder / split / "good" / f"{index:03}.png")
    for kind in ("logical_anomalies", "structural_anomalies"):
        for index in range(2):
            masks = [painter.defect() for _ in range(index + 1)]
            painter.image(folder / "test" / kind / f"{index:03}.png", np.any(masks, axis=0))
            truth = folder / "ground_truth" / kind / f"{index:03}"
            for number, mask in enumerate(masks):
                painter.mask(truth / f"{number:03}.png", mask, value=200 + number)
            litter(truth)
    (folder / "defects_config.json").write_text("[]")


def _write_mvtec_ad_2(folder, painter, n_train):
    for split, count in (("train", n_train), ("validation", 2), ("test_public", 3)):
        for index in range(count):
            painter.image(folder / split / "good" / f"{index:03}_regular.png")
    for index in range(3):
        mask = painter.defect()
        painter.image(folder / "test_public/bad" / f"{index:03}_overexposed.png", mask)
        truth = folder / "test_public/ground_truth/bad"
        painter.mask(truth / f"{index:03}_overexposed_mask.png", mask)
        painter.image(folder / "test_private" / f"{index:03}_regular.png")
        painter.image(folder / "test_private_mixed" / f"{index:03}_mixed.png")


make_mvtec_ad = _factory("mvtec_ad", _write_mvtec_ad)
make_btad = _factory("btad", _write_btad)
make_visa = _factory("visa", _write_visa, after=_write_visa_splits)
make_visa_one_class = _factory("visa", _write_visa_one_class)
make_mvtec_loco = _factory("mvtec_loco", _write_mvtec_loco)
make_mvtec_ad_2 = _factory("mvtec_ad_2", _write_mvtec_ad_2)


@pytest.fixture
def make_data_set(request):
    """Make any data set by its key in the catalogue: ``make_data_set(name, categories=...)``."""

    def make(name, **options):
        return request.getfixturevalue(f"make_{name}")(**options)

    return make


@pytest.fixture
def painter():
    return Painter()
