"""Workers whose allocator gives all freed memory back keep it while they have a task."""

import os
import platform
import subprocess
import sys

import pytest

# Pages that are asked for anew when an array of 4 MiB is made and freed again: none, or all.
SCRIPT = """
import resource
import numpy as np
from skpadim._freed_memory import freed_memory_kept

def pages():
    start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(2**20, dtype=np.float32)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start) / 20

pages()
before = pages()
with freed_memory_kept():
    pages()
    within = pages()
    with freed_memory_kept():
        pass
    still_within = pages()
print(before, within, still_within, pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("threshold", ["65536", None])
def test_memory_is_kept_within_a_task_only(threshold):
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    if threshold is not None:
        environment["MALLOC_TRIM_THRESHOLD_"] = threshold
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    before, within, still_within, after = map(float, run.stdout.split())
    if threshold is None:  # glibc adapts by itself
        assert max(before, within, still_within, after) < 20
    else:
        assert max(within, still_within) < min(before, after) / 4
