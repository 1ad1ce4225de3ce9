"""The file of scores: whole at any moment, and gone on with only by the model that began it."""

import os

import numpy as np
import pandas as pd
import pytest

from skpadim.command._score_file import ScoreFile

PATHS = ["a.png", "=1+1.png", 'odd,"name".png', "two\nlines.png", "return\r.png", "\udcff.png", "z"]


def rows(paths=PATHS):
    scores = np.linspace(-3, -1, len(paths), dtype=np.float32)
    return [
        {"path": path, "score": score, "decision": score + 2, "label": 1}
        for path, score in zip(paths, scores, strict=True)
    ]


def write(path, n_rows=None, has_errors=False):
    with ScoreFile(path, -2.0, has_errors, resume=False) as file:
        file.add(rows()[:n_rows])
    return path.read_bytes()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.csv"


@pytest.mark.parametrize("has_errors", [False, True])
def test_after_a_stop_at_any_byte_the_file_is_made_whole(path, has_errors):
    whole = write(path, has_errors=has_errors)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with ScoreFile(path, -2.0, has_errors, resume=True) as file:
            assert whole.startswith(path.read_bytes())
            assert list(file.rows) == PATHS[: len(file.rows)]
            assert file.n_read == len(file.rows)
            file.add(row for row in rows() if row["path"] not in file.rows)
        assert path.read_bytes() == whole, length


def test_rows_are_in_the_file_at_once_and_an_old_file_stays_until_then(path):
    path.write_text("valuable")
    with ScoreFile(path, -2.0, False, resume=False) as file:
        file.add([])
        assert path.read_text() == "valuable"
        for n_rows in (1, 2, 3):
            file.add(rows()[n_rows - 1 : n_rows])
            assert len(pd.read_csv(path)) == n_rows


def test_names_come_back_as_they_are(path):
    write(path)
    table = pd.read_csv(path, encoding_errors="surrogateescape")
    expected = ["'" * (name == "=1+1.png") + name for name in PATHS]  # harmless in spreadsheets
    assert table["path"].tolist() == expected
    assert b"\n\xff.png," in path.read_bytes()
    np.testing.assert_array_equal(table["score"].astype(np.float32), [r["score"] for r in rows()])


def test_errors_get_a_column_whichever_run_asks_for_it(path):
    write(path, 3)
    with ScoreFile(path, -2.0, True, resume=True) as file:
        file.add([{"path": "bad", "error": "cannot be read: take it out."}])
    with ScoreFile(path, -2.0, False, resume=True) as file:
        assert file.n_read == 4
        file.add(rows()[3:])
    table = pd.read_csv(path, encoding_errors="surrogateescape")
    assert table.columns.tolist() == ["path", "score", "decision", "label", "error"]
    assert table["error"].notna().tolist() == [False] * 3 + [True] + [False] * 4
    assert table["score"].isna().sum() == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("category,score\nx,1\n", "its columns are category, score"),
        ("path,score\nx,-1\n", "its columns are path, score, and those of this model's"),
        ("dear diary", "it is no file of scores"),
        ("dear diary\n", "its columns are dear diary"),
        ("path,score,decision,label\nx,-1,1,1\ny,-1,1.01,1\n", "its row 3 is of another model or"),
        ("path,score,decision,label\nx,-1,1\n", "its row 2 is none of scores"),
        ("path,score,decision,label\nx,good,1,1\n", "its row 2 is none of scores"),
        ("path,score,decision,label\nx,nan,nan,1\n", "its row 2 is of another model or"),
    ],
)
def test_other_files_are_refused_and_stay(path, content, message):
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        ScoreFile(path, -2.0, False, resume=True)
    assert "left as it is" in str(caught.value)
    assert path.read_text() == content


@pytest.mark.parametrize("content", [None, "", "path,sco"])
def test_where_nothing_was_written_yet_all_begins(path, content):
    if content is not None:
        path.write_text(content)
    with ScoreFile(path, -2.0, False, resume=True) as file:
        assert file.rows == {}
        file.add(rows())
    assert path.read_bytes() == write(path.with_name("new.csv"))


def test_a_pipe_gets_rows_as_they_come(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with ScoreFile(pipe, -2.0, False, resume=False) as file:
        file.add(rows()[:1])
        assert os.read(reader, 1000).count(b"\n") == 2
        file.add(rows()[6:])
        assert os.read(reader, 1000).startswith(b"z,")
    os.close(reader)


def test_what_a_link_points_to_is_gone_on_with(path):
    whole = write(path)
    path.write_bytes(whole[:50])
    link = path.with_name("link.csv")
    link.symlink_to(path)
    with ScoreFile(link, -2.0, False, resume=True) as file:
        file.add(row for row in rows() if row["path"] not in file.rows)
    assert link.is_symlink()
    assert path.read_bytes() == whole
