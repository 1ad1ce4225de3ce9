"""The figures of measured values: drawn from measured/*.csv whenever the pages are built.

A file holds what one run of a script printed. Its first two lines say on which machine and when,
and by which command, so that a figure never mixes machines or dates. Each becomes
figures/<name>.html: the drawing, where it comes from, and the numbers in a table to unfold.
"""

from __future__ import annotations

import html
import io
import re
from pathlib import Path
from textwrap import fill

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

HERE = Path(__file__).parent
# Ours first. Told apart in grey too, and on a white ground as on a black one.
COLOURS = ("#c2407a", "#f0b040", "#7f8ea3", "#4fa3a0")
WIDTH = 4.7  # inches, about the width of a phone: text is then as large as the page's
STYLE = {"svg.fonttype": "none", "font.size": 9.5, "axes.spines.top": False}
STYLE |= {"axes.spines.right": False, "legend.frameon": False, "savefig.transparent": True}


def draw_all(app=None):
    """Write figures/<name>.html for every file; Sphinx calls this before it reads the pages."""
    folder = HERE / "figures"
    folder.mkdir(exist_ok=True)
    for path in sorted((HERE / "measured").glob("*.csv")):
        machine, command = (line[2:] for line in path.read_text("utf-8").splitlines()[:2])
        frame = pd.read_csv(path, skiprows=2)
        numbers = pd.read_csv(path, skiprows=2, dtype=str, keep_default_na=False)
        drawing = ""
        if path.stem in FIGURES:
            with matplotlib.rc_context(STYLE | {"svg.hashsalt": path.stem}):
                title, figure = FIGURES[path.stem](frame)
                drawing = f'<div class="drawing">{svg(figure, title)}</div>'
        (folder / f"{path.stem}.html").write_text(
            f'<figure class="measured">{drawing}<figcaption>{html.escape(machine)}; '
            f"<code>{html.escape(command)}</code></figcaption><details><summary>The numbers"
            f'</summary><div class="scroll">{numbers.to_html(index=False, border=0)}</div>'
            "</details></figure>",
            encoding="utf-8",
        )


def svg(figure, title):
    """A figure to stand in the page: its text is the page's, in the colour of the theme."""
    file = io.StringIO()
    figure.savefig(file, format="svg", bbox_inches="tight", pad_inches=0.05)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"#000000|black", "currentColor", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = re.sub(r' id="[a-zA-Z]+\d*_\d+"', "", text)  # no two of a page may be the same
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def wrapped(labels):
    return [fill(label, 24) for label in labels]


def bars(labels, columns, title, *, log=False, form="{:g}"):
    """Horizontal bars: a group for each of the labels, in it a bar for each column with a value."""
    rows = sum(len(values) for values in columns.values())
    figure = Figure(figsize=(WIDTH, 0.9 + 0.21 * rows + 0.12 * len(labels)), layout="constrained")
    axis = figure.add_subplot()
    height = 0.84 / len(columns)
    colours = COLOURS if "skpadim" in columns else COLOURS[:0:-1]
    for number, (name, values) in enumerate(columns.items()):
        values = np.asarray(values, dtype=float)
        places = np.arange(len(labels)) + (number - (len(columns) - 1) / 2) * height
        drawn = axis.barh(places, np.nan_to_num(values), height * 0.9, color=colours[number])
        drawn.set_label(name)
        texts = ["" if np.isnan(value) else form.format(value) for value in values]
        axis.bar_label(drawn, texts, padding=3, fontsize=9)
    axis.set_yticks(range(len(labels)), wrapped(labels))
    axis.invert_yaxis()
    axis.margins(x=0.16)
    if log:
        axis.set_xscale("log")
    axis.set_xlabel(title)
    if len(columns) > 1:
        figure.legend(loc="outside upper left", ncols=3 if "anomalib" in columns else 2)
    return title, figure


def wide(frame, labels, columns, title, **options):
    """Bars of a table whose columns are the sides."""
    joined = frame[labels].astype(str).agg(", ".join, axis=1)
    return bars(list(joined), {name: frame[name] for name in columns}, title, **options)


