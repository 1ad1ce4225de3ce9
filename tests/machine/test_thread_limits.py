"""Work that is shared out to threads leaves torch in the caller's process as it was."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from skpadim.gaussian._linalg import each_block
from skpadim.machine._thread_limits import _local_setters, threads_limited
from skpadim.metrics._counts import in_threads

# In a process of its own: once torch's number of threads is set, MKL's ways stay changed.
SCRIPT = """
import joblib
import torch
from skpadim import PadimDetector, PatchGaussian

def largest_error():
    generator = torch.Generator().manual_seed(0)
    shape = (5, 256, 256)
    matrices = torch.randn(shape, dtype=torch.float64, generator=generator)
    identity = torch.eye(256, dtype=torch.float64)
    return float((matrices @ torch.linalg.inv(matrices) - identity).abs().max())

n_threads = torch.get_num_threads()
assert largest_error() < 1e-8
embeddings = torch.randn(20, 60, 60, 72, generator=torch.Generator().manual_seed(0)).numpy()
PatchGaussian(solver="low_rank").fit(embeddings).mahalanobis(embeddings[:2])
assert largest_error() < 1e-8
with joblib.parallel_config("threading", n_jobs=2):
    images = (255 * embeddings[:16, :, :, :3].clip(0, 1)).astype("uint8")
    PadimDetector("filter_bank", image_size=64, crop_size=None, batch_size=4).fit(images)
assert largest_error() < 1e-8
assert torch.get_num_threads() == n_threads
"""


def test_a_fit_leaves_torchs_linear_algebra_right(start_process):
    process = start_process(SCRIPT)
    process.join()
    assert process.exitcode == 0


def in_another_thread(function):
    """What a function returns in another Python thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("has_local", [True, False])
def test_a_thread_is_limited_and_the_others_are_not(monkeypatch, has_local):
    before = torch.get_num_threads()
    if not has_local:
        monkeypatch.setattr("skpadim.machine._thread_limits._local_setters", lambda: None)

    def limited():
        with threads_limited(before + 2):
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads()

    assert in_another_thread(limited) == (before + 2, before)
    assert limited() == (before + 2, before)
    assert in_another_thread(torch.get_num_threads) == torch.get_num_threads() == before


def test_limits_of_ones_own_are_kept():
    if _local_setters() is None:
        pytest.skip("needs Linux and MKL")
    _, set_mkl = _local_setters()
    set_mkl(3)
    try:
        with threads_limited(2):
            each_block(lambda _: None, 100, 2**20, torch.device("cpu"))
        assert set_mkl(0) == 3
    finally:
        set_mkl(0)


@pytest.mark.parametrize("has_local", [True, False])
def test_threads_that_overlap_leave_the_limit_as_it_was(monkeypatch, has_local):
    if not has_local:
        monkeypatch.setattr("skpadim.machine._thread_limits._local_setters", lambda: None)
    before = torch.get_num_threads()

    def limited(_):
        for _ in range(20):
            with threads_limited(1):
                time.sleep(0.0005)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(limited, range(4)))
    assert in_another_thread(torch.get_num_threads) == torch.get_num_threads() == before


# In a process of its own. The pool of NumPy's BLAS waits actively for a while, so nothing is
# multiplied before the limit is set, which starts that pool in a fork.
LIMITED = """
import time
from contextlib import nullcontext
import numpy as np, torch
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits
from skpadim import PadimDetector, PatchEmbedder, PatchGaussian
from skpadim.metrics import evaluate

folder = sys.argv[1]

def numbers_of_threads():
    "torch's, and those of each library, in whatever order they are listed."
    return torch.get_num_threads(), {
        library["filepath"]: library["num_threads"] for library in threadpool_info()
    }

def work_of_others():
    "Seconds that other threads than this one have computed, those that have ended too."
    return time.process_time() - time.thread_time()

def wait_for_others():
    before = -1
    while work_of_others() > before + 0.001:
        before = work_of_others()
        time.sleep(0.2)

def work():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    files = []
    for number, image in enumerate(images):
        files.append(f"{folder}/{number}.png")
        Image.fromarray(image).resize((300, 300)).save(files[-1])
    detector = PadimDetector("resnet18", weights=None, image_size=64, crop_size=None, batch_size=8,
                             random_state=0, n_features=40, projection="semi_orthogonal")
    detector.fit(files).score_samples(files)
    masks = np.zeros((8, 64, 64), bool)
    masks[:4, 9:20, 9:20] = True
    evaluate(detector, images[:8], np.repeat([-1, 1], 4), masks)
    PatchGaussian(solver="low_rank").fit(rng.normal(size=(300, 400))).get_covariance()
    for dtype in (np.float32, np.float64):
        rows = rng.normal(size=(60, 16, 16, 72)).astype(dtype)
        for solver in ("full", "low_rank"):
            PatchGaussian(solver=solver, calibration="leave_one_out").fit(rows).mahalanobis(rows)

for limit in ("threadpoolctl", "torch"):
    with threadpool_limits(1) if limit == "threadpoolctl" else nullcontext():
        if limit == "torch":
            torch.set_num_threads(1)
        wait_for_others()
        found, before = numbers_of_threads(), work_of_others()
        work()
        assert work_of_others() - before < 0.005, (limit, work_of_others() - before)
        after = numbers_of_threads()
        assert after[0] == found[0] == 1, (limit, found, after)
        assert found[1].items() <= after[1].items(), (limit, found, after)
"""


def test_one_thread_that_is_allowed_is_the_callers(tmp_path, start_process):
    if torch.get_num_threads() == 1:
        pytest.skip("needs several cores")
    process = start_process(LIMITED, tmp_path)
    process.join()
    assert process.exitcode == 0


def test_metrics_ask_for_the_limit_at_each_call(threads):
    threads(1)
    assert set(in_threads(lambda _: threading.get_ident(), [0] * 4)) == {threading.get_ident()}
