import subprocess
import sys

import pytest

from skpadim.plotting._axes import grid_of_axes, one_axes

plt = pytest.importorskip("matplotlib.pyplot")

WITHOUT_MATPLOTLIB = """
import sys
sys.modules["matplotlib"] = None  # an import of it raises ImportError
import skpadim.plotting
assert "AnomalyMapDisplay" in dir(skpadim.plotting)
try:
    skpadim.plotting.ScoreHistogramDisplay.from_predictions([1, -1], [2.0, 1.0])
except ImportError as error:
    print(error)
"""


def test_without_matplotlib_all_is_imported_and_drawing_says_how_to_get_it():
    run = [sys.executable, "-c", WITHOUT_MATPLOTLIB]
    result = subprocess.run(run, capture_output=True, text=True, check=True)
    assert result.stdout == (
        'ScoreHistogramDisplay.plot needs matplotlib: pip install "skpadim[plot]"\n'
    )


def test_axes_that_are_given_are_drawn_in():
    _, axes = plt.subplots(2, 3)
    assert one_axes(axes[0, 1], "x") is axes[0, 1]
    assert grid_of_axes(axes, (2, 3), (1, 1), "x").tolist() == axes.tolist()
    assert grid_of_axes(list(axes.flat), (3, 2), (1, 1), "x").shape == (3, 2)


def test_one_axes_is_divided():
    figure, axes = plt.subplots(1, 2)
    grid = grid_of_axes(axes[1], (2, 2), (1, 1), "x")
    assert grid.shape == (2, 2)
    assert grid[0, 0].figure is figure
    figure.canvas.draw()
    assert all(cell.get_position().x0 > 0.5 for cell in grid.flat)


def test_another_number_of_axes_is_refused():
    _, axes = plt.subplots(1, 2)
    with pytest.raises(ValueError, match="ax has 2 axes; 2 x 3 are needed, or one"):
        grid_of_axes(axes, (2, 3), (1, 1), "x")
    with pytest.raises(ValueError, match="must be a subplot"):
        grid_of_axes(plt.figure().add_axes([0, 0, 1, 1]), (2, 3), (1, 1), "x")
