"""The CSV file of scores: a row an image, written as rows come, and gone on with after a stop."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path

from skpadim.files._csv import plain_text, safe_text
from skpadim.files._files import open_stream, written_whole

_TEXTS = ("path", "error")  # the other columns are numbers


class ScoreFile:
    """Rows of scores on their way to a file or to the standard output.

    An earlier file stays until there are rows to replace it with. After that, what is in the file
    is whole rows, but for the last one where the system stopped in the middle of it. One to go on
    with must be of scores by this model, or is refused and left as it is.
    """

    def __init__(self, path: Path | None, offset: float | None, has_errors: bool, resume: bool):
        self.path, self.offset = path, offset  # None: to the standard output; a model without one
        columns = ["path", "score"] + ["decision", "label"] * (offset is not None)
        self.columns = [*columns, "error"] if has_errors else columns
        self.rows: dict[str, dict] = {}  # by the image's path: those of the file and those added
        self._sink = None
        if resume and path.is_file() and path.stat().st_size:
            self._read()
        self.n_read = len(self.rows)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._sink is not None and self.path is not None:
            self._sink.close()

    def add(self, rows: Iterable[dict]) -> None:
        """Write rows, of which none is to be held back."""
        rows = list(rows)
        if not rows:
            return
        data = _as_csv(self.columns, rows)
        if self._sink is None:
            data = self._open(data)
        self._sink.write(data)
        self._sink.flush()
        self.rows |= {row["path"]: row for row in rows}

    def _open(self, data):
        """Open the sink; returns what is still to be written to it."""
        if self.n_read:
            self._sink = self.path.open("ab")
            return data
        data = _as_csv(self.columns, [_header(self.columns)]) + data
        if self.path is None:
            self._sink = getattr(sys.stdout, "buffer", None) or _TextSink(sys.stdout)
            return data
        self._sink = open_stream(self.path)
        if self._sink is not None:
            return data
        with written_whole(self.path) as part:
            part.write_bytes(data)
        self._sink = self.path.open("ab")
        return b""

    def _read(self):
        """Take in the rows of the file, and cut off what is left of a row that is not whole."""
        content = self.path.read_bytes()
        text = content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        try:
            lines = list(csv.reader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise self._refusal(f"it is no CSV file ({error})") from error
        if text.count('"') % 2 or not text.endswith("\n"):
            lines = lines[:-1]  # texts in quotes have an even number of these
        lines = [line for line in lines if line]
        if not lines:
            if _as_csv(self.columns, [_header(self.columns)]).startswith(content):
                return
            raise self._refusal("it is no file of scores")
        header, *lines = lines
        columns = [name for name in self.columns if name != "error"]
        if header not in (columns, [*columns, "error"]):
            raise self._refusal(
                f"its columns are {', '.join(header[:6])}, and those of this model's scores are "
                f"{', '.join(columns)}"
            )
        for number, line in enumerate(lines, start=2):
            row = dict(zip(header, line, strict=False))
            row |= {name: plain_text(row.get(name, "")) for name in _TEXTS}
            self._check(row, number, is_whole=len(line) == len(header))
            self.rows[row["path"]] = row
        if "error" in header:
            self.columns = header
        whole = _as_csv(self.columns, [_header(self.columns), *self.rows.values()])
        if self.rows and whole != content:
            with written_whole(self.path) as part:
                part.write_bytes(whole)

    def _check(self, row, number, is_whole):
        """See that a row is one of this model's."""
        try:
            if not is_whole:
                raise ValueError
            if row.get("error"):
                return
            score = float(row["score"])
            offset = None if self.offset is None else score - float(row["decision"])
        except ValueError:
            raise self._refusal(f"its row {number} is none of scores") from None
        # What rounding to float32 leaves of the threshold.
        if offset is not None and not (
            abs(offset - self.offset) <= 1e-6 * (abs(score) + abs(self.offset))
        ):
            raise self._refusal(
                f"its row {number} is of another model or threshold ({offset:.6g}, and that of "
                f"this model is {self.offset:.6g})"
            )

    def _refusal(self, why):
        return ValueError(
            f"{self.path} cannot be resumed: {why}. Give another output file, or leave out "
            "--resume to replace it; it is left as it is."
        )


class _TextSink:
    """Where the standard output has been replaced by a stream that takes only text."""

    def __init__(self, stream):
        self._stream, self.flush = stream, stream.flush

    def write(self, data):
        self._stream.write(data.decode("utf-8", "surrogateescape"))


def _header(columns):
    return {name: name for name in columns}


def _as_csv(columns, rows) -> bytes:
    """Rows as CSV; names that are not UTF-8 as the bytes that they are."""
    text = io.StringIO()
    for row in rows:
        cells = [str(row.get(name, "")) for name in columns]
        cells = [safe_text(c) if n in _TEXTS else c for n, c in zip(columns, cells, strict=True)]
        # Some versions of Python do not quote a carriage return, and bare it ends the row.
        has_returns = any("\r" in cell for cell in cells)
        quoting = csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL
        csv.writer(text, lineterminator="\n", quoting=quoting).writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")
