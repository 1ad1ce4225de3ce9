"""The benchmark scripts can be found and are described; nothing here is timed."""

import ast
import importlib.util
import runpy
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.iterdir() if path.match("[a-z]*.py"))


@pytest.fixture
def timing():
    spec = importlib.util.spec_from_file_location("_timing", FOLDER / "_timing.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def main():
    return runpy.run_path(str(FOLDER / "__main__.py"), run_name="benchmarks")["main"]


def test_every_script_is_listed(main, capsys):
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_script_says_how_to_run_it(name):
    doc = ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")))
    assert f"Usage: python benchmarks/{name}.py" in doc
    assert f"`{name}.py`" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_unknown_names_are_refused(main, capsys):
    with pytest.raises(SystemExit):
        main(["throughputs"])
    assert "unknown: throughputs; there are accuracy," in capsys.readouterr().err


def test_scripts_that_need_images_are_skipped_without_them(main, capsys):
    assert main(["magnetic_tiles"]) == 0
    assert "Skipped: it needs --root" in capsys.readouterr().out


def test_sides_run_in_turn_and_the_first_round_does_not_count(timing):
    ran = []
    seconds = timing.alternate({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 2)
    assert "".join(ran) == "ababab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_the_ratio_is_the_median_of_the_pairs(timing):
    ours, theirs = np.array([1.0, 2.0, 10.0]), np.array([3.0, 8.0, 10.0])
    assert timing.times_faster(ours, theirs) == 3  # of 3, 4 and 1; of the medians it were 4


@pytest.fixture
def fuzz(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("fuzz", FOLDER / "fuzz.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("area", ["images", "masks", "gaussians", "metrics", "splitters"])
def test_cases_drawn_at_random_are_right(fuzz, area):
    for number in range(4):
        case, wrong = fuzz.run(area, seed=1, number=number)
        assert wrong == [], case


def test_a_fault_is_shown_with_what_repeats_it(fuzz, monkeypatch, capsys):
    def metrics(rng):
        return f"number {rng.integers(10**6)}", ["one thing", "another"]

    monkeypatch.setitem(fuzz.AREAS, "metrics", metrics)
    monkeypatch.setattr("sys.argv", ["fuzz.py", "--minutes", "0", "--seed", "5"])
    monkeypatch.setitem(fuzz.AREAS, "images", lambda rng: 1 / 0)
    assert fuzz.main() == 1
    assert "ZeroDivisionError at test_benchmarks.py" in capsys.readouterr().out
    repeated = []
    for _ in range(2):
        monkeypatch.setattr(
            "sys.argv", ["fuzz.py", "--seed", "5", "--area", "metrics", "--case", "3"]
        )
        assert fuzz.main() == 1
        repeated.append(capsys.readouterr().out)
    assert repeated[0] == repeated[1]
    assert "--seed 5 --area metrics --case 3: number " in repeated[0]
    assert "| metrics | 1 | 1 |" in repeated[0]
