"""Benchmarks: fit and evaluate a detector on each category of a data set, and tables of it."""

from skpadim.benchmark._results import read_results
from skpadim.benchmark._run import run_benchmark
from skpadim.benchmark._tables import markdown_table

__all__ = ["markdown_table", "read_results", "run_benchmark"]
