"""The `skpadim` command."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

from PIL import Image

from skpadim._files import check_output_file, written_whole
from skpadim._given_images import collect_images
from skpadim._version import __version__
from skpadim.images._unreadable import UnreadableImageError, find_problems

_EXIT_CODES = """\
exit codes: 0 all is well; 1 an error, told on the standard error; 2 a wrong command line; 3 fit
or score done, but for images that could not be read (--on-error skip); 130 interrupted (Ctrl-C)
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command, with the command line's arguments by default; returns its exit code."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    _let_threads_sleep()
    max_pixels = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: print(
            f"skpadim: warning: {message}", file=sys.stderr
        )
        try:
            if getattr(options, "max_pixels", None) is not None:
                _allow_pixels(options.max_pixels)
            code = options.run(options)
            sys.stdout.flush()
        except KeyboardInterrupt as interruption:
            print("; ".join(["skpadim: interrupted", *interruption.args]), file=sys.stderr)
            return 130
        except BrokenPipeError:
            # Whoever read our output (head, say) has left; the interpreter must not complain
            # about it once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (OSError, TypeError, ValueError, MemoryError, Image.DecompressionBombError) as error:
            message = " ".join(str(error).splitlines()) or "There is not enough memory."
            print(f"skpadim: error: {message}", file=sys.stderr)
            return 1
        except RuntimeError as error:
            if "memory" not in str(error):  # torch has no MemoryError
                raise
            print(f"skpadim: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
            return 1
        finally:
            Image.MAX_IMAGE_PIXELS = max_pixels
    return code or 0


def _let_threads_sleep():
    """Have the threads of torch's OpenMP library wait asleep, unless the user has said how."""
    # Before torch is imported. Threads that wait actively, as some of these libraries let them,
    # take the cores from whatever else runs.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # GNU
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel, LLVM


def _allow_pixels(limit):
    """Let images have so many pixels and no more."""
    Image.MAX_IMAGE_PIXELS = None if limit == "none" else limit
    # Up to twice the limit Pillow only warns.
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _parse(arguments):
    """Options of a command line."""
    options, more = _parser().parse_known_args(_join_sizes(arguments))
    # Some versions of argparse look for images only where the first of them could stand.
    if hasattr(options, "images"):
        names, _, after = _partition(more, "--")  # behind which all are names
        if not any(word.startswith("-") for word in names):
            options.images += names + after
            more = []
    if more:
        options.parser.error(f"unrecognized arguments: {' '.join(more)}")
    if hasattr(options, "images") and not options.images and options.files_from is None:
        options.parser.error("give images: folders or files, or --files-from FILE")
    return options


def _partition(words, word):
    """As ``str.partition``, of a list."""
    place = words.index(word) if word in words else len(words)
    return words[:place], words[place : place + 1], words[place + 1 :]


def _join_sizes(arguments):
    """The same arguments with "--image-size H W" as "--image-size HxW"."""
    # argparse would take whatever follows for the width, or ask for both numbers.
    joined = []
    for word in arguments:
        is_width = joined[-2:-1] in (["--image-size"], ["--crop-size"])
        if is_width and word.isdecimal() and joined[-1].isdecimal():
            joined[-1] += f"x{word}"
        else:
            joined.append(word)
    return joined


def _parser():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="skpadim",
        description="Find defective images, and where they are defective, after seeing good ones.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"skpadim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add_command(name, run, **texts):
        command = commands.add_parser(name, epilog=_EXIT_CODES, **texts)
        command.set_defaults(run=run, parser=command)
        return command

    demo = add_command("demo", _demo, help="fit and score generated parts; nothing is downloaded")
    demo.add_argument(
        "-o", "--output", type=Path, default=Path("skpadim-demo.png"), help="picture to write"
    )

    fit = add_command("fit", _fit, help="learn from good images")
    _add_images(fit, "good images")
    fit.add_argument("-o", "--output", type=Path, required=True, help="model file to write")
    _add_model_options(fit)
    fit.add_argument(
        "--contamination",
        type=float,
        default=0.05,
        help="share of new good images that may be flagged (default: 0.05)",
    )

    score = add_command(
        "score",
        _score,
        help="score images",
        description="Score images: path, score, decision and label (-1: anomalous) of each. Rows "
        "are written as they come. An earlier output file stays until there are rows to replace "
        "it with; after that, the rows of a run that was stopped are in it.",
    )
    score.add_argument("model", type=Path, help="model file; read only those that you trust")
    _add_images(score, "images")
    score.add_argument(
        "-o", "--output", type=Path, help="CSV file to write (default: standard output)"
    )
    score.add_argument(
        "--resume",
        action="store_true",
        help="go on with the output file of a run that was stopped: images that it has are not "
        "scored again",
    )
    score.add_argument(
        "--maps", type=Path, help="folder for the anomaly maps: .tiff (values), .png (to look at)"
    )
    score.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")

    benchmark = add_command(
        "benchmark",
        _benchmark,
        help="fit and evaluate each category of a data set",
        description="Fit and evaluate each category of a data set; print the table in Markdown. "
        "With -o, a run that was stopped goes on where it was when the same command is given.",
    )
    benchmark.add_argument(
        "dataset",
        metavar="DATASET",
        help="mvtec_ad, btad, visa, mvtec_loco, mvtec_ad_2; a folder of your own that is laid out "
        "as one of them is a category of it",
    )
    benchmark.add_argument("--root", type=Path, required=True, help="folder of the categories")
    benchmark.add_argument(
        "--category", nargs="+", action="extend", help="one or more (default: all that are there)"
    )
    _add_model_options(benchmark)
    _add_error_options(benchmark)
    benchmark.add_argument(
        "--batch-size", type=int, default=32, help="images at a time (default: 32)"
    )
    benchmark.add_argument(
        "--resolution",
        default="model",
        help="where pixels are compared: 'model', as the paper does it, or 'original' "
        "(default: model)",
    )
    benchmark.add_argument("-o", "--output", type=Path, help="CSV file to write, and to resume")
    return parser


def _add_images(parser, what):
    """What `fit` and `score` say alike of images."""
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="*",
        help=f"{what}: folders, subfolders included, and files; '-' for a list of them on the "
        "standard input",
    )
    parser.add_argument("--files-from", metavar="FILE", help="a list of more, one a line")
    _add_error_options(parser)


