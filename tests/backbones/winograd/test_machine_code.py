"""Loops are compiled where they can be, kept, and done without elsewhere."""

import sys

import numpy as np
import pytest
import torch

from skpadim.backbones.winograd._convolution import compiled_loop
from skpadim.backbones.winograd._machine_code import compile_loop

pytestmark = pytest.mark.usefixtures("compiled_loops")
TASK = np.dtype([("number", np.int64)])


@pytest.fixture
def fresh():
    """Look for compiled loops anew in a test, and again after it."""
    compiled_loop.cache_clear()
    yield
    compiled_loop.cache_clear()


def test_there_are_none_on_other_cpus(monkeypatch, fresh):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert compiled_loop(torch.float32) is None


def test_there_are_none_for_other_numbers(fresh):
    assert compiled_loop(torch.float64) is None


def test_there_are_none_without_numba(monkeypatch, fresh):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "skpadim.backbones.winograd._loop", raising=False)
    assert compiled_loop(torch.float32) is None


def test_a_compiler_that_fails_is_told_of_and_done_without(monkeypatch, fresh):
    from skpadim.backbones.winograd import _loop

    def fail(*arguments):
        raise OSError("disk full")

    _loop.compiled.cache_clear()
    monkeypatch.setattr(_loop, "compile_loop", fail)
    with pytest.warns(RuntimeWarning, match=r"OSError: disk full.*more slowly"):
        assert compiled_loop(torch.float32) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot cache function: no locator available"),
        OSError("No space left on device"),
        EOFError("Ran out of input"),
    ],
)
def test_it_is_compiled_where_nothing_can_be_kept(monkeypatch, error):
    def cfunc(signature, cache=False):
        if cache:
            raise error
        return lambda function: "compiled"

    monkeypatch.setattr("numba.cfunc", cfunc)
    assert compile_loop(lambda pointer: None, TASK, []) == "compiled"


def test_what_is_kept_is_named_after_all_that_it_depends_on(monkeypatch, tmp_path):
    monkeypatch.setattr("numba.cfunc", lambda *_, **__: lambda f: f.__qualname__)

    from skpadim.backbones.winograd import _vector_code

    def name():
        return compile_loop(lambda pointer: None, TASK, [_vector_code])

    before = name()
    assert name() == before
    assert compile_loop(lambda pointer: None, np.dtype([("number", "f4")]), []) != before
    changed = tmp_path / "code.py"
    changed.write_text("# other instructions")
    with monkeypatch.context() as patch:
        patch.setattr(_vector_code, "__file__", str(changed))
        assert name() != before
    with monkeypatch.context() as patch:
        patch.setattr("llvmlite.binding.get_host_cpu_name", lambda: "another")
        assert name() != before
    monkeypatch.setattr("skpadim.backbones.winograd._machine_code.vector_width", lambda: 4)
    assert name() != before


def test_kept_machine_code_calls_no_function_by_a_name_that_another_may_have():
    from numba.core.dispatcher import Dispatcher

    from skpadim.backbones.winograd import _loop

    functions = [value for value in vars(_loop).values() if isinstance(value, Dispatcher)]
    assert len(functions) >= 5
    for function in functions:  # two processes may call records of different fields alike
        assert function.targetoptions["inline"] == "always"
