"""Progress on the standard error: a bar on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm.std import tqdm

SECONDS_BETWEEN_LINES = 5


def progress_of(total: int | None, description: str | None, verbose: int = 1):
    """What shows how many images are done, if anything; a context with ``update(n)`` as tqdm's."""
    if not (verbose and description):
        return tqdm(disable=True)
    if sys.stderr.isatty():
        # The time left by the average rate: what is fitted and what is scored takes turns.
        return tqdm(total=total, desc=description, unit="image", smoothing=0)
    return _Lines(total, description)


class _Lines:
    """As much of tqdm as is used here, in lines for a log; none of what is done in no time."""

    def __init__(self, total, description):
        self.total, self.description, self.n = total, description, 0
        self._start = self._last = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._last > self._start:
            self._print()

    def set_description(self, description):
        self.description = description

    def update(self, n):
        self.n += n
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._print()

    def _print(self):
        self._last = time.monotonic()
        seconds = self._last - self._start
        of = "" if self.total is None else f" of {self.total}"
        took = tqdm.format_interval(seconds)
        if self.total and 0 < self.n < self.total:
            left = seconds * (self.total - self.n) / self.n
            took += f", {tqdm.format_interval(left)} left"
        print(f"{self.description}: {self.n}{of} images, {took}", file=sys.stderr, flush=True)
