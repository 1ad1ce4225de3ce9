"""The command line, read: which subcommands there are. Imports no torch.

What a subcommand takes and does stands in its own module.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from skpadim._version import __version__
from skpadim.command._arguments import EXIT_CODES, add_command, add_output
from skpadim.command._benchmark import add_benchmark
from skpadim.command._calibrate import add_calibrate
from skpadim.command._doctor import add_doctor
from skpadim.command._evaluate import add_evaluate
from skpadim.command._fit import add_fit
from skpadim.command._info import add_info
from skpadim.command._report import add_report
from skpadim.command._score import add_score
from skpadim.files._files import check_output_file


def parse(arguments: list[str]) -> argparse.Namespace:
    """Options of a command line."""
    options, more = make_parser().parse_known_args(_join_sizes(arguments))
    # Some versions of argparse look for images only where the first of them could stand.
    if hasattr(options, "images"):
        place = more.index("--") if "--" in more else len(more)
        names, after = more[:place], more[place + 1 :]  # behind it, all are names
        if not any(word.startswith("-") for word in names):
            options.images += names + after
            more = []
    if more:
        options.parser.error(f"unrecognized arguments: {' '.join(more)}")
    if hasattr(options, "images") and not options.images and options.files_from is None:
        options.parser.error("give images: folders or files, or --files-from FILE")
    return options


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


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="skpadim",
        description="Find defective images, and where they are defective, after seeing good ones.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"skpadim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return parser


def _add_demo(commands):
    parser = add_command(
        commands,
        "demo",
        _run_demo,
        help="fit and score generated parts; nothing is downloaded",
        example="skpadim demo -o demo.png",
    )
    text = "picture to write; the report, in HTML, gets its name too"
    add_output(parser, text, default=Path("skpadim-demo.png"))


def _run_demo(options):
    for path in (options.output, options.output.with_suffix(".html")):
        check_output_file(path)
    from skpadim.command._demo import run_demo

    run_demo(options.output)


_COMMANDS = (  # in the order of the help
    _add_demo,
    add_fit,
    add_score,
    add_report,
    add_evaluate,
    add_calibrate,
    add_info,
    add_doctor,
    add_benchmark,
)
