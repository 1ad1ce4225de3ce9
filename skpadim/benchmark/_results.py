"""What a row of results has: figures, settings and machine; the rows as a file and as a table."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from skpadim._csv import infer_types, read_csv, write_csv
from skpadim._files import locked, written_whole
from skpadim._version import __version__

FIGURES = ("image_roc_auc", "image_f1_max", "pixel_roc_auc", "aupro_0.3", "pixel_average_precision")
COUNTS = ("n_train", "n_test_good", "n_test_defective", "n_skipped")
SECONDS = ("seconds_fit", "seconds_score", "seconds_metrics")
TITLES = {
    "image_roc_auc": "image AUROC",
    "image_f1_max": "image F1",
    "pixel_roc_auc": "pixel AUROC",
    "aupro_0.3": "pixel AUPRO",
}
_TYPES = {**dict.fromkeys((*FIGURES, *SECONDS), float), **dict.fromkeys(COUNTS, int)}
_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "pillow")
# Columns of a row that figures depend on: what `settings_of` tells.
SETTINGS = (
    "dataset", "backbone", "weights", "layers", "n_features", "projection", "image_size",
    "crop_size", "regularization", "sharing", "sigma", "precision", "seed", "resolution",
    "skpadim_version",
    *(f"{name}_version" for name in _PACKAGES),
)  # fmt: skip


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


def markdown_table(results) -> str:
    """Results as the usual table: a category a line, the average last.

    Parameters
    ----------
    results : DataFrame, sequence of DataFrame or dict of str to DataFrame
        As from :func:`run_benchmark` or :func:`read_results`. Results of several settings stand
        side by side: those of a dict under its names; others under the settings that differ.

    Returns
    -------
    table : str
        Markdown: image AUROC, image F1, pixel AUROC and pixel AUPRO (to a false positive rate of
        0.3), and, if images were left out, their number; these columns for each setting. Where a
        category is missing for a setting its cells are empty, and the averages are over the
        categories that all settings have: a line below says so.

    Raises
    ------
    TypeError
        If `results` are no tables.
    ValueError
        If there are no tables, a column is missing, or a category has two rows of the same
        setting.

    Examples
    --------
    >>> import pandas as pd
    >>> from skpadim.benchmark import markdown_table
    >>> row = {"category": "bottle", "image_roc_auc": 0.994, "image_f1_max": 0.976,
    ...        "pixel_roc_auc": 0.983, "aupro_0.3": 0.948, "n_skipped": 0}
    >>> print(markdown_table(pd.DataFrame([row])))
    | category | image AUROC | image F1 | pixel AUROC | pixel AUPRO |
    |---|---|---|---|---|
    | bottle | 0.994 | 0.976 | 0.983 | 0.948 |
    | Average | 0.994 | 0.976 | 0.983 | 0.948 |
    """
    tables = {name: _by_category(table, name) for name, table in _by_setting(results).items()}
    categories = list(dict.fromkeys(one for table in tables.values() for one in table.index))
    common = [one for one in categories if all(one in table.index for table in tables.values())]
    cells = {"category": [*categories, "Average"]}
    for name, table in tables.items():
        prefix = f"{name}: " if len(tables) > 1 else ""
        for figure, title in TITLES.items():
            average = _figure(table.loc[common, figure].mean(skipna=False)) if common else ""
            cells[prefix + title] = [*_column(table[figure].map(_figure), categories), average]
        if table["n_skipped"].any():
            total = str(table.loc[common, "n_skipped"].sum()) if common else ""
            cells[prefix + "images left out"] = [
                *_column(table["n_skipped"].map(str), categories),
                total,
            ]
    lines = lines_of(list(cells), [list(row) for row in zip(*cells.values(), strict=True)])
    if len(common) == len(categories):
        return lines
    shared = f"{len(common)} of {len(categories)}"
    return f"{lines}\n\nAverages: over the categories that all settings have ({shared})."


def lines_of(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def read_matching(path: Path, setting: dict[str, str]) -> pd.DataFrame:
    """Read results, which must be of the same settings; there are none if there is no file."""
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
    """Add a row to the file, which is replaced as a whole; other processes' rows are kept."""
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