def panels(frame, labels, columns):
    """A row of bars for each of some columns, of different units."""
    figure = Figure(figsize=(WIDTH, 0.75 * len(columns) + 0.37 * len(frame) * len(columns)))
    figure.set_layout_engine("constrained")
    for axis, (column, title) in zip(
        figure.subplots(len(columns), squeeze=False)[:, 0], columns.items(), strict=True
    ):
        ours = frame[labels].str.startswith("skpadim")
        colours = list(np.where(ours, COLOURS[0], COLOURS[1]))
        drawn = axis.barh(wrapped(frame[labels]), frame[column], color=colours)
        axis.bar_label(drawn, padding=3)
        axis.set_title(title, loc="left", fontsize=10)
        axis.invert_yaxis()
        axis.margins(x=0.2)
        axis.set_xticks([])
    return ", ".join(columns.values()), figure


def stacked(frame):
    """Where the time of a score and of a fit goes."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axis = figure.add_subplot()
    works, stages = frame.columns[1:], frame[frame["stage"] != "all"].fillna(0)
    totals = frame.set_index("stage").loc["all"]
    left = np.zeros(len(works))
    greys = matplotlib.colormaps["magma"](np.linspace(0.2, 0.95, len(stages)))
    for colour, (_, row) in zip(greys, stages.iterrows(), strict=True):
        values = row[works].to_numpy(dtype=float)
        axis.barh(works, values, left=left, color=colour, label=row["stage"], edgecolor="#888")
        left += values
    for place, total in enumerate(totals):
        axis.text(left[place] + 0.2, place, total, va="center", fontsize=9)
    axis.invert_yaxis()
    axis.margins(x=0.08)
    axis.set_xlabel("milliseconds an image")
    figure.legend(loc="outside upper left", fontsize=9)
    return "milliseconds an image, by stage", figure


LOOK = {"leave one out, by tile": COLOURS[3], "leave one out": COLOURS[0]}
LOOK["training scores"] = COLOURS[1]


def false_alarms(frame):
    """Share that is flagged beside the share that was asked for, by number of images."""
    thresholds = list(dict.fromkeys(frame["threshold"]))
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axis = figure.add_subplot()
    numbers = sorted(frame["n"].unique())
    for threshold in thresholds:
        for number, marker in zip(numbers, "ov^sDP", strict=False):
            rows = frame[(frame["threshold"] == threshold) & (frame["n"] == number)]
            axis.plot(
                rows["asked for"],
                rows["flagged"],
                marker + "-",
                color=LOOK[threshold],
                markersize=5,
            )
    axis.plot([0, 0.2], [0, 0.2], color="black", linewidth=1.5, linestyle="--")
    for threshold in thresholds:
        axis.plot([], [], color=LOOK[threshold], linewidth=3, label=threshold)
    for number, marker in zip(numbers, "ov^sDP", strict=False):
        axis.plot([], [], marker, color="#888", label=f"{number} images")
    axis.plot([], [], color="black", linestyle="--", label="as asked for")
    axis.set(xlabel="share asked for (contamination)", ylabel="share of new good images flagged")
    axis.set(ylim=(0, 1.03), xlim=(0, 0.21))
    figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    return "share of new good images flagged, by the share asked for", figure


def few_images(frame):
    """What a few training images find, by what positions share."""
    kinds = list(dict.fromkeys(frame["images"]))
    figure = Figure(figsize=(WIDTH, 7.2), layout="constrained")
    axes = figure.subplots(len(kinds), 2, sharex=True, sharey="col")
    for kind, row in zip(kinds, axes, strict=True):
        rows = frame[frame["images"] == kind]
        for metric, axis in zip(("image AUROC", "AUPRO"), row, strict=True):
            for sharing, colour, marker in zip(
                ("position", "neighbourhood", "image"), COLOURS, "os^", strict=False
            ):
                label = f"sharing={sharing!r}" if axis is axes[0, 0] else None
                values = rows[f"{sharing}, {metric}"]
                axis.plot(rows["training images"], values, marker + "-", color=colour, label=label)
            axis.set_xscale("log", base=2)
            axis.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
            axis.set_title(f"{kind}: {metric}", fontsize=10, loc="left")
    figure.supxlabel("training images", fontsize=10)
    figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    return "image AUROC and AUPRO by the number of training images", figure


def cluster_model(frame):
    """Time of a fit by the number of workers."""
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
    axis = figure.add_subplot()
    for (images, rows), colour, marker in zip(frame.groupby("images"), COLOURS, "os", strict=False):
        minutes = pd.to_timedelta(rows["time"]).dt.total_seconds() / 60
        axis.loglog(rows["workers"], minutes, marker + "-", color=colour)
        axis.lines[-1].set_label(f"{images:,} images")
        for worker, minute, text in zip(rows["workers"], minutes, rows["time"], strict=True):
            axis.annotate(text, (worker, minute), (4, 5), textcoords="offset points", fontsize=9)
    axis.set_xticks([2, 16, 100, 1000], ["2", "16", "100", "1,000"])
    axis.set_yticks([1, 60, 1440], ["1 min", "1 h", "1 day"])
    axis.minorticks_off()
    axis.margins(0.12)
    axis.set(xlabel="workers", ylabel="time of a fit")
    axis.legend()
    return "time of a fit by the number of workers, by the cost model", figure


def shared_machine(frame):
    """One image on an idle machine and on a busy one: median, smallest, largest."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axis = figure.add_subplot()
    labels = [f"{a},\n{b}" for a, b in zip(frame.iloc[:, 0], frame.iloc[:, 1], strict=True)]
    looks = (("idle", COLOURS[3], "o", -0.15), ("busy", COLOURS[0], "s", 0.15))
    for state, colour, marker, shift in looks:
        middle, least, most = (frame[f"{state}, {m}"] for m in ("median", "smallest", "largest"))
        places = np.arange(len(frame)) + shift
        axis.hlines(places, least, most, color=colour, linewidth=2)
        axis.plot(middle, places, marker, color=colour, label=f"{state} machine")
    axis.set_yticks(range(len(labels)), labels, fontsize=9)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    axis.minorticks_off()
    axis.set_xlabel("milliseconds for one image: median and range")
    figure.legend(loc="outside upper left", ncols=2)
    return "milliseconds for one image on an idle and on a busy machine", figure


