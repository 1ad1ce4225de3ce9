"""Compiled loops keep to their memory, share work out to threads, and can be done without."""

import importlib.util
import sys
import threading

import numpy as np
import pytest
import torch

from skpadim.gaussian import _linalg
from skpadim.gaussian._linalg import has_kernels, run_kernel

numba = pytest.importorskip("numba")

pytestmark = pytest.mark.usefixtures("compiled_kernels")


@pytest.fixture
def fresh():
    """Look for compiled loops anew in a test, and again after it."""
    for found in (_linalg._kernels, _linalg._compiled):
        found.cache_clear()
    yield
    for found in (_linalg._kernels, _linalg._compiled):
        found.cache_clear()


def make_arguments(n_positions=40, n_features=100):
    """Of an update of Gaussians; enough to be shared out."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(7, n_positions, n_features, generator=generator)
    mean = torch.zeros(n_positions, n_features, dtype=torch.float64)
    scatter = torch.zeros(n_positions, n_features * (n_features + 1) // 2, dtype=torch.float64)
    return n_positions, embeddings, mean, scatter, 0


@pytest.fixture
def kernels_in_python(monkeypatch):
    """The module of loops, not compiled: NumPy then checks the indices."""
    from skpadim.gaussian import _kernels

    spec = importlib.util.spec_from_file_location("kernels_in_python", _kernels.__file__)
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr("numba.config.DISABLE_JIT", True)
        spec.loader.exec_module(module)
    module._copy_row = lambda row, target, bits: target.__setitem__(slice(len(row)), row)
    return module


@pytest.mark.parametrize("n_samples", [1, 2, 9, 33])
@pytest.mark.parametrize("n_features", [1, 2, 3, 5, 7])
def test_loops_keep_to_their_arrays(kernels_in_python, n_features, n_samples):
    rng = np.random.default_rng(0)
    # Of types that the library has, so that none are compiled for this test alone.
    embeddings = rng.normal(size=(n_samples, 2, n_features))
    size = n_features * (n_features + 1) // 2
    mean, scatter, factors = np.zeros((2, n_features)), np.zeros((2, size)), np.zeros((2, size))
    inverse = rng.normal(size=(2, n_samples * (n_samples + 1) // 2))
    distances, low_rank = np.zeros((2, n_samples, 2))
    for name, *arguments in (
        ("add_scatter", embeddings, mean, scatter, 5),
        ("inverse_factors", scatter, 10, 0.1, factors),
        ("mahalanobis", embeddings, mean, factors, distances, np.dtype(np.float64)),
        ("low_rank_mahalanobis", embeddings, mean, embeddings, inverse, 0.1, low_rank),
    ):
        given = [each.copy() if isinstance(each, np.ndarray) else each for each in arguments]
        getattr(kernels_in_python, name)(*arguments, 0, 2)
        tensors = [torch.from_numpy(e) if isinstance(e, np.ndarray) else e for e in given]
        assert run_kernel(name, 2, *tensors)
        for one, other in zip(arguments, given, strict=True):
            if isinstance(one, np.ndarray):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_each_position_is_worked_on_once_by_any_number_of_threads(threads):
    found = []
    for n_threads in (1, 2, 3):
        threads(n_threads)
        _, _, mean, scatter, _ = arguments = make_arguments()
        assert run_kernel("add_scatter", *arguments)
        found.append((mean, scatter))
    for mean, scatter in found[1:]:
        assert torch.equal(mean, found[0][0])
        assert torch.equal(scatter, found[0][1])


def test_no_thread_is_started_for_little_work(threads, monkeypatch):
    threads(2)
    monkeypatch.setattr(_linalg, "_pool", None)
    assert run_kernel("add_scatter", *make_arguments(n_positions=1))
    with pytest.raises(TypeError):
        run_kernel("add_scatter", *make_arguments())


# In a process of its own, since torch warns of forks where it has threads. At last the main thread
# ends, and with it what starts threads for pools.
FORK_AND_LATE_THREAD = """
import os
import threading
import warnings
from pathlib import Path
import torch
from skpadim.gaussian._linalg import run_kernel

