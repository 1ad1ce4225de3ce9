"""Files of the regions that `skpadim score` finds: a table, COCO's format, Label Studio's tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from skpadim.files._files import check_output_file, written_whole

_SUFFIXES = (".csv", ".json")


def add_region_options(parser):
    """Options of files of regions."""
    parser.add_argument(
        "--regions",
        type=Path,
        metavar="FILE",
        help="file to write of the anomalous regions, their boxes, areas and p-values: a table "
        "(.csv), or a data set in COCO's format (.json)",
    )
    parser.add_argument(
        "--label-studio",
        type=Path,
        metavar="FILE",
        help="file to write of the images as tasks for Label Studio (.json), the regions as "
        "predictions; its LOCAL_FILES_DOCUMENT_ROOT is the folder above that of the images",
    )
    parser.add_argument(
        "--min-area",
        type=float,
        default=0,
        help="leave out of these files regions of fewer pixels of their image (default: 0)",
    )


def check_region_files(options) -> bool:
    """See, before any work, that the files can be written; whether there will be any."""
    for option, file, suffixes in (
        ("--regions", options.regions, _SUFFIXES),
        ("--label-studio", options.label_studio, _SUFFIXES[1:]),
    ):
        if file is None:
            continue
        if file.suffix.lower() not in suffixes:
            wanted = " or ".join(suffixes)
            raise ValueError(f"{option} {file}: give a name that ends in {wanted}.")
        check_output_file(file)
    if not options.min_area >= 0:
        raise ValueError(f"--min-area {options.min_area:g} must be 0 or more pixels.")
    return bool(options.regions or options.label_studio)


def write_region_files(options, detector, rows: Sequence[dict], root: Path) -> None:
    """Write the files of images with these rows of scores, all of which lie below `root`."""
    from skpadim.files._csv import write_csv
    from skpadim.regions import to_coco, to_label_studio
    from skpadim.regions._table import join_tables

    # The few that are anomalous go through the network once more: so it does not matter which rows
    # are from an earlier run.
    anomalous = [row["path"] for row in rows if int(row["label"]) < 0]
    regions = detector.anomalous_regions(anomalous, options.min_area) if anomalous else None
    regions = join_tables([]) if regions is None else regions
    paths = [row["path"] for row in rows]
    if options.regions is not None and options.regions.suffix.lower() == ".csv":
        with written_whole(options.regions) as part:
            write_csv(regions, part)
    elif options.regions is not None:
        _write_json(to_coco(regions, paths, root=root), options.regions)
    if options.label_studio is not None:
        _write_json(to_label_studio(regions, paths, root=root.parent), options.label_studio)


def _write_json(content, target):
    # Names that are not UTF-8 are escaped, as everything but ASCII is.
    with written_whole(target) as part:
        part.write_text(json.dumps(content, allow_nan=False), encoding="ascii")
