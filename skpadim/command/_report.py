"""`skpadim report`: one page of what a model finds."""

from __future__ import annotations

import sys
from pathlib import Path

from skpadim._files import check_output_file
from skpadim.command._arguments import add_command, add_error_options
from skpadim.command._given_images import collect_images, tell_on_terminal
from skpadim.command._labelled_folder import labelled_images
from skpadim.command._model import load_model


def add_report(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "report",
        run_report,
        help="write a page of what a model finds, with its threshold to try out",
        description="Score images and write one HTML file: the threshold on a slider, what follows "
        "from it, and the images, the most anomalous first. It needs no network.",
        example="skpadim report model.joblib bottle/test -o report.html",
    )
    parser.add_argument("model", type=Path, help="model file; read only those that you trust")
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="images. Where subfolders are kinds, one of them 'good' ('ok', 'normal'), as in the "
        "folder 'test' of MVTec AD, the report has what is missed and what is falsely flagged",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        help="folder of the defects' masks, named as the images, or with '_mask' behind (default: "
        "the folder 'ground_truth' beside FOLDER, if there is one)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("report.html"),
        help="HTML file to write (default: report.html)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    add_error_options(parser)


def run_report(options) -> int:
    """Run the subcommand; returns its exit code."""
    check_output_file(options.output)
    if not options.model.is_file():
        raise FileNotFoundError(f"{options.model} is not a file; 'skpadim fit' writes model files.")
    found = labelled_images(options.folder, options.masks)
    paths = collect_images([options.folder]).paths if found is None else found.paths
    tell_on_terminal(f"{len(paths)} images to inspect")
    detector = load_model(options.model).set_params(device=options.device, n_jobs=None, verbose=1)

    from skpadim.plotting import InspectionReport

    labels = {} if found is None else {"y": found.y, "kinds": found.kinds, "masks": found.masks}
    on_error = "skip" if options.on_error == "skip" else "raise"
    report = InspectionReport(detector, paths, **labels, on_error=on_error, model=options.model)
    report.write_html(options.output)
    n_skipped = len(report.unreadable)
    print(
        f"{options.output} shows {len(paths) - n_skipped} images"
        + f"; {n_skipped} images could not be read" * (n_skipped > 0),
        file=sys.stderr,
    )
    return 3 if n_skipped else 0