warnings.simplefilter("ignore")
torch.set_num_threads(2)
scatter = torch.zeros(40, 5050, dtype=torch.float64)
arguments = 40, torch.ones(7, 40, 100), torch.zeros(40, 100, dtype=torch.float64), scatter, 1
assert run_kernel("add_scatter", *arguments)
if hasattr(os, "fork"):
    child = os.fork()
    assert run_kernel("add_scatter", *arguments)
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def work():
    threading.main_thread().join()
    assert run_kernel("add_scatter", *arguments)
    Path(sys.argv[1]).touch()

threading.Thread(target=work).start()
"""


def test_a_forked_process_and_a_thread_that_outlives_the_main_one_go_on(start_process, tmp_path):
    process = start_process(FORK_AND_LATE_THREAD, tmp_path / "done")
    process.join(60)
    process.kill()
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize(
    "change", [lambda x: x.mT.contiguous().mT, torch._neg_view, torch.Tensor.half]
)
def test_what_a_loop_does_not_take_is_left_as_it_is(change):
    n_positions, embeddings, mean, scatter, count = make_arguments()
    assert not run_kernel("add_scatter", n_positions, change(embeddings), mean, scatter, count)
    gradients = embeddings.requires_grad_()
    assert not run_kernel("add_scatter", n_positions, gradients, mean, scatter, count)
    assert not scatter.any()
    with torch.no_grad():
        assert run_kernel("add_scatter", n_positions, gradients, mean, scatter, count)


def test_there_are_none_without_numba(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "skpadim.gaussian._kernels", raising=False)
    monkeypatch.delattr("skpadim.gaussian._kernels", raising=False)
    assert not has_kernels()
    assert not run_kernel("add_scatter", *make_arguments())


def test_there_are_none_where_numba_is_told_to_compile_nothing(monkeypatch, fresh):
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    assert not has_kernels()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot cache function: no locator available"),
        OSError("No space left on device"),
        EOFError("Ran out of input"),  # what was kept is damaged
    ],
)
def test_loops_are_compiled_where_nothing_can_be_kept(monkeypatch, fresh, error):
    jit = numba.jit

    def keep_nothing(function, cache=False, **options):
        if cache:
            raise error
        return jit(function, **options)

    monkeypatch.setattr("numba.jit", keep_nothing)
    arguments = make_arguments()
    assert run_kernel("add_scatter", *arguments)
    assert arguments[3].any()


def test_a_compiler_that_fails_is_told_of_and_done_without(monkeypatch, fresh):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("numba.jit", fail)
    with pytest.warns(RuntimeWarning, match=r"OSError: disk full.*more slowly"):
        assert not run_kernel("add_scatter", *make_arguments())
    assert not run_kernel("add_scatter", *make_arguments())  # and told once


def test_no_two_types_share_a_file_of_machine_code(monkeypatch, fresh):
    names = []

    def see(function, **options):
        names.append(function.__qualname__)
        raise OSError

    monkeypatch.setattr("numba.jit", see)
    for dtype in (torch.float32, torch.float64):
        n_positions, embeddings, *rest = make_arguments()
        with pytest.warns(RuntimeWarning, match="more slowly"):
            run_kernel("add_scatter", n_positions, embeddings.to(dtype), *rest)
    first, _, second, _ = names  # each is tried without a file, too
    assert first != second


def test_threads_of_the_caller_work_at_once(threads):
    threads(2)
    expected = make_arguments()
    run_kernel("add_scatter", *expected)
    found = [make_arguments() for _ in range(6)]
    callers = [threading.Thread(target=run_kernel, args=("add_scatter", *each)) for each in found]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(torch.equal(each[3], expected[3]) for each in found)
