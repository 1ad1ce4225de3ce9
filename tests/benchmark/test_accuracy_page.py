"""The page of accuracy is what its script makes of the files of results."""

import importlib.util
import shutil
from pathlib import Path

import pandas as pd
import pytest

from skpadim.datasets._public import DATASETS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the scripts are not here")


@pytest.fixture(scope="module")
def accuracy():
    spec = importlib.util.spec_from_file_location("accuracy", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_results(accuracy, path, categories=DATASETS["btad"].categories, **changes):
    frame = pd.DataFrame({"category": list(categories)})
    frame = frame.assign(dataset="btad", backbone="resnet18", n_features="100", **accuracy.SETTING)
    frame = frame.assign(n_train=5, n_test_good=2, n_test_defective=2, n_skipped=0, device="cpu")
    frame = frame.assign(skpadim_version="0.1.0", torch_version="2.9", date="2026-01-02T03:04:05")
    for name in ("seconds_fit", "seconds_score", "seconds_metrics", "pixel_average_precision"):
        frame[name] = 1.0
    figures = {name: (0.5, 0.75, 0.7)[: len(frame)] for name in accuracy.TITLES}
    path.parent.mkdir(exist_ok=True)
    frame.assign(cpu="a processor", gpu="none", **figures, **changes).to_csv(path, index=False)


def test_nobody_filled_the_page_by_hand(accuracy, capsys):
    assert accuracy.main(["--check"]) == 0, capsys.readouterr().err


def test_results_fill_their_table_and_no_other(accuracy, tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "results"
    shutil.copy(accuracy.PAGE, page)
    arguments = ["--page", str(page), "--results", str(results)]
    assert accuracy.main(arguments) == 0
    empty = page.read_text()
    assert "Nobody with the data has run it yet." in empty
    assert "Of all categories only: pixel AUPRO, paper: 0.901." in empty  # and no empty column
    write_results(accuracy, results / "btad-resnet18.csv")
    assert accuracy.main([*arguments, "--check"]) == 1
    assert accuracy.main(arguments) == 0
    changed = set(page.read_text().splitlines()) - set(empty.splitlines())
    assert changed == {
        "skpadim 0.1.0, torch 2.9, a processor, 2026-01-02.",
        "| category | image AUROC, skpadim | image F1, skpadim | pixel AUROC, skpadim "
        "| pixel AUPRO, skpadim |",
        "| 01 | 0.500 | 0.500 | 0.500 | 0.500 |",
        "| 02 | 0.750 | 0.750 | 0.750 | 0.750 |",
        "| 03 | 0.700 | 0.700 | 0.700 | 0.700 |",
        "| Average | 0.650 | 0.650 | 0.650 | 0.650 |",
    }
    write_results(accuracy, results / "btad-resnet18.csv", categories=["01", "03"])
    assert accuracy.main(arguments) == 0
    assert "| Average |  |  |  |  |" in page.read_text()  # not of a part
    shutil.rmtree(results)
    assert accuracy.main(arguments) == 0
    assert page.read_text() == empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "7"}, "seed is '7'; the page's is '42'"),
        ({"weights": "none"}, "weights is 'none'; the page's is 'imagenet'"),
        ({"unaligned": "yes"}, "unaligned is 'yes'; the page's is 'no'"),
        ({"n_skipped": 1}, "images were left out"),
    ],
)
def test_results_of_other_settings_do_not_go_in(changes, message, accuracy, tmp_path):
    write_results(accuracy, tmp_path / "results/btad-resnet18.csv", **changes)
    with pytest.raises(ValueError, match=message):
        accuracy.main(["--check", "--results", str(tmp_path / "results")])
