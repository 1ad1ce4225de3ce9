"""Tables as CSV files that give back what went in, and that are harmless in a spreadsheet.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and may run
it, also if it is the name of a file. So text of that kind is written with an apostrophe in front;
so is text that would read as if it had got one, so that reading can take exactly those away.
Numbers stay numbers. Bytes of names that are not UTF-8 are written as they are.
"""

from __future__ import annotations

import csv
import os
import re
from contextlib import suppress

import pandas as pd

# The wide forms count as well in some spreadsheets; leading blanks are skipped by some.
_FORMULA = re.compile(r"'*([\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def safe_text(text: str) -> str:
    """A cell of text that no spreadsheet runs: with an apostrophe in front if it needs one."""
    return f"'{text}" if _FORMULA.match(text) else text


def plain_text(cell: str) -> str:
    """What :func:`safe_text` made the cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def write_csv(table: pd.DataFrame, file) -> None:
    """Write a table to a path or binary file, all its texts and paths as :func:`safe_text`."""
    table = table.rename(columns=_safe_cell)
    for name, column in table.items():
        if not pd.api.types.is_numeric_dtype(column):
            table[name] = pd.Series(map(_safe_cell, column), column.index, dtype=object)
    cells = [*table.columns, *(c for _, column in table.items() for c in column)]
    # Some versions of Python do not quote a carriage return, and bare it ends the row.
    has_returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    table.to_csv(
        file,
        index=False,
        encoding="utf-8",
        errors="surrogateescape",
        quoting=csv.QUOTE_NONNUMERIC if has_returns else csv.QUOTE_MINIMAL,
    )


def read_csv(path) -> pd.DataFrame:
    """Read a table that :func:`write_csv` wrote; all cells are text, as it was."""
    table = pd.read_csv(
        path, dtype=object, keep_default_na=False, encoding_errors="surrogateescape"
    )
    for name, column in table.items():
        table[name] = pd.Series(map(plain_text, column), dtype=object)
    return infer_types(table.rename(columns=plain_text))


def infer_types(table: pd.DataFrame) -> pd.DataFrame:
    """Give columns of objects the types that pandas infers, where its text type can hold them."""
    # That type takes no text that is not UTF-8 if PyArrow is installed, and `DataFrame` raises.
    for name, column in table.items():
        with suppress(UnicodeEncodeError):
            table[name] = column.infer_objects()
    return table


def _safe_cell(value):
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return safe_text(value) if isinstance(value, str) else value
