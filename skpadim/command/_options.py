"""The command line: its subcommands and their options. Imports no torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from skpadim._files import check_output_file
from skpadim._version import __version__
from skpadim.command._benchmark import run_benchmark_command
from skpadim.command._fit import run_fit
from skpadim.command._report import add_report_options, run_report
from skpadim.command._score import run_score

_EXIT_CODES = """\
exit codes: 0 all is well; 1 an error, told on the standard error; 2 a wrong command line; 3 fit
or score done, but for images that could not be read (--on-error skip); 130 interrupted (Ctrl-C)
"""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of a command line."""
    options, more = _parser().parse_known_args(_join_sizes(arguments))
    # Some versions of argparse look for images only where the first of them could stand.
    if hasattr(options, "images"):
        names, _, after = _partition(more, "--")  # behind which all are names
        if not any(word.startswith("-") for word in names):
            options.images += names + after
            more = []
    if more:
        options.parser.error(f"unrecognized arguments: {' '.join(more)}")
    if hasattr(options, "images") and not options.images and options.files_from is None:
        options.parser.error("give images: folders or files, or --files-from FILE")
    return options


def _partition(words, word):
    """As ``str.partition``, of a list."""
    place = words.index(word) if word in words else len(words)
    return words[:place], words[place : place + 1], words[place + 1 :]


def _join_sizes(arguments):
    """The same arguments with "--image-size H W" as "--image-size HxW"."""
    # argparse would take whatever follows for the width, or ask for both numbers.
    joined = []
    for word in arguments:
        is_width = joined[-2:-1] in (["--image-size"], ["--crop-size"])
        if is_width and word.isdecimal() and joined[-1].isdecimal():
            joined[-1] += f"x{word}"
        else:
            joined.append(word)
    return joined


def _parser():
    parser = argparse.ArgumentParser(
        prog="skpadim",
        description="Find defective images, and where they are defective, after seeing good ones.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"skpadim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add_command(name, run, **texts):
        command = commands.add_parser(name, epilog=_EXIT_CODES, **texts)
        command.set_defaults(run=run, parser=command)
        return command

    demo = add_command(
        "demo", _run_demo, help="fit and score generated parts; nothing is downloaded"
    )
    demo.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("skpadim-demo.png"),
        help="picture to write; the report, in HTML, gets its name too",
    )

    fit = add_command("fit", run_fit, help="learn from good images")
    _add_images(fit, "good images")
    fit.add_argument("-o", "--output", type=Path, required=True, help="model file to write")
    _add_model_options(fit, backbone="auto", crop_size="none")
    fit.add_argument(
        "--keep-aspect-ratio",
        action="store_true",
        help="--image-size is the shorter side's, and the other follows the images, which all "
        "must have the same proportions",
    )
    fit.add_argument(
        "--contamination",
        type=float,
        default=0.05,
        help="share of new good images that may be flagged (default: 0.05)",
    )

    score = add_command(
        "score",
        run_score,
        help="score images",
        description="Score images: path, score, decision and label (-1: anomalous) of each. Rows "
        "are written as they come. An earlier output file stays until there are rows to replace "
        "it with; after that, the rows of a run that was stopped are in it.",
    )
    score.add_argument("model", type=Path, help="model file; read only those that you trust")
    _add_images(score, "images")
    score.add_argument(
        "-o", "--output", type=Path, help="CSV file to write (default: standard output)"
    )
    score.add_argument(
        "--resume",
        action="store_true",
        help="go on with the output file of a run that was stopped: images that it has are not "
        "scored again",
    )
    score.add_argument(
        "--maps", type=Path, help="folder for the anomaly maps: .tiff (values), .png (to look at)"
    )
    score.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")

    report = add_command(
        "report",
        run_report,
        help="write a page of what a model finds, with its threshold to try out",
        description="Score images and write one HTML file: the threshold on a slider, what follows "
        "from it, and the images, the most anomalous first. It needs no network.",
    )
    add_report_options(report)
    _add_error_options(report)

    benchmark = add_command(
        "benchmark",
        run_benchmark_command,
        help="fit and evaluate each category of a data set",
        description="Fit and evaluate each category of a data set; print the table in Markdown. "
        "With -o, a run that was stopped goes on where it was when the same command is given.",
    )
    benchmark.add_argument(
        "dataset",
        metavar="DATASET",
        help="mvtec_ad, btad, visa, mvtec_loco, mvtec_ad_2; a folder of your own that is laid out "
        "as one of them is a category of it",
    )
    benchmark.add_argument("--root", type=Path, required=True, help="folder of the categories")
    benchmark.add_argument(
        "--category", nargs="+", action="extend", help="one or more (default: all that are there)"
    )
    _add_model_options(benchmark, backbone="resnet18", crop_size=None)  # the paper's
    _add_error_options(benchmark)
    benchmark.add_argument(
        "--batch-size", type=int, default=32, help="images at a time (default: 32)"
    )
    benchmark.add_argument(
        "--resolution",
        default="model",
        help="where pixels are compared: 'model', as the paper does it, or 'original' "
        "(default: model)",
    )
    benchmark.add_argument("-o", "--output", type=Path, help="CSV file to write, and to resume")
    return parser


