"""`skpadim benchmark`: a data set, category by category."""

from __future__ import annotations

import io
from argparse import Namespace
from itertools import product
from pathlib import Path

from skpadim.command._arguments import add_command, add_error_options, add_model_options, add_output
from skpadim.command._model import make_detector


def add_benchmark(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "benchmark",
        run_benchmark_command,
        help="fit and evaluate each category of a data set",
        description="Fit and evaluate each category of a data set; print the table. Of "
        "several seeds it has means and standard deviations; several backbones, regularizations, "
        "sharings or alignments stand side by side. With -o, a run that was stopped goes on where "
        "it was when the same command is given.",
        example="skpadim benchmark mvtec_ad --root data/mvtec_ad -o results.csv --seed 42 43 44",
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="mvtec_ad, btad, visa, mvtec_loco, mvtec_ad_2; a folder of your own that is laid out "
        "as one of them is a category of it",
    )
    parser.add_argument(
        "--root", type=Path, metavar="FOLDER", required=True, help="folder of the categories"
    )
    parser.add_argument(
        "--category", nargs="+", action="extend", help="one or more (default: all that are there)"
    )
    add_model_options(parser, backbone="resnet18", crop_size=None, compares=True)  # the paper's
    add_error_options(parser)
    parser.add_argument("--batch-size", type=int, default=32, help="images at a time (default: 32)")
    parser.add_argument(
        "--resolution",
        default="model",
        help="where pixels are compared: 'model', as the paper does it, or 'original' "
        "(default: model)",
    )
    parser.add_argument(
        "--unaligned",
        action="store_true",
        help="turn each image by up to 10 degrees and crop it at random, as the paper does to see "
        "what becomes of parts that are not aligned",
    )
    add_output(parser, "CSV file to write, and to resume")
    parser.add_argument(
        "--format",
        choices=("markdown", "latex", "csv"),
        default="markdown",
        help="of what is printed: a table, or with csv all rows as -o has them (default: markdown)",
    )


def run_benchmark_command(options) -> int:
    """Run the subcommand; returns its exit code."""
    from skpadim.benchmark import latex_table, markdown_table, run_benchmark
    from skpadim.benchmark._categories import find_dataset
    from skpadim.datasets._layout import find_categories
    from skpadim.files._csv import write_csv

    if not options.category:  # a mistyped folder is told before torch is imported
        find_categories(find_dataset(options.dataset), options.root)
    results = run_benchmark(
        options.dataset,
        options.root,
        categories=options.category,
        detector=_detectors(options),
        seed=options.seed,
        resolution=options.resolution,
        unaligned=options.unaligned,
        on_error="raise" if options.on_error == "stop" else options.on_error,
        output=options.output,
        verbose=1,
    )
    if options.format == "csv":
        rows = io.BytesIO()
        write_csv(results, rows)
        print(rows.getvalue().decode("utf-8", "replace"), end="")
    else:
        print({"markdown": markdown_table, "latex": latex_table}[options.format](results))
    return 3 if results["n_skipped"].any() else 0


def _detectors(options):
    """A detector for each combination of the options that are compared."""
    names = ("backbone", "regularization", "sharing", "align")
    return [
        make_detector(
            Namespace(**{**vars(options), "seed": None, **dict(zip(names, values, strict=True))}),
            batch_size=options.batch_size,
        )
        for values in product(*(dict.fromkeys(getattr(options, name)) for name in names))
    ]
