"""`skpadim fit`: learn from good images, and write the model file."""

from __future__ import annotations

import shlex
import sys

from skpadim.command._arguments import add_command, add_images, add_model_options, add_output, share
from skpadim.command._given_images import (
    collect_images,
    counted,
    find_readable,
    tell_on_terminal,
    tell_skipped,
)
from skpadim.command._groups import read_groups
from skpadim.command._labelled_folder import check_only_good
from skpadim.command._model import make_detector, write_model
from skpadim.files._files import check_output_file
from skpadim.images._unreadable import UnreadableImageError


def add_fit(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "fit",
        run_fit,
        help="learn from good images",
        example="skpadim fit parts/good -o model.joblib --contamination 0.02",
    )
    add_images(parser, "good images")
    add_output(parser, "model file to write", required=True)
    add_model_options(parser, backbone="auto", crop_size="none")
    parser.add_argument(
        "--keep-aspect-ratio",
        action="store_true",
        help="--image-size is the shorter side's, and the other follows the images, which all "
        "must have the same proportions",
    )
    parser.add_argument(
        "--roi",
        metavar="FILE",
        help="region of interest: an image that is white where images are inspected and black "
        "elsewhere, of their size or of --image-size",
    )
    parser.add_argument(
        "--tile-size",
        type=int,
        metavar="PIXELS",
        help="for small defects in large photographs: show the network the image in tiles, of 256 "
        "to 512 pixels, and give --image-size what the photographs have",
    )
    parser.add_argument(
        "--contamination",
        type=share,
        default=0.05,
        help="share of new good images that may be flagged (default: 0.05)",
    )
    parser.add_argument(
        "--groups",
        metavar="PATTERN or FILE",
        help="which images show the same part, so that they do not vouch for each other: a regular "
        "expression, of which the first bracket, or else all that matches in the name of an image "
        "from its folder, is the part, as '(part\\d+)_'; or a CSV file with the columns path and "
        "group",
    )
    parser.add_argument(
        "--n-jobs", type=int, help="processes that images are shared out to (default: 1)"
    )


def run_fit(options) -> int:
    """Run the subcommand; returns its exit code."""
    check_output_file(options.output)
    given = collect_images(options.images, options.files_from)
    check_only_good(given.folders)
    paths = given.paths
    if len(paths) < 3:
        raise ValueError(f"{counted(len(paths), 'image')} given; at least 3 are needed.")
    groups = None if options.groups is None else read_groups(options.groups, given)
    tell_on_terminal(f"{counted(len(paths), 'image')} to learn from")
    detector = make_detector(
        options,
        contamination=options.contamination,
        keep_aspect_ratio=options.keep_aspect_ratio,
        roi=options.roi,
        tile_size=options.tile_size,
        n_jobs=options.n_jobs,
    )
    try:
        detector.fit(paths, groups=groups)
        n_skipped = 0
    except UnreadableImageError:
        if options.on_error != "skip":
            raise
        n_skipped = _fit_without_unreadable(detector, paths, groups)
    write_model(detector.set_params(n_jobs=None), options.output)  # it is this machine's
    of_groups = "" if groups is None else f" of {len(set(detector.calibration_groups_))} parts"
    print(
        f"{options.output}: {detector.backbone_}, {', '.join(detector.layers_)}, "
        f"{len(paths) - n_skipped} images{of_groups}, threshold {-detector.offset_:.4g}"
        f"{tell_skipped(n_skipped)}\n"
        f"next: skpadim report {shlex.quote(str(options.output))} FOLDER_OF_NEW_IMAGES",
        file=sys.stderr,
    )
    return 3 if n_skipped else 0


def _fit_without_unreadable(detector, paths, groups):
    """Fit without images that cannot be read, now that it is known that some cannot."""
    readable = find_readable(paths)
    n_skipped = len(paths) - len(readable)
    try:
        detector.fit(
            [paths[index] for index in readable],
            groups=None if groups is None else [groups[index] for index in readable],
        )
    except ValueError as error:
        raise ValueError(
            f"{n_skipped} of {len(paths)} images could not be read, and from the others nothing "
            f"can be learned: {error}"
        ) from error
    return n_skipped
