"""The run itself: each category is fitted, evaluated, and added to the results."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from sklearn.base import clone

from skpadim._progress import progress_of
from skpadim.benchmark._categories import Category, find_dataset, load_categories
from skpadim.benchmark._results import (
    COUNTS,
    FIGURES,
    add_row,
    in_order,
    machine,
    read_matching,
    settings_of,
)
from skpadim.datasets._layout import category_order
from skpadim.files._files import check_output_file
from skpadim.images._sizes import sizes_of
from skpadim.metrics import evaluate

if TYPE_CHECKING:
    from skpadim import PadimDetector


def run_benchmark(
    dataset,
    root,
    *,
    categories=None,
    detector: PadimDetector | Sequence[PadimDetector] | None = None,
    seed: int | Sequence[int] = 42,
    resolution="model",
    unaligned=False,
    on_error="raise",
    output=None,
    verbose=0,
) -> pd.DataFrame:
    """Fit and evaluate a detector, or several, on each category of a data set.

    Parameters
    ----------
    dataset : {"mvtec_ad", "btad", "visa", "mvtec_loco", "mvtec_ad_2"}
        How categories are laid out, and their usual order.
    root : path
        Folder that holds the categories: any folder in it with that layout is one.
    categories : str or sequence of str, default=None
        Which to run; None runs all that are there.
    detector : PadimDetector or sequence of these, default=None
        The settings to compare, not fitted: a clone of each is fitted on each category, without a
        threshold, which no figure needs. None means the paper's, ``PadimDetector("resnet18",
        crop_size=224)``.
    seed : int or sequence of int, default=42
        The ``random_state`` of the fits, and of `unaligned`; each detector is run with each.
    resolution : {"model", "original"}, default="model"
        Where pixels are compared, see :func:`skpadim.metrics.evaluate`: at the size of the maps,
        as in the paper and its peers, or at that of the images.
    unaligned : bool, default=False
        Run on parts that are not aligned, as the paper makes them of those that are (section IV-A,
        "Rd-MVTec AD"): each image, in training and in test, is resized to the detector's
        `image_size`, turned by up to 10 degrees and cropped to its `crop_size` at a random place,
        not in the middle. See :func:`skpadim.datasets.load_mvtec_ad`, Notes.
    on_error : {"raise", "skip"}, default="raise"
        What to do about images that cannot be read, or whose masks cannot, or have no anomalous
        pixel: stop, or leave them out, warn and count them.
    output : path, default=None
        CSV file, replaced as a whole after each row. Rows that it has are not computed again; a
        file with rows of settings or versions that are not asked for is refused.
    verbose : int, default=0
        Above 0, show the progress and the time left on the standard error: a bar on a terminal,
        and a line every few seconds elsewhere.

    Returns
    -------
    results : DataFrame
        A row a category, detector and seed, by category in the data set's usual order:

        - ``category``;
        - ``image_roc_auc``, ``image_f1_max``, ``pixel_roc_auc``, ``aupro_0.3``,
          ``pixel_average_precision``, as :func:`skpadim.metrics.evaluate` names them;
        - ``n_train``, ``n_test_good``, ``n_test_defective``: images that were used;
          ``n_skipped``: those left out;
        - ``seconds_fit``: loading the network, reading the training images, embedding them and
          fitting the Gaussians; ``seconds_score``: waiting for the maps of the test images
          (reading, embedding, distances, upsampling and smoothing); ``seconds_metrics``: all else
          (reading masks, counting, curves), during which further images are read already;
        - the settings that figures depend on, "auto" written out, and versions of packages;
        - Python's version, machine, batch size and date, which may differ.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If the root, a category, a mask, or the output's folder is missing or closed. This, and
        all of `ValueError` and `TypeError` but for unreadable images, is told before any work.
    ValueError
        If a name is unknown, a category has too few images, a mask has another size than its
        image, two detectors are alike, one has no `crop_size` that `unaligned` needs, `output` has
        other settings, or an image cannot be read (``on_error="raise"``). The rows that were
        finished stay in `output`.
    TypeError
        If a detector is not a PadimDetector, or, with `output`, its backbone has no name.

    See Also
    --------
    markdown_table, latex_table : Print the results, means and standard deviations over seeds.
    read_results : Reads `output`.

    Examples
    --------
    >>> from skpadim.benchmark import markdown_table, run_benchmark
    >>> results = run_benchmark(  # doctest: +SKIP
    ...     "mvtec_ad", "data/mvtec_ad", output="r18.csv"
    ... )
    >>> print(markdown_table(results))  # doctest: +SKIP
    """
    dataset = find_dataset(dataset)
    for name, value, accepted in (
        ("resolution", resolution, ("model", "original")),
        ("on_error", on_error, ("raise", "skip")),
    ):
        if value not in accepted:
            raise ValueError(f"{name}={value!r} must be {accepted[0]!r} or {accepted[1]!r}.")
    output = None if output is None else Path(output)
    if output is not None:
        check_output_file(output)
    plan = load_categories(dataset, root, categories)
    settings = _prepare_all(detector, dataset.name, seed, resolution, unaligned, output)
    order = _row_order(dataset, [setting for _, setting in settings])
    rows = [] if output is None else _rows_done(output, [s for _, s in settings], plan)
    todo = [
        (category, detector, setting)
        for detector, setting in settings
        for category in plan
        if not any(_is_of(row, category, setting) for row in rows)
    ]
    n_all = len(settings) * len(plan)
    if verbose and rows:
        kind = "categories" if len(settings) == 1 else "rows"
        print(f"{output} has {len(rows)} of {n_all} {kind} already", file=sys.stderr)
    n_images = sum(len(category) for category, _, _ in todo)
    with progress_of(n_images, dataset.name, verbose) as progress:
        for number, (category, detector, setting) in enumerate(todo, n_all - len(todo) + 1):
            progress.set_description(f"{category.name} ({number} of {n_all})")
            row = _run_category(category, detector, resolution, unaligned, on_error, progress)
            row |= setting | machine(detector.device, detector.batch_size)
            rows.append(row)
            if output is not None:
                add_row(output, row, [s for _, s in settings], order)
    return in_order(rows, order)


def _prepare_all(detectors, dataset, seeds, resolution, unaligned, output):
    """Each detector with each seed, and the setting of its rows."""
    detectors = [detectors] if not isinstance(detectors, (list, tuple)) else detectors
    seeds = [seeds] if not isinstance(seeds, (list, tuple, range)) else seeds
    for name, values in (("detector", detectors), ("seed", seeds)):
        if not values:
            raise ValueError(f"{name} is an empty list: give one at least, or leave it out.")
    settings = [
        _prepare(detector, dataset, seed, resolution, unaligned, output)
        for detector in detectors
        for seed in dict.fromkeys(seeds)
    ]
    known = [tuple(setting.items()) for _, setting in settings]
    if len(set(known)) < len(known):
        raise ValueError(
            "two detectors have the same settings, as far as figures depend on them: rows of one "
            "could not be told from the other's. Leave one out."
        )
    return settings


def _row_order(dataset, settings):
    """Key that sorts rows: by category in the usual order, then by setting as they were given."""
    by_category = category_order(dataset)

    def order(row):
        known = [all(row.get(name) == s[name] for name in s) for s in settings]
        return *by_category(row["category"]), known.index(True) if True in known else len(known)

    return order


def _is_of(row, category, setting):
    return row["category"] == category.name and all(row[name] == setting[name] for name in setting)


def _prepare(detector, dataset, seed, resolution, unaligned, output):
    """The detector to clone, and the setting of all rows; a wrong parameter is told here."""
    from skpadim._padim import PadimDetector, make_embedder

    detector = PadimDetector("resnet18", crop_size=224) if detector is None else detector
    if not isinstance(detector, PadimDetector):
        raise TypeError(f"detector must be a PadimDetector, not a {type(detector).__name__}.")
    if output is not None and not isinstance(detector.backbone, str):
        raise TypeError(
            f"backbone={type(detector.backbone).__name__}(...) has no name that a file of results "
            "could be known by: give a backbone by name, or leave output out."
        )
    detector = clone(detector).set_params(random_state=seed, calibration=None, verbose=0)
    if detector.keep_aspect_ratio:
        raise ValueError(
            "keep_aspect_ratio=True: categories would have figures of unlike sizes. Give "
            "image_size=(height, width)."
        )
    for name in ("roi", "tile_size"):
        if getattr(detector, name) is not None:
            raise ValueError(
                f"{name}: a file of results tells of none. Leave it out, or evaluate category by "
                "category with skpadim.metrics.evaluate."
            )
    if unaligned and detector.crop_size is None:
        raise ValueError(
            "unaligned=True crops images at random to the detector's crop_size, and it has none: "
            "give one. The paper's is 224, of image_size=256."
        )
    embedder = make_embedder(detector)
    if isinstance(detector.backbone, str):
        # "auto" must not mean one thing now and another an hour later.
        detector.set_params(backbone=embedder.backbone_)
    return detector, settings_of(dataset, detector, embedder, seed, resolution, unaligned)


def _rows_done(output, settings, plan):
    """Rows of the file that belong to this run, if they are of the same images."""
    rows = read_matching(output, settings).to_dict("records")
    n_images = {category.name: len(category) for category in plan}
    rows = [row for row in rows if row["category"] in n_images]
    for row in rows:
        name, n_before = row["category"], sum(row[count] for count in COUNTS)
        if n_before != n_images[name]:
            raise ValueError(
                f"{output} has category {name!r} with {n_before} images, and it has "
                f"{n_images[name]} now: give another output file, or take that row out of this one."
            )
    return rows


def _run_category(category: Category, detector, resolution, unaligned, on_error, progress):
    """The row of a category, without its setting."""
    start, n_skipped = progress.n, 0
    try:
        return _fit_and_evaluate(category, 0, detector, resolution, unaligned, progress)
    except (OSError, TypeError, ValueError) as error:
        # All that cannot be read is looked for at once, and only now that something cannot.
        readable, problems = category.without_unreadable()
        n_skipped = len(problems)
        if not problems:
            raise ValueError(f"category {category.name!r}: {error}") from error
        if on_error == "raise":
            raise ValueError(
                f"category {category.name!r}: {n_skipped} of {len(category)} images cannot be "
                f"used. {problems[0]} Then run again, or leave such images out with "
                "on_error='skip' (--on-error skip)."
            ) from error
    warnings.warn(
        f"category {category.name!r}: {n_skipped} of {len(category)} images are left out. "
        + " ".join(problems[:5]),
        UserWarning,
        stacklevel=3,
    )
    progress.update(start + n_skipped - progress.n)
    readable.check()
    return _fit_and_evaluate(readable, n_skipped, detector, resolution, unaligned, progress)


def _fit_and_evaluate(category, n_skipped, detector, resolution, unaligned, progress):
    if unaligned:  # whose random crop stands for the detector's
        size, crop = sizes_of(detector.image_size, detector.crop_size)
        category = category.unaligned(detector.random_state, size, crop)
        detector = clone(detector).set_params(image_size=crop, crop_size=None)
    start = time.perf_counter()
    fitted = _TimedMaps(clone(detector).fit(category.train), progress)
    seconds_fit = time.perf_counter() - start
    progress.update(len(category.train))
    start = time.perf_counter()
    values = evaluate(fitted, category.test, category.target, category.masks, resolution=resolution)
    return {
        "category": category.name,
        **{name: values[name] for name in FIGURES},
        "n_train": len(category.train),
        "n_test_good": int((category.target == 1).sum()),
        "n_test_defective": int((category.target == -1).sum()),
        "n_skipped": n_skipped,
        "seconds_fit": seconds_fit,
        "seconds_score": fitted.seconds,
        "seconds_metrics": time.perf_counter() - start - fitted.seconds,
    }


class _TimedMaps:
    """A fitted detector that tells how long its maps were waited for."""

    def __init__(self, detector, progress):
        self.detector, self.progress = detector, progress
        self.embedder_ = detector.embedder_
        self.seconds = 0.0

    def iter_anomaly_maps(self, X):
        batches = self.detector.iter_anomaly_maps(X)
        while True:
            start = time.perf_counter()
            maps = next(batches, None)
            self.seconds += time.perf_counter() - start
            if maps is None:
                return
            yield maps
            self.progress.update(len(maps))
