"""The file of results: nothing of it is lost, and texts come back as they went in."""

import subprocess
import sys
from pathlib import Path

import pytest

from skpadim.benchmark import read_results
from skpadim.benchmark._results import COUNTS, FIGURES, SECONDS, add_row

ROW = {**dict.fromkeys((*FIGURES, *SECONDS), 0.5), **dict.fromkeys(COUNTS, 3)}


def test_rows_of_five_processes_are_all_kept(tmp_path):
    path = tmp_path / "results.csv"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from skpadim.benchmark._results import COUNTS, FIGURES, SECONDS, add_row\n"
        "row = {**dict.fromkeys((*FIGURES, *SECONDS), 0.5), **dict.fromkeys(COUNTS, 3)}\n"
        "sys.stdin.readline()\n"
        "for name in sys.argv[2:]:\n"
        "    add_row(Path(sys.argv[1]), {'category': name, **row}, {}, str)\n"
    )
    names = [f"{number:02}" for number in range(40)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path), *names[first::5]],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for first in range(5)
    ]
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 5
    assert read_results(path)["category"].tolist() == names
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["=1+1", "'=1", "@x", "-01", "01", "\udcff\udcfe", "a\rb", "NA"])
def test_names_come_back_as_they_were(tmp_path, name):
    path, setting = tmp_path / "results.csv", {"weights": f"{name}.pth"}
    for category in (name, "other"):
        add_row(path, {"category": category, **ROW, **setting}, setting, str)
    results = read_results(path)
    assert sorted(results["category"]) == sorted([name, "other"])
    assert results["weights"].tolist() == [f"{name}.pth"] * 2
    assert not [line for line in path.read_bytes().splitlines() if line[:1] in b"=+-@"]
