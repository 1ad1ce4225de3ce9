"""Work in a process of its own: its seconds and its peak memory.

A script calls :func:`measure` for a row of its table, which starts the script again with
``--child`` and the row's arguments; there :func:`run_child` does the work and reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

_OUT_OF_MEMORY = ("MemoryError", "allocate memory", "not enough memory")


def measure(script: str, *arguments: object) -> dict[str, float] | None:
    """What the child reports; None if there was not enough memory for it.

    That is "<step> seconds" and "<step> MiB", the peak of the whole process during the step.
    """
    command = [sys.executable, script, "--child", *map(str, arguments)]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode == 0:
        return json.loads(child.stdout.splitlines()[-1])
    killed = child.returncode == -9  # by the kernel, for want of memory
    if killed or any(sign in child.stderr for sign in _OUT_OF_MEMORY):
        return None
    raise RuntimeError(f"{' '.join(command)} failed:\n{child.stderr}")


def is_child() -> bool:
    return sys.argv[1:2] == ["--child"]


def run_child(steps: Callable[..., Iterable[tuple[str, Callable[[], object]]]]) -> None:
    """Do named steps, made from the arguments of the command line, and report each."""
    with suppress(OSError):  # should memory run out, this process is the one to be killed
        Path("/proc/self/oom_score_adj").write_text("1000")
    report = {}
    for name, step in steps(*sys.argv[2:]):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        start = time.perf_counter()
        step()
        report[f"{name} seconds"] = time.perf_counter() - start
        report[f"{name} MiB"] = _peak_mib()
    print(json.dumps(report))


def _peak_mib():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
