"""`skpadim evaluate`: how many defects a fitted model finds, and how many good images it flags."""

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
    add_threshold_options,
)
from skpadim.command._given_images import counted, find_readable, tell_on_terminal
from skpadim.command._labelled_folder import labelled_images
from skpadim.command._model import check_model_file, load_model, n_learned
from skpadim.command._threshold import check_threshold, set_threshold
from skpadim.files._files import check_output_file, written_whole

_ALL = "all defects"
_METRICS = {
    "image_roc_auc": "image AUROC",
    "image_f1_max": "image F1, at its best threshold",
    "image_average_precision": "image average precision",
    "pixel_roc_auc": "pixel AUROC",
    "aupro_0.3": "pixel AUPRO (to a false positive rate of 0.3)",
    "aupro_0.05": "pixel AUPRO (to a false positive rate of 0.05)",
    "pixel_average_precision": "pixel average precision",
    "uninspected": "of the anomalous pixels, the share that was not inspected",
}


def add_evaluate(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "evaluate",
        run_evaluate,
        help="count what a model finds and what it flags wrongly",
        description="Count, of each kind of image, how many the model flags at its threshold, with "
        "95 % confidence intervals (Clopper and Pearson's): of good images that is the rate of "
        "false alarms, of defects the recall. Then the metrics that need no threshold. Nothing is "
        "fitted.",
        example="skpadim evaluate model.joblib bottle/test -o evaluation.csv",
    )
    add_model(parser)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="a folder of images for each kind: 'good' ('ok', 'normal'), and any others for "
        "defects, as in the folder 'test' of MVTec AD (which is found from the folder above, too)",
    )
    add_masks(parser)
    add_threshold_options(parser)
    add_error_options(parser)
    add_device(parser)
    add_output(parser, "CSV file to write too")


def run_evaluate(options) -> int:
    """Run the subcommand; returns its exit code."""
    import numpy as np

    if options.output is not None:
        check_output_file(options.output)
    check_model_file(options.model)
    images = labelled_images(options.folder, options.masks)
    if images is None:
        raise ValueError(
            f"{options.folder} has no folder good, ok or normal, so it is not known which images "
            "are good: put the images into folders named as their kinds."
        )
    tell_on_terminal(f"{counted(len(images.paths), 'image')} to evaluate on")
    detector = load_model(options.model).set_params(device=options.device, n_jobs=None, verbose=1)
    set_threshold(detector, options)
    check_threshold(detector, options.model)
    images, n_skipped = _without_unreadable(images, options.on_error)
    if n_known := n_learned(detector, images.paths):
        warnings.warn(
            f"The model has learned from {n_known} of the {len(images.paths)} images: of new ones "
            "it says less, and so do these figures.",
            stacklevel=2,
        )
    scores, values = _score(detector, images)
    table = _tabulate(np.array(images.kinds), scores < detector.offset_, -scores)
    print(f"At the threshold {-detector.offset_:.4g}:\n{_in_words(table)}")
    if values:
        lines = [f"{value:.3f}  {_METRICS[name]}" for name, value in values.items()]
        print("\nAt all thresholds:", *lines, sep="\n")
    if n_skipped:
        print(f"{counted(n_skipped, 'image')} could not be read", file=sys.stderr)
    if options.output is not None:
        from skpadim.files._csv import write_csv

        for name, value in values.items():
            table.loc[table["kind"] == _ALL, name] = value
        with written_whole(options.output) as part:
            write_csv(table, part)
    return 3 if n_skipped else 0


def _without_unreadable(images, on_error):
    """The images that can be read, with --on-error skip; and how many cannot."""
    if on_error != "skip":
        return images, 0
    readable = find_readable(images.paths)
    kept = {
        name: values and [values[index] for index in readable]
        for name, values in images._asdict().items()
        if name != "mask_folder"
    }
    return images._replace(**kept), len(images.paths) - len(readable)


