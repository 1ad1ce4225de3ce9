"""Runs of several sides in turn, and what a table says of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np


def parse_arguments(doc: str, *, precisions: Iterable[str] = (), **numbers: int):
    """Read options that are numbers, with their defaults, and which precisions to measure."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    if precisions:  # a CPU without bfloat16 arithmetic takes very long over it
        all_of_them = list(precisions)
        parser.add_argument("--precisions", nargs="+", choices=all_of_them, default=all_of_them)
    return parser.parse_args()


def alternate(works: Mapping[str, Callable[[], object]], runs: int) -> dict[str, np.ndarray]:
    """Seconds of each work in each of `runs` rounds, after a round that is not counted.

    In a round each work runs once, so what slows the machine for a while slows all sides.
    """
    seconds = {name: [] for name in works}
    for run in range(runs + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if run > 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def times_faster(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How many times faster we are: the median over the rounds."""
    return float(np.median(theirs / ours))


def quickest(seconds: Mapping[str, np.ndarray], names: Iterable[str]) -> str:
    """The name with the smallest median."""
    return min(names, key=lambda name: np.median(seconds[name]))


def spread(values: np.ndarray, digits: int = 1) -> str:
    """Median (minimum to maximum)."""
    low, middle, high = np.min(values), np.median(values), np.max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def print_header(*columns: str) -> None:
    print()
    print_row(*columns)
    print("|" + "---|" * len(columns), flush=True)


def print_bars(bars: Iterable[tuple[str, float, str, float]]) -> None:
    """Table of what was measured beside what is wanted: name, measured, ">=" or "<=", limit."""
    print_header("bar", "measured", "wanted", "met")
    for name, value, sign, limit in bars:
        met = value >= limit if sign == ">=" else value <= limit
        print_row(name, f"{value:.3g}", f"{sign} {limit:g}", "yes" if met else "NO")
