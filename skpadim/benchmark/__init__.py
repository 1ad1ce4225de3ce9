"""Benchmarks: fit and evaluate a detector on each category of a data set, and tables of it."""

from skpadim.benchmark._results import latex_table, markdown_table, read_results
from skpadim.benchmark._run import run_benchmark

__all__ = ["latex_table", "markdown_table", "read_results", "run_benchmark"]
