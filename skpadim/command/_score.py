"""`skpadim score`: a row for each image, and pictures of what was found."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from skpadim.command._arguments import (
    add_command,
    add_device,
    add_images,
    add_model,
    add_output,
    add_threshold_options,
)
from skpadim.command._given_images import (
    check_folder,
    check_outside,
    collect_images,
    counted,
    tell_on_terminal,
    tell_skipped,
)
from skpadim.command._model import check_model_file, load_model
from skpadim.command._region_files import add_region_options, check_region_files, write_region_files
from skpadim.command._threshold import check_threshold, set_threshold
from skpadim.files._files import check_output_file


def add_score(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "score",
        run_score,
        help="score images",
        description="Score images: path, score, decision and label (-1: anomalous) of each. score: "
        "minus the map's highest value; decision: score plus the threshold, below 0 is anomalous. "
        "Rows are written as they come. An earlier output file stays until there are rows to "
        "replace it with; after that, the rows of a run that was stopped are in it.",
        example="skpadim score model.joblib parts/new -o scores.csv --overlays seen/",
    )
    add_model(parser)
    add_images(parser, "images")
    add_output(parser, "CSV file to write (default: standard output)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the output file of a run that was stopped: images that it has are not "
        "scored again",
    )
    add_threshold_options(parser)
    parser.add_argument(
        "--maps",
        type=Path,
        metavar="FOLDER",
        help="folder for the anomaly maps: .tiff (values), .png (to look at)",
    )
    parser.add_argument(
        "--maps-size",
        choices=("model", "original"),
        default="model",
        help="size of the maps: the network's input, or each image's own (default: model)",
    )
    parser.add_argument(
        "--overlays",
        type=Path,
        metavar="FOLDER",
        help="folder for the images with what is anomalous in them, in colours and outlined, and "
        "hatched what was not inspected (.jpg)",
    )
    parser.add_argument(
        "--contact-sheet",
        type=Path,
        metavar="FILE",
        help="picture to write: the 40 worst images, the worst first",
    )
    add_region_options(parser)
    parser.add_argument(
        "--fail-on-anomaly", action="store_true", help="exit with 4 if an image is anomalous"
    )
    add_device(parser)


def run_score(options) -> int:
    """Run the subcommand; returns its exit code."""
    skips = options.on_error == "skip"
    if options.resume and options.output is None:
        raise ValueError("--resume goes on with the file of -o, which is missing.")
    for file in (options.output, options.contact_sheet):
        if file is not None:
            check_output_file(file)
    has_region_files = check_region_files(options)
    given = collect_images(options.images, options.files_from)
    for option in ("maps", "overlays"):
        if getattr(options, option) is not None:
            check_folder(f"--{option}", getattr(options, option), given)
    if options.contact_sheet is not None:
        check_outside("--contact-sheet", options.contact_sheet, given)
    check_model_file(options.model)
    tell_on_terminal(f"{counted(len(given.paths), 'image')} to score")
    # One process: on one machine the network uses all cores by itself.
    detector = load_model(options.model).set_params(device=options.device, n_jobs=None, verbose=1)
    set_threshold(detector, options)
    needs = options.overlays, options.contact_sheet, options.fail_on_anomaly, has_region_files
    if any(needs):
        check_threshold(detector, options.model)

    from skpadim.command._pictures import Pictures
    from skpadim.command._score_file import ScoreFile

    pictures = Pictures(options, given, detector)
    offset = getattr(detector, "offset_", None)
    with ScoreFile(options.output, offset, skips, options.resume) as file:
        if offset is None:
            _check_same_scores(detector, file)
        try:
            _draw_missing(detector, given, file, pictures, skips)
            _score_all(options, detector, given, file, pictures, skips)
        except KeyboardInterrupt:
            hint = [] if options.output is None else [_how_to_go_on(options, file)]
            raise KeyboardInterrupt(*hint) from None
    rows = [file.rows[os.fspath(path)] for path in given.paths]
    scored = [row for row in rows if not row.get("error")]
    if options.contact_sheet is not None and scored:
        pictures.draw_worst(options.contact_sheet, scored)
    if has_region_files:
        write_region_files(options, detector, scored, given.root)
    n_skipped = len(rows) - len(scored)
    n_anomalous = 0
    if offset is not None:
        n_anomalous = sum(int(row["label"]) < 0 for row in scored)
        print(
            f"{n_anomalous} of {counted(len(scored), 'image')} "
            f"{'is' if n_anomalous == 1 else 'are'} anomalous{tell_skipped(n_skipped)}",
            file=sys.stderr,
        )
    if n_anomalous and options.fail_on_anomaly:
        return 4
    return 3 if n_skipped else 0


def _draw_missing(detector, given, file, pictures, skips):
    """Draw what images with a row from an earlier run have no files of."""
    from skpadim._padim import iter_maps_and_errors

    done = [path for path in given.paths if os.fspath(path) in file.rows]
    scored = [path for path in done if not file.rows[os.fspath(path)].get("error")]
    paths = [path for path in scored if not pictures.are_there(path)]
    if not paths:
        return
    start = 0
    for maps, errors in iter_maps_and_errors(detector, paths, "skip" if skips else "raise"):
        for place, anomaly_map in enumerate(maps):
            if place not in errors:
                pictures.write(paths[start + place], anomaly_map)
            else:
                warnings.warn(f"{errors[place]} Its pictures are missing.", stacklevel=2)
        start += len(maps)


def _score_all(options, detector, given, file, pictures, skips):
    """Add the rows of all images that have none yet."""
    import numpy as np

    from skpadim._padim import iter_maps_and_errors

    pending = [path for path in given.paths if os.fspath(path) not in file.rows]
    if not pending:
        return
    # Where in its batch an image is changes how its score is rounded. So it is put where it would
    # be had the run not been stopped, behind others in place of those that are done: blank ones,
    # or what can be aligned.
    n_others = given.paths.index(pending[0]) % detector.embedder_.images_at_a_time
    aligner = detector.aligner_
    other = np.zeros((1, 1)) if aligner is None else aligner.reference_ * 255
    items = [other.astype(np.uint8)] * n_others + pending
    done = 0
    for maps, errors in iter_maps_and_errors(detector, items, "skip"):
        # Without what is not inspected, NaN.
        scores = -np.fmax.reduce(maps, axis=(1, 2))
        rows, stop = [], None
        for place in range(max(0, n_others - done), len(maps)):
            path = items[done + place]
            if place not in errors:
                pictures.write(path, maps[place])
                rows.append(_row(path, scores[place], detector))
            elif skips:
                problem = errors[place].problem
                warnings.warn(f"{path} {problem} It has no score.", stacklevel=2)
                rows.append({"path": os.fspath(path), "error": problem})
            else:
                stop = f"{path} {errors[place].problem}"
                break
        file.add(rows)
        if stop is not None:
            hint = "--on-error skip leaves such images out."
            if options.output is not None and file.rows:
                hint = f"{_how_to_go_on(options, file)}; {hint}"
            raise ValueError(f"{stop} {hint}")
        done += len(maps)


def _how_to_go_on(options, file):
    if not file.rows:
        return "nothing is written yet"
    return (
        f"{counted(len(file.rows), 'row')} {'is' if len(file.rows) == 1 else 'are'} in "
        f"{options.output}, and --resume goes on after them"
    )


def _row(path, score, detector):
    """The row of an image, as the detector's `decision_function` and `predict` say it."""
    row = {"path": os.fspath(path), "score": score}
    if hasattr(detector, "offset_"):
        decision = score - detector.offset_
        row |= {"decision": decision, "label": 1 if decision >= 0 else -1}
    return row


def _check_same_scores(detector, file):
    """See that rows of a model without a threshold, which would tell, are of this one."""
    row = next((row for row in file.rows.values() if not row.get("error")), None)
    if row is None or not os.path.exists(row["path"]):
        return
    score = detector.score_samples([row["path"]])[0]
    if abs(score - float(row["score"])) > 1e-4 * abs(score):
        raise ValueError(
            f"{file.path} cannot be resumed: the score of {row['path']} is {row['score']} in "
            f"it, and by this model {score}. Give another output file, or leave out --resume to "
            "replace it."
        )
