"""`skpadim report`: one page of what a model finds."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from skpadim.command._arguments import (
    add_command,
    add_device,
    add_error_options,
    add_masks,
    add_model,
    add_output,
)
from skpadim.command._given_images import collect_images, counted, tell_on_terminal, tell_skipped
from skpadim.command._labelled_folder import labelled_images
from skpadim.command._model import check_model_file, load_model
from skpadim.files._files import check_output_file


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
    add_model(parser)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="images. Where subfolders are kinds, one of them 'good' ('ok', 'normal'), as in the "
        "folder 'test' of MVTec AD (which is found from the folder above, too), the report has "
        "what is missed and what is falsely flagged",
    )
    add_masks(parser)
    add_output(parser, "HTML file to write (default: report.html)", default=Path("report.html"))
    add_device(parser)
    add_error_options(parser)


def run_report(options) -> int:
    """Run the subcommand; returns its exit code."""
    check_output_file(options.output)
    check_model_file(options.model)
    found = labelled_images(options.folder, options.masks)
    paths = collect_images([options.folder]).paths if found is None else found.paths
    tell_on_terminal(f"{counted(len(paths), 'image')} to inspect")
    detector = load_model(options.model).set_params(device=options.device, n_jobs=None, verbose=1)

    from skpadim.plotting import InspectionReport

    labels = {} if found is None else {"y": found.y, "kinds": found.kinds, "masks": found.masks}
    on_error = "skip" if options.on_error == "skip" else "raise"
    report = InspectionReport(detector, paths, **labels, on_error=on_error, model=options.model)
    report.write_html(options.output)
    n_skipped = len(report.unreadable)
    for name, problem in report.unreadable:
        warnings.warn(f"{name} {problem} It is left out.", stacklevel=2)
    print(
        f"{options.output} shows {counted(len(paths) - n_skipped, 'image')}"
        f", to open in a browser{tell_skipped(n_skipped)}",
        file=sys.stderr,
    )
    return 3 if n_skipped else 0
