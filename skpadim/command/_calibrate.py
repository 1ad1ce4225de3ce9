"""`skpadim calibrate`: another threshold for a model, without another fit."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from skpadim.command._arguments import add_command, add_model, add_output, positive, share
from skpadim.command._given_images import collect_images
from skpadim.command._model import check_model_file, load_model, n_learned, write_model
from skpadim.command._threshold import in_words, set_contamination
from skpadim.files._files import check_output_file


def add_calibrate(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "calibrate",
        run_calibrate,
        help="set another threshold; nothing is fitted again",
        description="Set another threshold, from the scores that fit has left, by hand, or from "
        "good images that the model has not learned from. The model file is replaced as a whole.",
        example="skpadim calibrate model.joblib --contamination 0.02",
    )
    add_model(parser)
    parser.add_argument(
        "--contamination",
        type=share,
        help="share of new good images that may be flagged (default with --on: the model's)",
    )
    parser.add_argument(
        "--threshold",
        type=positive,
        help="flag images whose map exceeds it: the unit of the maps, and of what fit prints",
    )
    parser.add_argument(
        "--on", type=Path, metavar="FOLDER", help="good images that the model has not learned from"
    )
    add_output(parser, "model file to write (default: the one that is read)")


def run_calibrate(options) -> None:
    """Run the subcommand."""
    if options.threshold is None and options.contamination is None and options.on is None:
        options.parser.error("give --contamination, --threshold, or --on FOLDER")
    if options.threshold is not None and (options.contamination, options.on) != (None, None):
        options.parser.error("--threshold is set by hand: give neither --contamination nor --on")
    output = options.output or options.model
    check_model_file(options.model)
    check_output_file(output)
    paths = None if options.on is None else collect_images([options.on]).paths
    detector = load_model(options.model)
    before = in_words(detector)
    if options.threshold is not None:
        detector.offset_ = -options.threshold
        _warn_if_beyond(detector)
    elif paths is None:
        set_contamination(detector, options.contamination)
    else:
        if options.contamination is not None:
            detector.set_params(contamination=options.contamination)
        known = n_learned(detector, paths)
        if known > len(paths) / 2:
            raise ValueError(
                f"{options.on}: the model has learned from {known} of its {len(paths)} images, "
                "which look better to it than new ones: give other good images, or leave out --on "
                "and give --contamination, which takes the scores that fit has left."
            )
        detector.calibrate(paths)
    write_model(detector, output)
    print(f"{output}: {in_words(detector)} (before: {before})", file=sys.stderr)


def _warn_if_beyond(detector):
    """Warn of a threshold that no score has reached, so that none tells what it does."""
    scores = getattr(detector, "calibration_scores_", None)
    if scores is not None and detector.offset_ <= scores.min():
        warnings.warn(
            f"No good image that the model was calibrated on has a map above {-scores.min():.4g}: "
            f"how many the threshold {-detector.offset_:g} flags cannot be told, nor how many "
            "defects it misses; 'skpadim evaluate' counts them.",
            stacklevel=2,
        )
