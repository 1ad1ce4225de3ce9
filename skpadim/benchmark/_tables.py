"""Results as tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from skpadim.benchmark._setting import SETTINGS

TITLES = {
    "image_roc_auc": "image AUROC",
    "image_f1_max": "image F1",
    "pixel_roc_auc": "pixel AUROC",
    "aupro_0.3": "pixel AUPRO",
}


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
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"|{'|'.join(cells)}|" if cells[0] == "---" else f"| {' | '.join(cells)} |"
        for cells in lines
    )


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