def metric_errors(frame):
    """How far the values of others are off, in powers of ten."""
    labels = frame["metric"] + ": " + frame["other"].str.replace(" (its default)", "")
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axis = figure.add_subplot()
    size = frame["error"].abs()
    axis.hlines(labels, 1e-17, size, color="#888", linewidth=1)
    axis.plot(size, labels, "o", color=COLOURS[0])
    axis.set_xscale("log")
    axis.set_xlim(1e-17, 0.1)
    axis.invert_yaxis()
    axis.set_yticks(range(len(labels)), wrapped(labels))
    axis.set_xlabel("error (its size)")
    return "how far values of other tools are from the exact ones", figure


def seconds(values, title):
    return lambda frame: wide(frame, *values, title)


SIDES = ["skpadim", "anomalib", "OpenVINO"]
FIGURES = {
    "default_network": seconds((["work"], SIDES), "images per second"),
    "throughput": seconds((["work", "precision"], SIDES), "images per second"),
    "stages": stacked,
    "kernels": lambda frame: wide(frame, ["work"], ["skpadim", "torch"], "milliseconds an image"),
    "metrics_seconds": lambda frame: wide(
        frame, ["of 100 maps"], ["256 x 256", "900 x 900"], "seconds, each step ten times", log=True
    ),
    "grid_search": seconds(
        (["backbone"], ["search", "search, features there", "search without memory"]), "seconds"
    ),
    "false_alarms_generated": false_alarms,
    "false_alarms_tiles": false_alarms,
    "calibration": seconds(
        (["backbone", "images"], ["with the threshold", "fit alone"]), "seconds of a fit"
    ),
    "wide_resnet": lambda frame: panels(
        frame[frame["side"] != "ratio"],
        "side",
        {
            "Gaussian stage, s": "Gaussian stage of 100 images, seconds",
            "peak MiB, with the embeddings": "peak memory with the embeddings, MiB",
            "score in batches of 32, images/s": "score in batches of 32, images per second",
            "one image at a time": "score one image at a time, images per second",
        },
    ),
    "wide_resnet_fits": lambda frame: panels(
        frame.assign(side=frame["side"] + ", " + frame["images"].astype(str) + " images"),
        "side",
        {"whole fit, s": "whole fit, seconds", "fit, peak MiB": "peak memory of the fit, MiB"},
    ),
    "decoding": seconds(
        (
            ["files"],
            ["score of the files", "ours to the network's input", "the network and maps alone"],
        ),
        "images per second",
    ),
    "memory": seconds((["backbone"], ["200 images", "5,000 images"]), "peak memory, MiB"),
    "magnetic_tiles": lambda frame: wide(
        frame, ["kind"], ["image AUROC", "AUPRO"], "image AUROC and AUPRO", form="{:.3f}"
    ),
    "few_images": few_images,
    "cluster_model": cluster_model,
    "shared_machine": shared_machine,
    "metric_errors": metric_errors,
}

if __name__ == "__main__":
    draw_all()