def settings_of(dataset: str, detector, embedder, seed: int, resolution: str) -> dict[str, str]:
    """What figures depend on, as text: settings, "auto" written out, and versions of packages."""
    size, crop = embedder.image_size_, embedder.input_size_
    regularization = detector.regularization
    return {
        "dataset": dataset,
        "backbone": embedder.backbone_,
        "weights": _weights(embedder.backbone_, detector.weights),
        "layers": " ".join(embedder.layers_),
        "n_features": str(embedder.n_features_out_),
        "projection": detector.projection,
        "image_size": _pixels(size),
        "crop_size": "none" if crop == size else _pixels(crop),
        "regularization": "auto" if regularization == "auto" else repr(float(regularization)),
        "sharing": detector.sharing,
        "sigma": repr(float(detector.sigma)),
        "precision": detector.precision,
        "seed": str(seed),
        "resolution": resolution,
        "skpadim_version": __version__,
        **{f"{name}_version": importlib.metadata.version(name) for name in _PACKAGES},
    }


def machine(device, batch_size: int) -> dict[str, str]:
    """Where and when a row was computed; figures depend on it by rounding only."""
    import torch

    from skpadim._devices import resolve_device

    device = resolve_device(device)
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "python_version": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "n_threads": str(torch.get_num_threads()),
        "gpu": gpu,
        "device": device.type,
        "batch_size": str(batch_size),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _weights(backbone, weights):
    """Name of the weights; a file is known by its content, wherever it lies."""
    if weights is None or backbone == "filter_bank":
        return "none"
    if not os.path.isfile(weights):
        return os.fspath(weights)
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    return f"{Path(weights).name} sha256:{digest[:16]}"


def _pixels(size):
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def _cpu_name():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model n")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _by_setting(results) -> dict[str, pd.DataFrame]:
    """Results of each setting under its name."""
    if isinstance(results, pd.DataFrame):
        return _split(results)
    if isinstance(results, Mapping) and results:
        parts = {name: _split(table, f" {name!r}") for name, table in results.items()}
        return {
            f"{name}, {setting}" if setting else str(name): table
            for name, tables in parts.items()
            for setting, table in tables.items()
        }
    if not isinstance(results, (list, tuple, Mapping)):
        raise TypeError(
            f"results must be a DataFrame, a list of them, or a dict of names to them, not "
            f"{type(results).__name__}."
        )
    if not results:
        raise ValueError("results are empty: give one table or more.")
    tables = _by_setting({str(number): table for number, table in enumerate(results, 1)})
    joined = _split(pd.concat(results, ignore_index=True))
    # Settings name the tables, unless some that repeat categories of others have the same.
    return tables if any(one["category"].duplicated().any() for one in joined.values()) else joined


def _split(results, name="") -> dict[str, pd.DataFrame]:
    """Results divided by the settings that differ; under "" if none does."""
    if not isinstance(results, pd.DataFrame):
        raise TypeError(f"results{name} must be a DataFrame, not {type(results).__name__}.")
    missing = {"category", "n_skipped", *TITLES} - set(results.columns)
    if missing:
        raise ValueError(
            f"results{name} has no column {min(missing)!r}: give what run_benchmark or "
            "read_results returns."
        )
    names = [column for column in SETTINGS if column in results]
    settings = results[names].astype(object).where(results[names].notna(), "missing").astype(str)
    differing = [column for column in names if settings[column].nunique() > 1]
    if not differing:
        return {"": results}
    keys = [
        ", ".join(f"{column}={row[column]}" for column in differing)
        for row in settings.to_dict("records")
    ]
    return {key: results[[one == key for one in keys]] for key in dict.fromkeys(keys)}


def _by_category(table, name):
    """Rows by category, of which there must be one each."""
    repeated = table["category"][table["category"].duplicated()]
    if len(repeated):
        raise ValueError(
            f"category {repeated.iloc[0]!r} has several rows of the same setting"
            f"{f' ({name})' if name else ''}: give a list of tables, or a dict of names to tables, "
            "to see them side by side."
        )
    return table.set_index("category")


def _column(cells, categories):
    """Cells of all categories, empty where there is none."""
    return cells.reindex(categories, fill_value="")


def _figure(value):
    return f"{value:.3f}"
