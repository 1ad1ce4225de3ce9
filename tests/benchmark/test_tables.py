"""Tables of results, of one setting and of several."""

import math

import pandas as pd
import pytest

from skpadim.benchmark import markdown_table, run_benchmark
from skpadim.benchmark._results import COUNTS, FIGURES, SECONDS
from skpadim.benchmark._setting import SETTINGS, machine


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
