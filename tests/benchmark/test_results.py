"""Results: nothing of the file is lost, texts come back as they went in; tables of them."""

import math

import pandas as pd
import pytest

from skpadim.benchmark import latex_table, markdown_table, read_results, run_benchmark
from skpadim.benchmark._results import COUNTS, FIGURES, SECONDS, SETTINGS, add_row, machine

ROW = {**dict.fromkeys((*FIGURES, *SECONDS), 0.5), **dict.fromkeys(COUNTS, 3)}


def by_category(row):
    return row["category"]


def test_rows_of_two_processes_are_all_kept(tmp_path, start_process):
    path = tmp_path / "results.csv"
    program = (
        "from pathlib import Path\n"
        "from skpadim.benchmark._results import COUNTS, FIGURES, SECONDS, add_row\n"
        "row = {**dict.fromkeys((*FIGURES, *SECONDS), 0.5), **dict.fromkeys(COUNTS, 3)}\n"
        "for name in sys.argv[2:]:\n"
        "    add_row(Path(sys.argv[1]), {'category': name, **row}, [{}], lambda r: r['category'])\n"
    )
    names = [f"{number:02}" for number in range(40)]
    processes = [start_process(program, path, *names[first::2]) for first in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 2
    assert read_results(path)["category"].tolist() == names
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["=1+1", "'=1", "@x", "-01", "01", "\udcff\udcfe", "a\rb", "NA"])
def test_names_come_back_as_they_were(tmp_path, name):
    path, setting = tmp_path / "results.csv", {"weights": f"{name}.pth"}
    for category in (name, "other"):
        add_row(path, {"category": category, **ROW, **setting}, [setting], by_category)
    results = read_results(path)
    assert sorted(results["category"]) == sorted([name, "other"])
    assert results["weights"].tolist() == [f"{name}.pth"] * 2
    assert not [line for line in path.read_bytes().splitlines() if line[:1] in b"=+-@"]


def results_of(categories, value, **setting):
    figures = dict.fromkeys(("image_roc_auc", "image_f1_max", "pixel_roc_auc", "aupro_0.3"), value)
    rows = [{"category": name, **figures, "n_skipped": 0, **setting} for name in categories]
    return pd.DataFrame(rows)


