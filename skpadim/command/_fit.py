"""`skpadim fit`: learn from good images, and write the model file."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from skpadim._files import check_output_file, written_whole
from skpadim.command._arguments import add_command, add_images, add_model_options
from skpadim.command._given_images import collect_images, tell_on_terminal
from skpadim.command._model import make_detector
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
    parser.add_argument("-o", "--output", type=Path, required=True, help="model file to write")
    add_model_options(parser, backbone="auto", crop_size="none")
    parser.add_argument(
        "--keep-aspect-ratio",
        action="store_true",
        help="--image-size is the shorter side's, and the other follows the images, which all "
        "must have the same proportions",
    )
    parser.add_argument(
        "--contamination",
        type=float,
        default=0.05,
        help="share of new good images that may be flagged (default: 0.05)",
    )


def run_fit(options) -> int:
    """Run the subcommand; returns its exit code."""
    check_output_file(options.output)
    paths = collect_images(options.images, options.files_from).paths
    tell_on_terminal(f"{len(paths)} images to learn from")
    detector = make_detector(
        options,
        contamination=options.contamination,
        keep_aspect_ratio=options.keep_aspect_ratio,
    )
    try:
        detector.fit(paths)
        n_skipped = 0
    except UnreadableImageError as error:
        if options.on_error != "skip":
            raise ValueError(
                f"{error.path} {error.problem} --on-error skip leaves such images out."
            ) from error
        n_skipped = _fit_without_unreadable(detector, paths)
    import joblib

    with written_whole(options.output) as part:
        joblib.dump(detector, part)
    print(
        f"{options.output}: {detector.backbone_}, {', '.join(detector.layers_)}, "
        f"{len(paths) - n_skipped} images, threshold {detector.offset_:.4g}"
        + f"; {n_skipped} images could not be read"
        * (n_skipped > 0),
        file=sys.stderr,
    )
    return 3 if n_skipped else 0


def _fit_without_unreadable(detector, paths):
    """Fit without images that cannot be read, now that it is known that some cannot."""
    from skpadim.images._batches import find_problems

    problems = find_problems(paths)
    readable = [path for path, problem in zip(paths, problems, strict=True) if problem is None]
    for path, problem in zip(paths, problems, strict=True):
        if problem is not None:
            warnings.warn(f"{path} {problem} It is left out.", stacklevel=2)
    n_skipped = len(paths) - len(readable)
    try:
        detector.fit(readable)
    except ValueError as error:
        raise ValueError(
            f"{n_skipped} of {len(paths)} images could not be read, and from the others nothing "
            f"can be learned: {error}"
        ) from error
    return n_skipped
