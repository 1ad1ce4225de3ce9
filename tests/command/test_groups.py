"""`skpadim fit --groups`: parts by the names of their images, or from a file."""

import joblib
import numpy as np
import pytest

from skpadim import PadimDetector
from skpadim.__main__ import main
from skpadim.command._given_images import collect_images
from skpadim.command._groups import read_groups

SMALL = ["--backbone", "filter_bank", "--image-size", "64", "--crop-size", "none"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(r"part_(\d\d)", ["00"] * 10 + ["01"] * 10), ("part_..", ["part_00"] * 10 + ["part_01"] * 10)],
)
def test_the_bracket_or_the_match_is_the_part(pattern, expected, folder):
    given = collect_images([str(path) for path in sorted(folder.iterdir())[:20]])
    assert read_groups(pattern, given) == expected


def test_subfolders_can_be_the_parts(folder, tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "1.png").touch()
    assert read_groups("^[^/]+", collect_images([str(tmp_path)])) == ["a", "b"]


def test_a_file_names_the_parts(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)  # in the file, and on the command line, paths of any kind
    lines = [f"{path.name},g{index // 3}\n" for index, path in enumerate(sorted(folder.iterdir()))]
    (tmp_path / "groups.csv").write_text("path,group\n" + "".join(lines))
    arguments = ["fit", str(folder), "-o", str(tmp_path / "m"), *SMALL, "--contamination", "0.2"]
    assert main([*arguments, "--groups", str(tmp_path / "groups.csv")]) == 0
    assert "33 images of 11 parts" in capsys.readouterr().err
    np.testing.assert_array_equal(np.bincount(joblib.load(tmp_path / "m").calibration_groups_), 3)


def test_groups_of_images_that_are_left_out_are_too(folder, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for path in folder.iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "part_000.png").write_bytes(b"")
    arguments = ["fit", str(images), "-o", str(tmp_path / "m"), *SMALL, "--contamination", "0.3"]
    assert main([*arguments, "--groups", r"_(\d\d)", "--on-error", "skip"]) == 3
    assert "32 images of 4 parts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("no_(.)", "33 of 33 images have no group, the first part_000.png, which is not matched"),
        ("(", "is no file, and no regular expression either"),
        ("{tmp}/none.csv", "none.csv does not exist"),
        ("{tmp}/wrong.csv", "wrong.csv cannot be read: it has no column 'group'"),
        ("{tmp}/short.csv", "part_000.png, which has no row in {tmp}/short.csv"),
        ("{tmp}/empty.csv", "cannot be read: No columns to parse"),
    ],
)
def test_images_without_a_part_are_told(groups, message, folder, tmp_path, capsys):
    (tmp_path / "wrong.csv").write_text("path,part\nx.png,1\n")
    (tmp_path / "short.csv").write_text("path,group\nx.png,1\n")
    (tmp_path / "empty.csv").touch()
    groups = groups.replace("{tmp}", str(tmp_path))
    assert main(["fit", str(folder), "-o", str(tmp_path / "m"), "--groups", groups]) == 1
    told = capsys.readouterr().err
    assert message.replace("{tmp}", str(tmp_path)) in told
    assert told.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_the_number_of_processes_is_for_the_fit_alone(folder, tmp_path, monkeypatch):
    fit, numbers = PadimDetector.fit, []

    def fit_in_one(self, X, **options):
        numbers.append(self.n_jobs)
        fit(self.set_params(n_jobs=1), X, **options)
        return self.set_params(n_jobs=numbers[-1])

    monkeypatch.setattr(PadimDetector, "fit", fit_in_one)
    assert main(["fit", str(folder), "-o", str(tmp_path / "m"), *SMALL, "--n-jobs", "2"]) == 0
    assert numbers == [2]
    assert joblib.load(tmp_path / "m").n_jobs is None
