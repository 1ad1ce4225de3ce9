"""Options that several subcommands have, and how a subcommand is added. Imports no torch."""

from __future__ import annotations

import argparse
import textwrap

EXIT_CODES = """\
exit codes: 0 all is well; 1 an error, told on the standard error; 2 a wrong command line; 3 fit
or score done, but for images that could not be read (--on-error skip); 130 interrupted (Ctrl-C)
"""


def add_command(commands, name, run, *, help, example, description=None):
    """A subcommand's parser; its help ends with the exit codes and an example."""
    command = commands.add_parser(
        name,
        help=help,
        description=textwrap.fill(description or f"{help[0].upper()}{help[1:]}.", 88),
        epilog=f"{EXIT_CODES}\nexample:\n{textwrap.indent(example, '  ')}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run, parser=command, example=example)
    return command


def add_images(parser, what):
    """What `fit` and `score` say alike of images."""
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="*",
        help=f"{what}: folders, subfolders included, and files; '-' for a list of them on the "
        "standard input",
    )
    parser.add_argument("--files-from", metavar="FILE", help="a list of more, one a line")
    add_error_options(parser)


def add_error_options(parser):
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
        type=int_or("none"),
        help="images with more pixels are not read, as they may be made to fill the memory; "
        "'none' for no limit (default: Pillow's, some 180 million)",
    )


def add_model_options(parser, backbone, crop_size):
    """What `fit` and `benchmark` say alike of the detector."""
    parser.add_argument(
        "--backbone", default=backbone, help=f"network, by name (default: {backbone})"
    )
    parser.add_argument(
        "--weights", default="imagenet", help="'imagenet', 'none', or the path of a state dict"
    )
    parser.add_argument("--layers", nargs="+", default="auto", help="from fine to coarse")
    parser.add_argument("--n-features", type=int_or("auto", "all"), default="auto")
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


def int_or(*words):
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
