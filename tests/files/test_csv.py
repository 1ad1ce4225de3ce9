"""Tables as CSV files: what went in comes out, and no spreadsheet runs it."""

import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skpadim.files._csv import plain_text, read_csv, safe_text, write_csv

FORMULAS = ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1", "'=1", "''-x"]
HARMLESS = ["part.png", "a=b", "'quoted'", "''", "", "NA", "1.50", "003", "é", 'say "hi"', "a,b"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_like_a_formula(text):
    assert safe_text(text) == f"'{text}"
    assert plain_text(safe_text(text)) == text


@pytest.mark.parametrize("text", HARMLESS)
def test_other_cells_stay_as_they_are(text):
    assert safe_text(text) == text
    assert plain_text(text) == text


@given(st.text(alphabet=" '=+-@\t\r\nax\uff0b", max_size=6))
def test_every_text_survives(text):
    assert plain_text(safe_text(text)) == text


@pytest.mark.parametrize("kind", [str, Path])
def test_a_table_survives(tmp_path, kind):
    texts = [*FORMULAS, *HARMLESS, "lone\rreturn", "two\nlines", "not UTF-8 \udcff\udc80"]
    texts = [str(kind(text)) for text in texts]
    cells = pd.Series([kind(text) for text in texts], dtype=object)
    table = pd.DataFrame({"path": cells, "score": -0.1, "=n": 7})
    before = table.copy()
    write_csv(table, tmp_path / "t.csv")
    found = read_csv(tmp_path / "t.csv")
    assert list(found.columns) == ["path", "score", "=n"]
    assert list(found["path"]) == texts
    assert found["score"].astype(float).tolist() == [-0.1] * len(texts)  # numbers stay numbers
    assert b"UTF-8 \xff\x80" in (tmp_path / "t.csv").read_bytes()
    pd.testing.assert_frame_equal(table, before)


def test_a_stream_gets_the_same_bytes(tmp_path):
    table = pd.DataFrame({"path": ["=x", "\udcff"], "label": [1, -1]}, dtype=object)
    stream = io.BytesIO()
    write_csv(table, stream)
    write_csv(table, tmp_path / "t.csv")
    assert stream.getvalue() == (tmp_path / "t.csv").read_bytes() == b"path,label\n'=x,1\n\xff,-1\n"