def _score(detector, images):
    """Scores of the images, and the metrics that can be had, in one pass over the images."""
    import numpy as np

    from skpadim.metrics import evaluate
    from skpadim.metrics._pixel_metrics import image_values

    bad, masks = [label < 0 for label in images.y], images.masks or [None] * len(images.y)
    is_missing = [is_bad and mask is None for is_bad, mask in zip(bad, masks, strict=True)]
    missing, whole = np.flatnonzero(is_missing), np.flatnonzero(~np.array(is_missing))
    recorder, values, scores = _Recorder(detector), {}, np.empty(len(bad))
    if len({bad[i] for i in whole}) == 2:
        values = evaluate(
            recorder, *([each[i] for i in whole] for each in (images.paths, images.y, masks))
        )
    elif len(whole):
        for _ in recorder.iter_anomaly_maps([images.paths[i] for i in whole]):
            pass
    scores[whole] = recorder.scores
    if len(missing):
        scores[missing] = detector.score_samples([images.paths[i] for i in missing])
        where = f"in {images.mask_folder}" if images.mask_folder else "(--masks)"
        print(
            f"{'The metrics of pixels leave some out' if values else 'No metrics of pixels'}: "
            f"{len(missing)} of {counted(sum(bad), 'defective image')} "
            f"{'has' if len(missing) == 1 else 'have'} no mask {where}, the first "
            f"{images.paths[missing[0]]}",
            file=sys.stderr,
        )
    if not values.get("uninspected"):
        values.pop("uninspected", None)
    values |= image_values(np.array(bad), -scores)
    return scores, {k: float(values[k]) for k in _METRICS if not np.isnan(values.get(k, np.nan))}


class _Recorder:
    """A fitted detector that keeps the scores of the maps that it gives."""

    def __init__(self, detector):
        self.detector, self.embedder_, self.scores = detector, detector.embedder_, []

    def iter_anomaly_maps(self, X):
        import numpy as np

        for maps in self.detector.iter_anomaly_maps(X):
            self.scores.extend(-np.fmax.reduce(maps, axis=(1, 2)))
            yield maps


def _tabulate(kinds, flagged, anomaly_scores):
    """A row for each kind: how many are flagged, with an interval, and its AUROC to the good."""
    import numpy as np
    import pandas as pd
    from scipy.stats import binomtest

    from skpadim.metrics._pixel_metrics import image_values

    good, rows = kinds == "good", []
    chosen = {kind: kinds == kind for kind in sorted(set(kinds), key=lambda k: (k != "good", k))}
    if not good.all():
        chosen[_ALL] = ~good
    for kind, of_kind in chosen.items():
        n_images, n_flagged = int(of_kind.sum()), int(flagged[of_kind].sum())
        interval = binomtest(n_flagged, n_images).proportion_ci()  # Clopper-Pearson
        both = of_kind | good
        rows.append(
            {
                "kind": kind,
                "n_images": n_images,
                "n_flagged": n_flagged,
                "share_flagged": n_flagged / n_images,
                "share_low": interval.low,
                "share_high": interval.high,
                "image_roc_auc": np.nan
                if kind == "good"
                else image_values(of_kind[both], anomaly_scores[both])["image_roc_auc"],
            }
        )
    return pd.DataFrame(rows)


def _in_words(table):
    """The table as it is printed."""
    printed = table[["kind", "n_images", "n_flagged"]].copy()
    printed["share"] = table["share_flagged"].map("{:.3f}".format)
    printed["95 % interval"] = [
        f"{low:.3f} to {high:.3f}"
        for low, high in zip(table["share_low"], table["share_high"], strict=True)
    ]
    printed["image AUROC"] = table["image_roc_auc"].map(lambda v: "" if v != v else f"{v:.3f}")
    printed = printed.rename(columns={"n_images": "images", "n_flagged": "flagged"})
    return printed.to_string(index=False)