def _add_images(parser, what):
    """What `fit` and `score` say alike of images."""
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="*",
        help=f"{what}: folders, subfolders included, and files; '-' for a list of them on the "
        "standard input",
    )
    parser.add_argument("--files-from", metavar="FILE", help="a list of more, one a line")
    _add_error_options(parser)


def _add_error_options(parser):
    parser.add_argument(
        "--on-error",
        type=lambda text: "stop" if text == "raise" else text,
        choices=("stop", "skip"),
        default="stop",
        help="at images that cannot be read: 'stop' ('raise' is the same), or 'skip', which "
        "leaves them out and says so (default: stop)",
    )
    parser.add_argument(
        "--max-pixels",
        type=_int_or("none"),
        help="images with more pixels are not read, as they may be made to fill the memory; "
        "'none' for no limit (default: Pillow's, some 180 million)",
    )


def _add_model_options(parser, backbone, crop_size):
    """What `fit` and `benchmark` say alike of the detector."""
    parser.add_argument(
        "--backbone", default=backbone, help=f"network, by name (default: {backbone})"
    )
    parser.add_argument(
        "--weights", default="imagenet", help="'imagenet', 'none', or the path of a state dict"
    )
    parser.add_argument("--layers", nargs="+", default="auto", help="from fine to coarse")
    parser.add_argument("--n-features", type=_int_or("auto", "all"), default="auto")
    parser.add_argument(
        "--image-size",
        type=_size,
        default=256,
        metavar="H [W]",
        help="pixels, one number for a square (default: 256)",
    )
    parser.add_argument(
        "--crop-size",
        type=_size_or_none,
        metavar="H [W]",
        default=crop_size,
        help="the centre that is kept, or 'none' for the whole image (default: "
        f"{crop_size or '7/8 of the image size, as in the paper'})",
    )
    parser.add_argument(
        "--regularization",
        type=_number_or_auto,
        default=0.01,
        help="added to the diagonal of each covariance, or 'auto' (default: 0.01)",
    )
    parser.add_argument(
        "--sharing",
        choices=("position", "neighbourhood", "image"),
        default="position",
        help="patches that a Gaussian is fitted to: 'neighbourhood' for few images and parts that "
        "shift, 'image' for textures (default: position)",
    )
    parser.add_argument("--seed", type=int, default=42, help="random_state (default: 42)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")


def _int_or(*words):
    """An argparse type: a whole number or one of some words."""

    def convert(text):
        return text if text in words else int(text)

    convert.__name__ = f"number, or {' or '.join(words)}"
    return convert


def _number_or_auto(text):
    return text if text == "auto" else float(text)


_number_or_auto.__name__ = "number, or auto,"


def _size(text):
    """An argparse type: a number, or two as :func:`_join_sizes` writes them."""
    return tuple(map(int, text.split("x", maxsplit=1))) if "x" in text else int(text)


def _size_or_none(text):
    return text if text == "none" else _size(text)


_size.__name__ = "number of pixels, or two,"
_size_or_none.__name__ = "number of pixels, or two, or none,"


def _run_demo(options):
    for path in (options.output, options.output.with_suffix(".html")):
        check_output_file(path)
    from skpadim.command._demo import run_demo

    run_demo(options.output)
