"""Which part each image shows, `skpadim fit --groups`: by a pattern of names, or from a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from skpadim.command._given_images import GivenImages


def read_groups(text: str, given: GivenImages) -> list[str]:
    """The group of each image, as a regular expression or a CSV file says it."""
    if Path(text).is_file():
        known = _read_table(Path(text))
        found = [known.get(os.path.abspath(path)) for path in given.paths]
        why = f"has no row in {text}"
    else:
        if text.lower().endswith(".csv"):
            raise FileNotFoundError(f"--groups {text} does not exist.")
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise ValueError(
                f"--groups '{text}' is no file, and no regular expression either ({error}): give "
                "one as '(part\\d+)_', or a CSV file with the columns path and group."
            ) from error
        matches = [pattern.search(given.relative(path).as_posix()) for path in given.paths]
        found = [match and (match.group(1) if pattern.groups else match[0]) for match in matches]
        why = f"is not matched by '{text}'"
    missing = [
        given.relative(path) for path, group in zip(given.paths, found, strict=True) if not group
    ]
    if missing:
        raise ValueError(
            f"--groups: {len(missing)} of {len(found)} images have no group, the first "
            f"{missing[0]}, which {why}. Each image needs a group; the only image of a part gets "
            "one of its own."
        )
    return found


def _read_table(path):
    """Groups by the absolute paths of images."""
    from skpadim.files._csv import read_csv

    try:
        table = read_csv(path)
        if missing := {"path", "group"} - set(table):
            raise ValueError(f"it has no column {min(missing)!r}")
    except ValueError as error:  # pandas' own errors of reading are of this kind
        raise ValueError(
            f"--groups {path} cannot be read: {str(error).strip()}. It must be a CSV file with the "
            "columns path and group."
        ) from error
    return {os.path.abspath(p): str(g) for p, g in zip(table["path"], table["group"], strict=True)}