def _add_error_options(parser):
    parser.add_argument(
        "--on-error",
        default="stop",
        help="at images that cannot be read: 'stop' ('raise' is the same), or 'skip', which "
        "leaves them out and says so (default: stop)",
    )
    parser.add_argument(
        "--max-pixels",
        type=_int_or("none"),
        help="images with more pixels are not read, as they may be made to fill the memory; "
        "'none' for no limit (default: Pillow's, some 180 million)",
    )


def _add_model_options(parser):
    """What `fit` and `benchmark` say alike of the detector."""
    parser.add_argument("--backbone", default="auto", help="network, by name (default: auto)")
    parser.add_argument(
        "--weights", default="imagenet", help="'imagenet', 'none', or the path of a state dict"
    )
    parser.add_argument("--layers", nargs="+", default="auto", help="from fine to coarse")
    parser.add_argument("--n-features", type=_int_or("auto", "all"), default="auto")
    parser.add_argument(
        "--image-size",
        type=_size,
        default=256,
        metavar="H [W]",
        help="pixels, one number for a square (default: 256)",
    )
    parser.add_argument(
        "--crop-size",
        type=_size_or_none,
        metavar="H [W]",
        help="pixels, or 'none' to keep the whole image (default: 7/8 of the image size)",
    )
    parser.add_argument("--seed", type=int, default=42, help="random_state (default: 42)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")


def _int_or(*words):
    """An argparse type: a whole number or one of some words."""

    def convert(text):
        return text if text in words else int(text)

    convert.__name__ = f"number, or {' or '.join(words)}"
    return convert


def _size(text):
    """An argparse type: a number, or two as :func:`_join_sizes` writes them."""
    return tuple(map(int, text.split("x", maxsplit=1))) if "x" in text else int(text)


def _size_or_none(text):
    return text if text == "none" else _size(text)


_size.__name__ = "number of pixels, or two,"
_size_or_none.__name__ = "number of pixels, or two, or none,"


def _demo(options):
    check_output_file(options.output)
    from skpadim._demo import run_demo

    run_demo(options.output)


def _fit(options):
    skips = _skips(options)
    check_output_file(options.output)
    paths = collect_images(options.images, options.files_from).paths
    _tell_at_once(f"{len(paths)} images to learn from")
    detector = _make_detector(options, contamination=options.contamination)
    try:
        detector.fit(paths)
        n_skipped = 0
    except UnreadableImageError as error:
        if not skips:
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


