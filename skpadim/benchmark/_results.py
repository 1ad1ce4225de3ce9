"""The file of results: a CSV with a row a category, whole at any moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from skpadim._csv import infer_types, read_csv, write_csv
from skpadim._files import locked, written_whole

FIGURES = ("image_roc_auc", "image_f1_max", "pixel_roc_auc", "aupro_0.3", "pixel_average_precision")
COUNTS = ("n_train", "n_test_good", "n_test_defective", "n_skipped")
SECONDS = ("seconds_fit", "seconds_score", "seconds_metrics")
_TYPES = {**dict.fromkeys((*FIGURES, *SECONDS), float), **dict.fromkeys(COUNTS, int)}


def read_results(path) -> pd.DataFrame:
    """Read the results that :func:`run_benchmark` or ``skpadim benchmark`` wrote.

    Parameters
    ----------
    path : path
        CSV file.

    Returns
    -------
    results : DataFrame
        As from :func:`run_benchmark`; categories such as "01" stay text.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is none of these files.

    Examples
    --------
    >>> from skpadim.benchmark import read_results
    >>> results = read_results("results.csv")  # doctest: +SKIP
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file.")
    problem = "cannot be read as a CSV file"
    try:
        results = read_csv(path)
        missing = {"category", *_TYPES} - set(results.columns)
        if missing:
            problem = f"has no column {min(missing)!r}"
            raise ValueError(f"its columns are {', '.join(map(repr, results.columns[:5]))}")
        problem = "has a figure that is no number"
        return results.astype(_TYPES)
    except ValueError as error:  # pandas' own errors of reading are of this kind
        raise ValueError(
            f"{path} is no file of benchmark results: it {problem} ({str(error).strip()}). Give "
            "the name of another file; this one is left as it is."
        ) from error


def read_matching(path: Path, setting: dict[str, str]) -> pd.DataFrame:
    """Read results, and check that they are of the same settings; none if there is no file.

    Raises
    ------
    ValueError
        If they are not.
    """
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return pd.DataFrame({"category": []}, dtype=object)
    results = read_results(path)
    for name, value in setting.items():
        column = results[name] if name in results else ["missing"] * len(results)
        for category, found in zip(results["category"], column, strict=True):
            if found != value:
                raise ValueError(
                    f"{path} was written with other settings: its {name} is {found!r} (category "
                    f"{category!r}), and that of this run is {value!r}. Give another output file, "
                    "or run with the settings of this one; it is left as it is."
                )
    return results


def add_row(path: Path, row: dict, setting: dict[str, str], order: Callable) -> None:
    """Add the row of a category to the file, which is replaced as a whole.

    Rows that other processes add at the same time are kept.

    Parameters
    ----------
    path : Path
    row : dict
    setting : dict of str to str
        What rows of one file have in common.
    order : callable
        Key that sorts names of categories.
    """
    with locked(path):
        # Read anew: another process may have added categories since the start.
        done = read_matching(path, setting)
        others = done[done["category"] != row["category"]]
        with written_whole(path) as part:
            write_csv(in_order([*others.to_dict("records"), row], order), part)


def in_order(rows: list[dict], order: Callable) -> pd.DataFrame:
    """Rows as a DataFrame, sorted by category."""
    ordered = sorted(rows, key=lambda row: order(row["category"]))
    return infer_types(pd.DataFrame(ordered, dtype=object))