def cells_of(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_the_average_is_last_and_of_the_categories():
    rows = pd.DataFrame(
        {
            "category": ["01", "02"],
            "image_roc_auc": [0.5, 1.0],
            "image_f1_max": [0.25, 0.5],
            "pixel_roc_auc": [1.0, 1.0],
            "aupro_0.3": [0.9, math.nan],
            "n_skipped": [0, 2],
        }
    )
    assert markdown_table(rows).splitlines()[2:] == [
        "| 01 | 0.500 | 0.250 | 1.000 | 0.900 | 0 |",
        "| 02 | 1.000 | 0.500 | 1.000 | nan | 2 |",
        "| Average | 0.750 | 0.375 | 1.000 | nan | 2 |",
    ]


ONE = results_of(["bottle", "cable"], 0.5, layers="layer1", seed="42", date="Monday")
TWO = results_of(["cable", "zipper"], 0.7, layers="layer2", seed="42", date="Tuesday")


@pytest.mark.parametrize(
    ("results", "names"),
    [
        (pd.concat([ONE, TWO]), ("layers=layer1", "layers=layer2")),
        ([ONE, TWO], ("layers=layer1", "layers=layer2")),
        ([ONE, TWO.drop(columns="layers")], ("layers=layer1", "layers=missing")),
        ({"fine": ONE, "coarse": TWO}, ("fine", "coarse")),
        ([ONE, TWO.assign(layers="layer1")], ("1", "2")),
    ],
)
def test_each_setting_has_columns_of_its_own(results, names):
    first, second = names
    header, _, *rows, _, note = cells_of(markdown_table(results))
    assert header[1] == f"{first}: image AUROC"
    assert header[4:6] == [f"{first}: pixel AUPRO", f"{second}: image AUROC"]
    assert [[row[0], row[1], row[5]] for row in rows] == [
        ["bottle", "0.500", ""],
        ["cable", "0.500", "0.700"],
        ["zipper", "", "0.700"],
        ["Average", "0.500", "0.700"],
    ]
    assert note == []
    assert markdown_table(results).endswith("categories that all settings have (1 of 3).")


def test_averages_of_settings_are_of_the_same_categories():
    one, two = ONE.copy(), TWO.copy()
    one.loc[0, "image_roc_auc"] = 0.1  # of the category that only one setting has
    one.loc[0, "n_skipped"] = 7
    average = cells_of(markdown_table([one, two]))[-3]
    assert average[:2] == ["Average", "0.500"]
    assert average[5] == "0"


def test_seeds_are_one_column_of_means_and_standard_deviations():
    seeds = [results_of(["a", "b"], value, seed=str(value)) for value in (0.5, 0.7, 0.9)]
    seeds[0].loc[0, "image_roc_auc"] = 0.1
    header, _, a, b, average, _, note = cells_of(markdown_table(seeds))
    assert header[:2] == ["category", "image AUROC"]
    assert a[1] == "0.567 ± 0.416"  # of 0.1, 0.7 and 0.9
    assert b[1] == "0.700 ± 0.200"
    assert average[1] == "0.633 ± 0.306"  # of the seeds' averages 0.3, 0.7 and 0.9
    assert note == []
    assert markdown_table(seeds).endswith("\n\nMean ± standard deviation over 3 seeds.")
    # A category that a seed lacks is in no average.
    *_, average, _, _ = cells_of(markdown_table([*seeds[:2], seeds[2][:1]]))
    assert average[1] == "0.567 ± 0.416"


def test_one_setting_that_tells_all_apart_names_the_columns():
    one = results_of(["a"], 0.5, backbone="x", n_features="100", layers="1", seed="1")
    two = results_of(["a"], 0.5, backbone="y", n_features="200", layers="1", seed="1")
    three = results_of(["a"], 0.5, backbone="y", n_features="300", layers="2", seed="1")
    assert cells_of(markdown_table([one, two]))[0][1] == "backbone=x: image AUROC"
    assert cells_of(markdown_table([one, two, three]))[0][1] == "n_features=100: image AUROC"


def test_tables_tell_of_unaligned_images():
    one, other = results_of(["a"], 0.5, unaligned="no"), results_of(["a"], 0.4, unaligned="yes")
    note = "unaligned=yes: images turned by up to 10° and cropped at random."
    assert note not in markdown_table(one)
    for results in (other, {"moved": other}, [one, other]):
        assert markdown_table(results).endswith(f"|\n\n{note}")
        assert latex_table(results).endswith(f"\n% {note}")
    assert cells_of(markdown_table([one, other]))[0][5] == "unaligned=yes: image AUROC"


def test_latex_has_the_same_cells():
    tables = {"50 % & more": results_of(["a_b"], 0.5), "#": results_of(["a_b"], 0.7)}
    lines = latex_table(tables).splitlines()
    assert lines[0] == r"\begin{tabular}{lrrrrrrrr}"
    assert lines[2].startswith(r"category & 50 \% \& more: image AUROC & ")
    assert r" & \#: image AUROC & " in lines[2]
    assert lines[4] == r"a\_b & " + " & ".join(["0.500"] * 4 + ["0.700"] * 4) + r" \\"
    assert lines[-3:] == [lines[4].replace(r"a\_b", "Average"), r"\bottomrule", r"\end{tabular}"]
    seeds = [results_of(["a"], value, seed=str(value)) for value in (0.5, 0.7)]
    assert r"0.600 $\pm$ 0.141" in latex_table(seeds)
    assert latex_table(seeds).splitlines()[-1].startswith("% Mean ± standard deviation over 2")


def test_tables_of_other_categories_of_one_setting_are_one_table():
    more = results_of(["zipper"], 0.7, layers="layer1", seed="42", date="Tuesday")
    assert markdown_table([ONE, more]) == markdown_table(pd.concat([ONE, more]))
    assert cells_of(markdown_table([ONE, more]))[-1][:2] == ["Average", "0.567"]


def test_settings_with_no_category_in_common_have_no_average():
    average = cells_of(markdown_table({"a": ONE[:1], "b": TWO[1:]}))[-3]
    assert average == ["Average", *[""] * 8]


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        (pd.concat([ONE, ONE]), ValueError, "category 'bottle' has several rows.*dict of names"),
        ({"fine": pd.concat([ONE, ONE])}, ValueError, r"several rows .*\(fine\)"),
        (ONE.drop(columns="aupro_0.3"), ValueError, "has no column 'aupro_0.3'"),
        ([], ValueError, "results are empty"),
        ({}, ValueError, "results are empty"),
        ("results.csv", TypeError, "results must be a DataFrame, a list of them, or a dict"),
        ({"fine": "results.csv"}, TypeError, "results 'fine' must be a DataFrame, not str"),
    ],
)
def test_what_is_no_results_is_refused(results, error, message):
    with pytest.raises(error, match=message):
        markdown_table(results)


def test_settings_are_all_that_is_neither_a_figure_nor_of_the_machine(make_mvtec_ad, make_detector):
    results = run_benchmark(
        "mvtec_ad", make_mvtec_ad(categories=["bottle"]), detector=make_detector()
    )
    others = {"category", *FIGURES, *COUNTS, *SECONDS, *machine("cpu", 1)}
    assert set(SETTINGS) == set(results.columns) - others
