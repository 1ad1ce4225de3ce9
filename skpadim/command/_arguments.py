"""Options that several subcommands have, and how a subcommand is added. Imports no torch."""

from __future__ import annotations

import argparse
import math
import textwrap
from pathlib import Path

EXIT_CODES = """\
exit codes: 0 all is well; 1 an error, told on the standard error; 2 a wrong command line; 3 done,
but for images that could not be read (--on-error skip); 4 what was looked for was found: anomalous
images (score --fail-on-anomaly), or something to mend (doctor); 130 interrupted (Ctrl-C)
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


def add_model(parser):
    """Add the model file that a subcommand reads."""
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="model file; read only those that you trust"
    )


def add_device(parser):
    """Add where to compute."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")


def add_output(parser, help, **more):
    """Add the file that a subcommand writes."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=help, **more)


def add_masks(parser):
    """Add where the masks of a folder of known kinds lie."""
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="FOLDER",
        help="folder of the defects' masks, named as the images, or with '_mask' behind (default: "
        "the folder 'ground_truth' beside FOLDER, if there is one)",
    )


def add_threshold_options(parser):
    """Add another threshold than the model's, for one run."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--threshold",
        type=positive,
        help="flag images whose map exceeds it, in this run: the unit of the maps, and of what fit "
        "prints (default: the model's)",
    )
    group.add_argument(
        "--contamination",
        type=share,
        help="set the threshold for this run so that about this share of new good images is "
        "flagged (default: the model's threshold)",
    )


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
        type=word_or(int, "number, or none", "none"),
        help="images with more pixels are not read, as they may be made to fill the memory; "
        "'none' for no limit (default: Pillow's, some 180 million)",
    )


def add_model_options(parser, backbone, crop_size, *, compares=False):
    """What `fit` and `benchmark` say alike of the detector; to compare, several values of some."""

    def add(name, several="several are compared", **texts):
        if compares:
            texts["help"] += f"; {several}"
            texts |= {"nargs": "+", "default": [texts["default"]]}
        parser.add_argument(name, **texts)

    add("--backbone", default=backbone, help=f"network, by name (default: {backbone})")
    parser.add_argument(
        "--weights", default="imagenet", help="'imagenet', 'none', or the path of a state dict"
    )
    parser.add_argument(
        "--layers", nargs="+", default="auto", help="from fine to coarse (default: the network's)"
    )
    parser.add_argument(
        "--n-features",
        type=word_or(int, "number, or auto or all", "auto", "all"),
        default="auto",
        help="length of an embedding, or 'all' (default: auto, the network's)",
    )
    parser.add_argument(
        "--image-size",
        type=_size,
        default=256,
        metavar="H [W]",
        help="pixels, one number for a square (default: 256)",
    )
    parser.add_argument(
        "--crop-size",
        type=word_or(_size, "number of pixels, or two, or none,", "none"),
        metavar="H [W]",
        default=crop_size,
        help="the centre that is kept, or 'none' for the whole image (default: "
        f"{crop_size or '7/8 of the image size, as in the paper'})",
    )
    add(
        "--regularization",
        type=word_or(float, "number, or auto,", "auto"),
        default=0.01,
        help="added to the diagonal of each covariance, or 'auto' (default: 0.01)",
    )
    add(
        "--sharing",
        choices=("position", "neighbourhood", "image"),
        default="position",
        help="patches that a Gaussian is fitted to: 'neighbourhood' for few images and parts that "
        "shift, 'image' for textures (default: position)",
    )
    add(
        "--align",
        choices=("none", "translation", "rigid", "similarity"),
        default="none",
        help="bring parts that are shifted, also turned, or also nearer, to one place (default: "
        "none, images are taken as they lie)",
    )
    several = "of several, means and standard deviations are given"
    add("--seed", several, type=int, default=42, help="random_state (default: 42)")
    add_device(parser)


def word_or(convert, name, *words):
    """An argparse type, with the name that errors give it: one of some words, or what converts."""

    def convert_others(text):
        return text if text in words else convert(text)

    convert_others.__name__ = name
    return convert_others


def positive(text):
    """An argparse type: maps are positive, and so are thresholds."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text}: thresholds are positive, as maps are; scores in the CSV are minus the map's "
            "highest value"
        )
    return value


positive.__name__ = "number above 0,"


def share(text):
    """An argparse type: a contamination."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 0.5, as 0.02")
    return value


def _size(text):
    """An argparse type: a number, or two as :func:`_join_sizes` writes them."""
    return tuple(map(int, text.split("x", maxsplit=1))) if "x" in text else int(text)


_size.__name__ = "number of pixels, or two,"
