"""The tables of doc/accuracy.md: what others published, and what `skpadim benchmark` measured.

Usage: python benchmarks/accuracy.py [--check]

Fills the tables between the page's markers from published.csv and from the files of results/,
each written by the command that the page gives above its table. Nobody fills them by hand:
--check, which a test runs, fails if the page is not what this script makes of the files.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pandas as pd

from skpadim.benchmark import read_results
from skpadim.benchmark._categories import find_dataset
from skpadim.benchmark._results import TITLES, lines_of

HERE = Path(__file__).parent
PAGE = HERE.parent / "doc" / "accuracy.md"
RESULTS, PUBLISHED = HERE / "results", HERE / "published.csv"
MARKED = re.compile(r"(<!-- table (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
# What the command of the page sets; a file of other settings does not belong there.
SETTING = {
    "weights": "imagenet",
    "layers": "layer1 layer2 layer3",
    "projection": "random",
    "image_size": "256",
    "crop_size": "224",
    "regularization": "0.01",
    "sharing": "position",
    "sigma": "4.0",
    "precision": "float32",
    "align": "none",
    "unaligned": "no",
    "seed": "42",
    "resolution": "model",
}
N_FEATURES = {"resnet18": "100", "wide_resnet50_2": "550"}


def fill(page: str, results: Path, published: pd.DataFrame) -> str:
    """The page with its tables made anew."""
    return MARKED.sub(
        lambda found: f"{found[1]}\n{table(found[2], found[3], results, published)}\n\n{found[4]}",
        page,
    )


def table(dataset: str, backbone: str, results: Path, published: pd.DataFrame) -> str:
    """Command, versions and table of one data set and network."""
    name = f"{dataset}-{backbone}.csv"
    command = (
        f"skpadim benchmark {dataset} --root DIR --backbone {backbone} -o benchmarks/results/{name}"
    )
    known = published[(published["dataset"] == dataset) & (published["backbone"] == backbone)]
    ours = read_ours(results / name, dataset, backbone)
    header, columns, averages = ["category"], [], []
    for figure, title in TITLES.items():
        if ours is not None:
            header.append(f"{title}, skpadim")
            columns.append(with_average(ours, figure))
        of_figure = known[known["figure"] == figure]
        for source in ("paper", "anomalib"):
            values = of_figure[of_figure["source"] == source].set_index("category")["value"]
            if list(values.index) == ["Average"]:  # a line of text, no column that is empty
                averages.append(f"{title}, {source}: {values['Average']:.3f}")
            elif len(values):
                header.append(f"{title}, {source}")
                columns.append(values)
    if not columns:
        return f"    {command}\n\nNobody with the data has run it yet."
    categories = [*find_dataset(dataset).categories, "Average"]
    rows = [[name, *(cell(column, name) for column in columns)] for name in categories]
    known_averages = f"\n\nOf all categories only: {'; '.join(averages)}." if averages else ""
    return f"    {command}\n\n{origin(ours)}{lines_of(header, rows)}{known_averages}"


def read_ours(path: Path, dataset: str, backbone: str) -> pd.DataFrame | None:
    """Our results, if there are some, of exactly what the page says."""
    if not path.exists():
        return None
    results = read_results(path)
    wanted = {"dataset": dataset, "backbone": backbone, "n_features": N_FEATURES[backbone]}
    for column, value in (wanted | SETTING).items():
        for found in results[column]:
            if found != value:
                raise ValueError(f"{path}: {column} is {found!r}; the page's is {value!r}.")
    if results["n_skipped"].any():
        raise ValueError(f"{path}: images were left out; the page's figures are of all images.")
    return results[results["category"].isin(find_dataset(dataset).categories)]


def with_average(ours: pd.DataFrame, figure: str) -> pd.Series:
    """A figure of each category; the average only of all of them."""
    values = ours.set_index("category")[figure]
    if len(values) == len(find_dataset(ours["dataset"].iloc[0]).categories):
        values = pd.concat([values, pd.Series({"Average": values.mean()})])
    return values


def cell(column: pd.Series, name: str) -> str:
    return f"{column[name]:.3f}" if name in column.index else ""


def origin(ours: pd.DataFrame | None) -> str:
    if ours is None:
        return ""
    row = ours.iloc[-1]
    device = row["cpu"] if row["device"] == "cpu" else row["gpu"]
    return (
        f"skpadim {row['skpadim_version']}, torch {row['torch_version']}, {device}, "
        f"{row['date'][:10]}.\n\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    published = pd.read_csv(PUBLISHED, dtype={"category": str})
    page = options.page.read_text(encoding="utf-8")
    filled = fill(page, options.results, published)
    if options.check:
        if filled != page:
            print(f"{options.page}: run python benchmarks/accuracy.py", file=sys.stderr)
        return int(filled != page)
    options.page.write_text(filled, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
