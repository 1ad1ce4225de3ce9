"""Compiled loops keep to their memory and give the same, however wide the CPU's registers are."""

from pathlib import Path

import pytest

from skpadim.backbones.winograd._convolution import compiled_loop
from skpadim.backbones.winograd._machine_code import vector_width

pytestmark = pytest.mark.usefixtures("compiled_loops")


@pytest.fixture(params=[8, 16])
def width(request):
    """Of a register, for a process of its own; skips where this CPU has none so wide."""
    from llvmlite.binding import get_host_cpu_features

    if request.param == 16 and not get_host_cpu_features().get("avx512f"):
        pytest.skip("needs AVX-512")
    return request.param


PROGRAM = """
import contextlib, os, runpy
_, os.environ["SKPADIM_VECTOR_WIDTH"], script, said = sys.argv
with open(said, "w") as file, contextlib.redirect_stdout(file):
    runpy.run_path(script)
"""


def test_no_loop_touches_memory_that_is_not_its_own(width, start_process, tmp_path):
    script, said = Path(__file__).with_name("guarded_loops.py"), tmp_path / "said"
    process = start_process(PROGRAM, width, script, said)
    process.join()
    assert process.exitcode == 0
    assert said.read_text().split() == ["before", "behind", str(width)]


@pytest.mark.parametrize("wanted", ["4", "wide", "16.0", "08"])
def test_a_width_that_there_is_not_is_refused(wanted, monkeypatch):
    monkeypatch.setenv("SKPADIM_VECTOR_WIDTH", wanted)
    for found_before in (vector_width, compiled_loop):
        found_before.cache_clear()
    with pytest.raises(ValueError, match=rf"^SKPADIM_VECTOR_WIDTH='{wanted}'.* 8"):
        compiled_loop()
