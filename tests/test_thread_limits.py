"""Work that is shared out to threads leaves torch in the caller's process as it was."""

import subprocess
import sys
import threading

import pytest
import torch

from skpadim._thread_limits import lift_limit, limit_threads

# In a process of its own: once torch's number of threads is set, MKL's ways stay changed.
SCRIPT = """
import joblib
import torch
from skpadim import PadimDetector, PatchGaussian
from skpadim._moments import Samples

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


def threads_elsewhere(n=None):
    """How many threads torch uses in another Python thread, which is limited to `n`."""
    found = []

    def look():
        if n is not None:
            limit_threads(n)
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("has_local", [True, False])
def test_a_thread_is_limited_and_the_others_are_not(monkeypatch, has_local):
    before = torch.get_num_threads()
    if not has_local:
        monkeypatch.setattr("skpadim._thread_limits._local_setters", lambda: None)
    try:
        assert threads_elsewhere(before + 2) == before + 2
        assert torch.get_num_threads() == before
    finally:
        lift_limit(before)
    assert threads_elsewhere() == torch.get_num_threads() == before
