"""What is imported brings no more along than it needs: torch takes seconds."""

import subprocess
import sys

# In a process of its own, where nothing is imported yet.
SCRIPT = """
import sys
import skpadim
import skpadim.datasets._public
assert "torch" not in sys.modules, "the data sets"

import numpy as np
from skpadim.metrics import aupro_score
aupro_score(np.eye(4)[None], np.eye(4)[None])
assert "torch" not in sys.modules, "the metrics"
assert "skpadim._padim" not in sys.modules, "the metrics"

import skpadim.regions
assert "torch" not in sys.modules, "the regions"

import skpadim.benchmark
assert "torch" not in sys.modules, "the benchmark"

from skpadim.plotting import ProCurveDisplay, ScoreHistogramDisplay
assert "torch" not in sys.modules, "displays of what is in memory"

from skpadim import PadimDetector
from skpadim.plotting import AnomalyMapDisplay, PatchGaussianDisplay
assert "matplotlib" not in sys.modules, "displays before they are drawn"
assert "torch" in sys.modules
"""


def test_data_sets_metrics_and_the_benchmark_import_neither_torch_nor_the_estimators():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
