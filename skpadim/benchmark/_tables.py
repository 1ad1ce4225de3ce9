"""Results as tables in Markdown."""

from __future__ import annotations

import pandas as pd

TITLES = {
    "image_roc_auc": "image AUROC",
    "image_f1_max": "image F1",
    "pixel_roc_auc": "pixel AUROC",
    "aupro_0.3": "pixel AUPRO",
}


def markdown_table(results: pd.DataFrame) -> str:
    """Results as the usual table: a category a line, the average last.

    Parameters
    ----------
    results : DataFrame
        As from :func:`run_benchmark` or :func:`read_results`.

    Returns
    -------
    table : str
        Markdown: image AUROC, image F1, pixel AUROC and pixel AUPRO (to a false positive rate of
        0.3), and, if images were left out, their number.

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
    rows = [
        [row["category"], *(_figure(row[name]) for name in TITLES)]
        for row in results.to_dict("records")
    ]
    rows.append(["Average", *(_figure(results[name].mean(skipna=False)) for name in TITLES)])
    header = ["category", *TITLES.values()]
    if results["n_skipped"].any():
        header.append("images left out")
        counts = [*results["n_skipped"], results["n_skipped"].sum()]
        rows = [[*row, str(count)] for row, count in zip(rows, counts, strict=True)]
    return lines_of(header, rows)


def lines_of(header: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        f"|{'|'.join(cells)}|" if cells[0] == "---" else f"| {' | '.join(cells)} |"
        for cells in lines
    )


def _figure(value):
    return f"{value:.3f}"
