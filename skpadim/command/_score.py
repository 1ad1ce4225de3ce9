"""`skpadim score`: a row for each image, and its anomaly map."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

from skpadim._files import check_output_file
from skpadim.command._arguments import add_command, add_images
from skpadim.command._given_images import collect_images, tell_on_terminal
from skpadim.command._model import load_model


def add_score(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "score",
        run_score,
        help="score images",
        description="Score images: path, score, decision and label (-1: anomalous) of each. Rows "
        "are written as they come. An earlier output file stays until there are rows to replace "
        "it with; after that, the rows of a run that was stopped are in it.",
        example="skpadim score model.joblib parts/new -o scores.csv --maps maps/",
    )
    parser.add_argument("model", type=Path, help="model file; read only those that you trust")
    add_images(parser, "images")
    parser.add_argument(
        "-o", "--output", type=Path, help="CSV file to write (default: standard output)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the output file of a run that was stopped: images that it has are not "
        "scored again",
    )
    parser.add_argument(
        "--maps", type=Path, help="folder for the anomaly maps: .tiff (values), .png (to look at)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")


def run_score(options) -> int:
    """Run the subcommand; returns its exit code."""
    skips = options.on_error == "skip"
    if options.resume and options.output is None:
        raise ValueError("--resume goes on with the file of -o, which is missing.")
    if options.output is not None:
        check_output_file(options.output)
    given = collect_images(options.images, options.files_from)
    if options.maps is not None:
        _check_maps(options.maps, given)
    if not options.model.is_file():
        raise FileNotFoundError(f"{options.model} is not a file; 'skpadim fit' writes model files.")
    tell_on_terminal(f"{len(given.paths)} images to score")
    # One process: on one machine the network uses all cores by itself.
    detector = load_model(options.model).set_params(device=options.device, n_jobs=None, verbose=1)

    from skpadim.command._score_file import ScoreFile

    offset = getattr(detector, "offset_", None)
    with ScoreFile(options.output, offset, skips, options.resume) as file:
        if offset is None:
            _check_same_scores(detector, file)
        try:
            _score_all(options, detector, given, file, skips)
        except KeyboardInterrupt:
            hint = [] if options.output is None else [_how_to_go_on(options, file)]
            raise KeyboardInterrupt(*hint) from None
    rows = [file.rows[os.fspath(path)] for path in given.paths]
    n_skipped = sum(bool(row.get("error")) for row in rows)
    if offset is not None:
        n_anomalous = sum(int(row["label"]) < 0 for row in rows if not row.get("error"))
        print(
            f"{n_anomalous} of {len(rows) - n_skipped} images are anomalous"
            + f"; {n_skipped} images could not be read" * (n_skipped > 0),
            file=sys.stderr,
        )
    return 3 if n_skipped else 0


def _score_all(options, detector, given, file, skips):
    """Add the rows of all images that have none yet."""
    import numpy as np

    from skpadim._padim import iter_maps_and_errors

    pending = [path for path in given.paths if os.fspath(path) not in file.rows]
    if not pending:
        return
    # Where in its batch an image is changes how its score is rounded. So it is put where it would
    # be had the run not been stopped, behind blank images in place of those that are done.
    n_blank = given.paths.index(pending[0]) % int(detector.batch_size)
    items = [np.zeros((1, 1), dtype=np.uint8)] * n_blank + pending
    done = 0
    for maps, errors in iter_maps_and_errors(detector, items, "skip"):
        scores = -maps.max(axis=(1, 2))
        rows, stop = [], None
        for place in range(max(0, n_blank - done), len(maps)):
            path = items[done + place]
            if place not in errors:
                if options.maps is not None:
                    _write_map(options.maps / given.relative(path), path, maps[place], detector)
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
    return f"{len(file.rows)} rows are in {options.output}, and --resume goes on after them"


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


def _write_map(target, path, anomaly_map, detector):
    """Write the map of an image, coloured up to one and a half times the threshold."""
    import numpy as np

    from skpadim.command._map_files import write_map
    from skpadim.images._batches import Images
    from skpadim.images._read import to_float

    image = to_float(detector.embedder_.preprocess(Images([path])[0]))
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    threshold = -getattr(detector, "offset_", -float(anomaly_map.max()))
    write_map(target, anomaly_map, pixels, 1.5 * threshold)


def _check_maps(maps, given):
    """See that maps can be written, and will not lie among the images."""
    if maps.exists() and not maps.is_dir():
        raise NotADirectoryError(f"--maps {maps} is a file; give the name of a folder.")
    folders = given.folders
    for folder in folders:
        if maps.resolve().is_relative_to(folder.resolve()):
            raise ValueError(
                f"--maps {maps} lies in {folder}: the maps would be taken for images the next "
                "time. Give a folder outside of it."
            )
    if any(path.parent.resolve() == maps.resolve() for path in given.paths):
        raise ValueError(
            f"--maps {maps} is the folder of some of the images: give another one for the maps."
        )
    try:
        maps.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"--maps {maps} cannot be made ({error.strerror}).") from error
    longest = max((path.name for path in given.paths), key=lambda name: len(os.fsencode(name)))
    check_output_file(maps / f"{longest}.tiff")
