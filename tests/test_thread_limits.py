"""Work that is shared out to threads leaves torch in the caller's process as it was."""

import subprocess
import sys
import threading

import pytest
import torch

from skpadim._blocks import each_block
from skpadim._thread_limits import _local_setters, threads_limited

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


def test_a_fit_leaves_torchs_linear_algebra_right():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


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
        monkeypatch.setattr("skpadim._thread_limits._local_setters", lambda: None)

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
