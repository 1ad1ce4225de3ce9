"""Share of new good samples that a threshold flags, beside the contamination asked for.

Usage: python benchmarks/false_alarms.py [CATEGORY_FOLDER] [--repetitions 100] [--splits 12]
       [--csv FILE]

On generated embeddings, which are exchangeable by construction: Gaussian, heavy-tailed (Student's t
with 3 degrees of freedom, one scale an image), and in parts of which there are up to six
photographs. Each repetition fits `PatchGaussian` to n images and scores 300 new ones.

With a folder, also on the filter bank's embeddings of its good images; each split takes the
photographs of random parts, n of them, to fit, and scores those of the parts that are left. In the
magnetic tiles a name such as exp2_num_834 gives exposure and frame, and a tile was photographed
under one exposure after the other; other images each show a part of their own.

Thresholds are those of leave-one-out scores, with a part's photographs left out together ("by
part") or one by one, and of the training samples' own scores. Where there are parts, each counts as
one among the new images. In brackets the standard error over the repetitions; a star where n is too
small for the contamination, so that the lowest score is the threshold.
"""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from _setting import print_setting, read_category
from _timing import print_bars, print_header, print_row

from skpadim import PatchEmbedder, PatchGaussian

SIZES = (10, 20, 50, 100, 200, 400)
CONTAMINATIONS = (0.01, 0.05, 0.1, 0.2)
GRID, N_FEATURES, N_NEW = (3, 3), 12, 300
LARGEST_SHARE = 0.6  # of the images of a folder that are fitted to
LONGEST_PAUSE = 200  # frames between two exposures of a tile
BY_PART, ONE_BY_ONE, TRAINING = "leave one out, by part", "leave one out", "training scores"
# A threshold that flags next to nothing keeps its promise too; not so with this many images, or
# parts where there are several photographs of each.
LOWEST_SHARE, ENOUGH_FOR_SHARE = 0.5, 50


class Generated:
    """Good images of one kind, as the embeddings of them."""

    def __init__(self, kind: str):
        rng = np.random.default_rng(1)
        self.kind = kind
        self.mixing = rng.normal(size=(*GRID, N_FEATURES, N_FEATURES))
        self.mean = rng.normal(size=(*GRID, N_FEATURES))

    def draw(self, rng, n):
        """Embeddings (n, *GRID, N_FEATURES), and the part that each shows or None."""
        parts, white = None, rng.normal(size=(n, *GRID, N_FEATURES))
        if self.kind == "heavy tails":
            white /= np.sqrt(rng.chisquare(3, size=(n, 1, 1, 1)) / 3)
        elif self.kind == "photographs of parts":
            parts = np.repeat(np.arange(n), rng.integers(1, 7, size=n))[:n]
            white = (rng.normal(size=white.shape)[parts] + 0.4 * white) / np.sqrt(1.16)
        images = np.einsum("nhwd,hwde->nhwe", white, self.mixing) + self.mean
        return images.astype(np.float32), parts


def flagged_shares(images, parts, new, new_parts):
    """Share of the new images that is flagged, by threshold and contamination."""
    scores = weights = None
    if new_parts is not None:
        _, codes, counts = np.unique(new_parts, return_inverse=True, return_counts=True)
        weights = 1 / counts[codes]
    thresholds = {ONE_BY_ONE: "leave_one_out", TRAINING: "training"}
    if parts is not None:
        thresholds = {BY_PART: "leave_one_out", **thresholds}
    for threshold, calibration in thresholds.items():
        groups = parts if threshold == BY_PART else None
        gaussian = PatchGaussian(calibration=calibration, contamination=0.5)
        gaussian.fit(images, groups=groups)
        if scores is None:  # thresholds differ, the model does not
            scores = gaussian.score_samples(new)
        n = len(images) if groups is None else len(np.unique(groups))
        for contamination in CONTAMINATIONS:
            enough = threshold == TRAINING or 1 / (n + 1) <= contamination
            with warnings.catch_warnings():
                warnings.filterwarnings("default" if enough else "ignore", ".* too few ")
                offset = gaussian.set_params(contamination=contamination).calibrate().offset_
            yield {
                "n": len(images),
                "n_counted": n,
                "threshold": threshold,
                "contamination": contamination,
                "enough": enough,
                "flagged": np.average(scores < offset, weights=weights),
            }


def on_generated(kind: str, repetitions: int) -> list[dict]:
    source, rng = Generated(kind), np.random.default_rng(0)
    rows = []
    for n in SIZES:
        for _ in range(repetitions):
            rows += flagged_shares(*source.draw(rng, n), *source.draw(rng, N_NEW))
    return rows


