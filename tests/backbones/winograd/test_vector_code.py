"""Compiled loops keep to their memory and give the same, however wide the CPU's registers are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("compiled_loops")


@pytest.fixture(params=[8, 16])
def width(request):
    """Of a register, for a process of its own; skips where this CPU has none so wide."""
    from llvmlite.binding import get_host_cpu_features

    if request.param == 16 and not get_host_cpu_features().get("avx512f"):
        pytest.skip("needs AVX-512")
    return request.param


def run(width, *arguments):
    environment = {**os.environ, "SKPADIM_VECTOR_WIDTH": str(width)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("adjoining", ["before", "behind"])
def test_no_loop_touches_memory_that_is_not_its_own(width, adjoining):
    result = run(width, Path(__file__).with_name("guarded_loops.py"), adjoining)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split() == [str(width)]


@pytest.mark.parametrize("wanted", ["4", "wide", "16.0", "08"])
def test_a_width_that_there_is_not_is_refused(wanted):
    code = """
import torch
from skpadim.backbones.winograd._convolution import compiled_loop
compiled_loop(torch.float32)
"""
    result = run(wanted, "-c", code)
    assert result.returncode != 0
    assert f"ValueError: SKPADIM_VECTOR_WIDTH={wanted!r}" in result.stderr
    assert "8" in result.stderr.splitlines()[-1]
