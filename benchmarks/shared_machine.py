"""Time of one image on an idle machine, and beside a process that computes all the time.

OpenMP's threads wait actively for each other: should another process have the core that one of them
needs, the others spin until it gets it back. Each row is a process of its own, since the way of
waiting is read when torch is loaded.

Usage: python benchmarks/shared_machine.py [--runs N] [--busy PROCESSES]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
from _setting import print_setting
from _timing import parse_arguments, print_header, print_row, spread

BACKBONES = ("filter_bank", "resnet18")
# What a row is called: variables of its environment, and threads (0 for all).
WAYS = {
    "as torch comes": ({}, 0),
    "`OMP_WAIT_POLICY=PASSIVE`": ({"OMP_WAIT_POLICY": "PASSIVE"}, 0),
    "`torch.set_num_threads(1)`": ({}, 1),
}
BUSY = "while True: sum(range(100_000))"


def main() -> None:
    options = parse_arguments(__doc__, runs=30, busy=1)
    print_setting("numpy")
    print_header("one image, ms", "waiting and threads", "idle machine", "busy machine", "ratio")
    for backbone in BACKBONES:
        for name, (variables, n_threads) in WAYS.items():
            arguments = backbone, n_threads, options.runs
            idle = measure(variables, *arguments)
            busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(options.busy)]
            try:
                beside = measure(variables, *arguments)
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
            ratio = f"{np.median(beside) / np.median(idle):.1f}"
            print_row(backbone, name, spread(idle), spread(beside), ratio)


def measure(variables: dict[str, str], *arguments: object) -> np.ndarray:
    """Milliseconds of each run in a process with these variables."""
    unset = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    child = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, env={**inherited, **variables}
    )
    return np.array(json.loads(child.stdout))


def run_child(backbone: str, n_threads: int, runs: int) -> None:
    import torch

    from skpadim import PadimDetector

    if n_threads:
        torch.set_num_threads(n_threads)
    images = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), dtype=np.uint8)
    detector = PadimDetector(backbone, weights=None, calibration=None, random_state=0).fit(images)
    milliseconds = []
    for run in range(runs + 3):  # the first make the network and the factors ready
        start = time.perf_counter()
        detector.score_samples(images[run % 8][None])
        milliseconds.append(1000 * (time.perf_counter() - start))
    print(json.dumps(milliseconds[3:]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