def on_images(root: Path, splits: int) -> list[dict]:
    train, test = read_category(root)
    paths = [*train, *test["path"][test["kind"] == "good"]]
    parts = parts_of(paths)
    embeddings = PatchEmbedder("filter_bank", image_size=128, crop_size=112).fit_transform(paths)
    grid = " x ".join(map(str, embeddings.shape[1:3]))
    print(
        f"\n{len(paths)} good images of {parts.max() + 1} parts, {grid} positions, "
        f"{embeddings.shape[3]} features",
        flush=True,
    )
    rows, rng = [], np.random.default_rng(0)
    for n in (n for n in SIZES if n <= LARGEST_SHARE * len(paths)):
        for _ in range(splits):
            place = rng.permutation(parts.max() + 1)
            by_part = np.argsort(place[parts], kind="stable")
            chosen, left = by_part[:n], by_part[n:]
            # Of the part that is cut in two, no photograph may be among the new ones.
            left = left[parts[left] != parts[chosen[-1]]]
            rows += flagged_shares(embeddings[chosen], parts[chosen], embeddings[left], parts[left])
    return rows


def parts_of(paths: list[Path]) -> np.ndarray:
    """Number of the part that each image shows."""
    names = [re.fullmatch(r"exp(\d+)_num_(\d+)", path.stem) for path in paths]
    if not all(names):
        return np.arange(len(paths))
    exposures, frames = np.array([name.groups() for name in names], dtype=int).T
    order = np.argsort(frames)
    next_part = (np.diff(exposures[order]) <= 0) | (np.diff(frames[order]) > LONGEST_PAUSE)
    parts = np.empty(len(paths), dtype=int)
    parts[order] = np.concatenate([[0], next_part.cumsum()])
    return parts


def print_table(table: pd.DataFrame) -> None:
    """Rows of sizes and thresholds, a column for each contamination."""
    print_header("n", "threshold", *(f"asked for {c:g}" for c in CONTAMINATIONS))
    for (n, threshold), rows in table.groupby(["n", "threshold"], sort=False):
        cells = [
            f"{row.flagged:.3f} ({row.standard_error:.3f}){'' if row.enough else ' *'}"
            for row in rows.itertuples()
        ]
        print_row(n, threshold, *cells)


def summarise(rows: list[dict], data: str) -> pd.DataFrame:
    """Mean and standard error of the repetitions of each cell."""
    keys = ["n", "threshold", "contamination"]
    cells = pd.DataFrame(rows).groupby(keys, sort=False)
    table = cells.agg(
        flagged=("flagged", "mean"),
        standard_error=("flagged", "sem"),
        enough=("enough", "all"),
        n_counted=("n_counted", "mean"),
    )
    return table.reset_index().assign(data=data)


def bars_of(table: pd.DataFrame) -> list[tuple[str, float, str, float]]:
    """The worst cell of each kind of data: too much flagged, and too little.

    Photographs of one part are not independent, so where there are parts "by part" is held to it.
    """
    bars = []
    for data, rows in table[table["enough"]].groupby("data", sort=False):
        best = BY_PART if (rows["threshold"] == BY_PART).any() else ONE_BY_ONE
        rows = rows[rows["threshold"] == best]
        excess = (rows["flagged"] - rows["contamination"]) / rows["standard_error"]
        bars.append((f"{data}, standard errors above what was asked for", excess.max(), "<=", 3))
        rows = rows[rows["n_counted"] >= ENOUGH_FOR_SHARE]
        if best == BY_PART:
            # Next to the smallest p-value lie the worst photographs of several parts, not of one.
            rows = rows[rows["contamination"] * (rows["n_counted"] + 1) >= 2]
        share = (rows["flagged"] / rows["contamination"]).min()
        if len(rows):
            bars.append((f"{data}, share of what was asked for", share, ">=", LOWEST_SHARE))
    return bars


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--splits", type=int, default=12, help="of the images of the folder")
    parser.add_argument("--csv", type=Path, help="file to write the tables to")
    options = parser.parse_args()
    print_setting("skpadim", "scikit-learn")
    tables = []
    for kind in ("Gaussian", "heavy tails", "photographs of parts"):
        print(f"\n{kind}, {options.repetitions} repetitions", flush=True)
        tables.append(summarise(on_generated(kind, options.repetitions), kind))
        print_table(tables[-1])
    if options.root is not None:
        rows = on_images(options.root, options.splits)
        tables.append(summarise(rows, options.root.name))
        print_table(tables[-1])
    table = pd.concat(tables)
    if options.csv is not None:
        table.to_csv(options.csv, index=False)
    print_bars(bars_of(table))


if __name__ == "__main__":
    main()
