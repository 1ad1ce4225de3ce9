"""Progress: a bar on a terminal, lines elsewhere, nothing of what takes no time."""

import sys

import pytest

from skpadim import _progress
from skpadim._progress import progress_of


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, and is moved by hand."""
    times = [0.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: times[0])
    return times


def test_lines_come_every_few_seconds(clock, capsys):
    with progress_of(100, "Scoring") as progress:
        for _ in range(10):
            clock[0] += 2
            progress.update(10)
    assert capsys.readouterr().err.splitlines() == [
        "Scoring: 30 of 100 images, 00:06, 00:14 left",
        "Scoring: 60 of 100 images, 00:12, 00:08 left",
        "Scoring: 90 of 100 images, 00:18, 00:02 left",
        "Scoring: 100 of 100 images, 00:20",
    ]


def test_what_takes_no_time_says_nothing(clock, capsys):
    with progress_of(100, "Scoring") as progress:
        progress.update(100)
    assert capsys.readouterr() == ("", "")


def test_of_an_iterator_the_number_is_not_known(clock, capsys):
    with progress_of(None, "Scoring") as progress:
        clock[0] = 60
        progress.update(7)
    assert capsys.readouterr().err.startswith("Scoring: 7 images, 01:00\n")


def test_a_terminal_has_a_bar_at_once(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_of(100, "Scoring"):
        assert "\rScoring:   0%" in capsys.readouterr().err


@pytest.mark.parametrize(("description", "verbose"), [("Scoring", 0), ("", 1), (None, 1)])
def test_nothing_is_shown_unasked(description, verbose, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_of(100, description, verbose) as progress:
        progress.set_description("else")
        progress.update(5)
    assert capsys.readouterr() == ("", "")
