"""What a row of results has: figures, settings and machine; the rows as a file and as a table."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from skpadim._persistence import PACKAGES, package_versions
from skpadim._version import __version__
from skpadim.files._csv import infer_types, read_csv, write_csv
from skpadim.files._files import locked, written_whole

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
# Columns of a row that figures depend on: what `settings_of` tells.
SETTINGS = (
    "dataset", "backbone", "weights", "layers", "n_features", "projection", "image_size",
    "crop_size", "regularization", "sharing", "sigma", "precision", "align", "unaligned", "seed",
    "resolution",
    "skpadim_version",
    *(f"{name}_version" for name in PACKAGES),
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
        Of several seeds there are means and standard deviations (of a sample, n - 1), in the last
        line those of the seeds' averages.

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
        setting and seed.

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
    header, rows, note = _cells(results)
    return lines_of(header, rows) + (f"\n\n{note}" if note else "")


def latex_table(results) -> str:
    r"""Results as :func:`markdown_table` has them, in LaTeX.

    Parameters
    ----------
    results : DataFrame, sequence of DataFrame or dict of str to DataFrame
        As for :func:`markdown_table`.

    Returns
    -------
    table : str
        A ``tabular`` with the rules of the package booktabs.

    Raises
    ------
    TypeError, ValueError
        As :func:`markdown_table`.

    Examples
    --------
    >>> import pandas as pd
    >>> from skpadim.benchmark import latex_table
    >>> row = {"category": "bottle", "image_roc_auc": 0.994, "image_f1_max": 0.976,
    ...        "pixel_roc_auc": 0.983, "aupro_0.3": 0.948, "n_skipped": 0}
    >>> print(latex_table(pd.DataFrame([row])).splitlines()[4])
    bottle & 0.994 & 0.976 & 0.983 & 0.948 \\
    """
    header, rows, note = _cells(results)
    lines = [" & ".join(map(_latex, cells)) + r" \\" for cells in (header, *rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:-1],
            r"\midrule",
            lines[-1],
            r"\bottomrule",
            r"\end{tabular}",
            *([f"% {note}"] if note else []),
        ]
    )


def _latex(text):
    text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
    return text.replace("±", r"$\pm$")


def _cells(results):
    """Header, rows and a note of the table, all as text."""
    tables = {name: _by_category(table, name) for name, table in _by_setting(results).items()}
    categories = list(dict.fromkeys(one for table in tables.values() for one in table["category"]))
    common = [one for one in categories if all(_has(table, one) for table in tables.values())]
    cells = {"category": [*categories, "Average"]}
    for name, table in tables.items():
        prefix = f"{name}: " if len(tables) > 1 else ""
        for figure, title in TITLES.items():
            values = {c: of_c[figure] for c, of_c in table.groupby("category", sort=False)}
            averages = table[table["category"].isin(common)].groupby("seed")[figure]
            average = averages.apply(lambda of_seed: of_seed.mean(skipna=False))
            cells[prefix + title] = [
                *(_figure(values.get(c)) for c in categories),
                _figure(average),
            ]
        if table["n_skipped"].any():
            left_out = table.groupby("category")["n_skipped"].max()  # the same with each seed
            total = str(left_out[common].sum()) if common else ""
            shown = left_out.map(str).reindex(categories, fill_value="")
            cells[prefix + "images left out"] = [*shown, total]
    n_seeds = max(table["seed"].nunique() for table in tables.values())
    notes = [f"Mean ± standard deviation over {n_seeds} seeds."] * (n_seeds > 1)
    if any("yes" in set(table.get("unaligned", ())) for table in tables.values()):
        notes += ["unaligned=yes: images turned by up to 10° and cropped at random."]
    if len(common) < len(categories):
        shared = f"{len(common)} of {len(categories)}"
        notes += [f"Averages: over the categories that all settings have ({shared})."]
    return list(cells), [list(row) for row in zip(*cells.values(), strict=True)], " ".join(notes)


def _has(table, category):
    """Whether there is a row of a category with each of the table's seeds."""
    return (table["category"] == category).sum() == table["seed"].nunique()