def _make_detector(options, **parameters):
    """An unfitted detector with the options that `fit` and `benchmark` share."""
    from skpadim import PadimDetector

    size, crop_size = options.image_size, options.crop_size
    if crop_size is None:
        sides = size if isinstance(size, tuple) else (size, size)
        crop_size = tuple(max(1, side * 7 // 8) for side in sides)
        crop_size = crop_size if isinstance(size, tuple) else crop_size[0]
    return PadimDetector(
        options.backbone,
        weights=None if options.weights == "none" else options.weights,
        layers=options.layers if options.layers == "auto" else tuple(options.layers),
        n_features=None if options.n_features == "all" else options.n_features,
        image_size=size,
        crop_size=None if crop_size == "none" else crop_size,
        device=options.device,
        random_state=options.seed,
        verbose=1,
        **parameters,
    )


def _score(options):
    skips = _skips(options)
    if options.resume and options.output is None:
        raise ValueError("--resume goes on with the file of -o, which is missing.")
    if options.output is not None:
        check_output_file(options.output)
    given = collect_images(options.images, options.files_from)
    if options.maps is not None:
        _check_maps(options.maps, given)
    if not options.model.is_file():
        raise FileNotFoundError(f"{options.model} is not a file; 'skpadim fit' writes model files.")
    _tell_at_once(f"{len(given.paths)} images to score")
    # One process: on one machine the network uses all cores by itself.
    detector = _load(options.model).set_params(device=options.device, n_jobs=None, verbose=1)

    from skpadim._score_file import ScoreFile

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

    pending = [path for path in given.paths if os.fspath(path) not in file.rows]
    if not pending:
        return
    # Where in its batch an image is changes how its score is rounded. So it is put where it would
    # be had the run not been stopped, behind blank images in place of those that are done.
    n_blank = given.paths.index(pending[0]) % int(detector.batch_size)
    items = [np.zeros((1, 1), dtype=np.uint8)] * n_blank + pending
    done = 0
    for maps, errors in detector._iter_maps_and_errors(items, "skip"):
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

    from skpadim._demo import write_map
    from skpadim.images._batches import Images
    from skpadim.images._read import to_float

    image = to_float(detector.embedder_.preprocess(Images([path])[0]))
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    threshold = -getattr(detector, "offset_", -float(anomaly_map.max()))
    write_map(target, anomaly_map, pixels, 1.5 * threshold)


def _benchmark(options):
    from skpadim.benchmark import markdown_table, run_benchmark
    from skpadim.benchmark._categories import find_dataset
    from skpadim.datasets._layout import find_categories

    if not options.category:  # a mistyped folder is told before torch is imported
        find_categories(find_dataset(options.dataset), options.root)
    results = run_benchmark(
        options.dataset,
        options.root,
        categories=options.category,
        detector=_make_detector(options, batch_size=options.batch_size),
        seed=options.seed,
        resolution=options.resolution,
        on_error="raise" if options.on_error == "stop" else options.on_error,
        output=options.output,
        verbose=1,
    )
    print(markdown_table(results))


def _skips(options):
    """Whether images that cannot be read are skipped."""
    if options.on_error not in ("stop", "skip", "raise"):
        raise ValueError(f"--on-error {options.on_error!r} must be 'stop' or 'skip'.")
    return options.on_error == "skip"


def _tell_at_once(what):
    """Say on a terminal what will be done, before what takes seconds."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr)


def _load(path):
    """A detector from a model file."""
    import joblib

    from skpadim import PadimDetector

    with open(path, "rb"):
        pass  # that it may be read, or the system's word on it
    try:
        detector = joblib.load(path)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path} cannot be read as a model: it needs the module {error.name!r}, which is not "
            "installed."
        ) from error
    except Exception as error:  # unpickling raises nearly anything, which would help nobody
        raise ValueError(
            f"{path} cannot be read as a model: it is none, or damaged, or comes from another "
            "version. 'skpadim fit' writes model files."
        ) from error
    if not isinstance(detector, PadimDetector):
        raise ValueError(f"{path} holds a {type(detector).__name__}, not a PadimDetector.")
    return detector


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


if __name__ == "__main__":
    sys.exit(main())