def lines_of(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def read_matching(path: Path, settings: list[dict[str, str]]) -> pd.DataFrame:
    """Read results, each of which must be of one of some settings; none if there is no file."""
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return pd.DataFrame({"category": []}, dtype=object)
    results = read_results(path)
    for row in results.to_dict("records"):
        others = [
            [name for name in setting if row.get(name, "missing") != setting[name]]
            for setting in settings
        ]
        nearest, setting = min(zip(others, settings, strict=True), key=lambda each: len(each[0]))
        if nearest:
            name = nearest[0]
            raise ValueError(
                f"{path} was written with other settings: its {name} is "
                f"{row.get(name, 'missing')!r} (category {row['category']!r}), and that of this "
                f"run is {setting[name]!r}. Give another output file, or run with the settings of "
                "this one; it is left as it is."
            )
    return results


def add_row(path: Path, row: dict, settings: list[dict[str, str]], order: Callable) -> None:
    """Add a row to the file, which is replaced as a whole; other processes' rows are kept."""
    with locked(path):
        # Read anew: another process may have added rows since the start.
        done = read_matching(path, settings).to_dict("records")
        names = ("category", *settings[0])
        others = [one for one in done if any(one[name] != row[name] for name in names)]
        with written_whole(path) as part:
            write_csv(in_order([*others, row], order), part)


def in_order(rows: list[dict], order: Callable) -> pd.DataFrame:
    """Rows as a DataFrame, sorted by a key of a row."""
    return infer_types(pd.DataFrame(sorted(rows, key=order), dtype=object))


def settings_of(
    dataset: str, detector, embedder, seed: int, resolution: str, unaligned: bool
) -> dict[str, str]:
    """What figures depend on, as text: settings, "auto" written out, and versions of packages."""
    size, crop = embedder.image_size_, embedder.input_size_
    regularization, align = detector.regularization, detector.align
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
        "align": "none" if align is None else " ".join(str(align).split()),
        "unaligned": "yes" if unaligned else "no",
        "seed": str(seed),
        "resolution": resolution,
        "skpadim_version": __version__,
        **{f"{name}_version": version for name, version in package_versions().items()},
    }


def machine(device, batch_size: int) -> dict[str, str]:
    """Where and when a row was computed; figures depend on it by rounding only."""
    import torch

    from skpadim.machine._devices import resolve_device

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
    repeats = any(_with_seed(one).duplicated(["category", "seed"]).any() for one in joined.values())
    return tables if repeats else joined


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
    names = [column for column in SETTINGS if column in results and column != "seed"]
    settings = results[names].astype(object).where(results[names].notna(), "missing").astype(str)
    differing = [column for column in names if settings[column].nunique() > 1]
    if not differing:
        return {"": results}
    n_settings = len(settings.drop_duplicates())
    # One that tells all settings apart is enough.
    differing = next(([c] for c in differing if settings[c].nunique() == n_settings), differing)
    keys = [
        ", ".join(f"{column}={row[column]}" for column in differing)
        for row in settings.to_dict("records")
    ]
    return {key: results[[one == key for one in keys]] for key in dict.fromkeys(keys)}


def _by_category(table, name):
    """Rows with their seed, of which there must be one for each category and seed."""
    table = _with_seed(table)
    repeated = table["category"][table.duplicated(["category", "seed"])]
    if len(repeated):
        raise ValueError(
            f"category {repeated.iloc[0]!r} has several rows of the same setting"
            f"{f' ({name})' if name else ''}: give a list of tables, or a dict of names to tables, "
            "to see them side by side."
        )
    return table


def _with_seed(table):
    return table if "seed" in table else table.assign(seed="")


def _figure(values):
    """Mean of a figure over seeds, and standard deviation; empty without any."""
    if values is None or not len(values):
        return ""
    spread = f" ± {values.std(skipna=False):.3f}" if len(values) > 1 else ""
    return f"{values.mean(skipna=False):.3f}{spread}"
