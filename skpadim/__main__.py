"""The `skpadim` command."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from pathlib import Path

from skpadim._output_files import check_output_file, written_whole
from skpadim._version import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code.

    Parameters
    ----------
    arguments : list of str, default=None
        As on the command line, without the program's name.

    Returns
    -------
    code : int
        0 on success, 1 on an error, which is told on the standard error, 130 after Ctrl-C;
        argparse exits with 2 if the command line is wrong.
    """
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: print(
            f"skpadim: warning: {message}", file=sys.stderr
        )
        try:
            options.run(options)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("skpadim: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            # Whoever read our output (head, say) has left; the interpreter must not complain
            # about it once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (OSError, TypeError, ValueError) as error:
            print(f"skpadim: error: {error}", file=sys.stderr)
            return 1
    return 0


def _parser():
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="skpadim",
        description="Find defective images, and where they are defective, after seeing good ones.",
    )
    parser.add_argument("--version", action="version", version=f"skpadim {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="fit and score generated parts; nothing is downloaded")
    demo.add_argument(
        "-o", "--output", type=Path, default=Path("skpadim-demo.png"), help="picture to write"
    )
    demo.set_defaults(run=_demo)

    fit = commands.add_parser("fit", help="learn from a folder of good images")
    fit.add_argument("folder", type=Path, help="good images, subfolders included")
    fit.add_argument("-o", "--output", type=Path, required=True, help="model file to write")
    _add_model_options(fit)
    fit.add_argument(
        "--contamination",
        type=float,
        default=0.05,
        help="share of new good images that may be flagged (default: 0.05)",
    )
    fit.set_defaults(run=_fit)

    score = commands.add_parser("score", help="score the images of a folder")
    score.add_argument("model", type=Path, help="model file; read only those that you trust")
    score.add_argument("folder", type=Path, help="images, subfolders included")
    score.add_argument(
        "-o", "--output", type=Path, help="CSV file to write (default: standard output)"
    )
    score.add_argument(
        "--maps", type=Path, help="folder for the anomaly maps: .tiff (values), .png (to look at)"
    )
    score.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    score.set_defaults(run=_score)

    benchmark = commands.add_parser(
        "benchmark",
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
    benchmark.add_argument(
        "--batch-size", type=int, default=32, help="images at a time (default: 32)"
    )
    benchmark.add_argument(
        "--resolution",
        default="model",
        help="where pixels are compared: 'model', as the paper does it, or 'original' "
        "(default: model)",
    )
    benchmark.add_argument(
        "--on-error",
        default="raise",
        help="at images that cannot be read: 'raise' stops, 'skip' leaves them out and counts "
        "them (default: raise)",
    )
    benchmark.add_argument("-o", "--output", type=Path, help="CSV file to write, and to resume")
    benchmark.set_defaults(run=_benchmark)
    return parser


def _add_model_options(parser):
    """What `fit` and `benchmark` say alike of the detector."""
    parser.add_argument("--backbone", default="auto", help="network, by name (default: auto)")
    parser.add_argument(
        "--weights", default="imagenet", help="'imagenet', 'none', or the path of a state dict"
    )
    parser.add_argument("--layers", nargs="+", default="auto", help="from fine to coarse")
    parser.add_argument("--n-features", type=_int_or("auto", "all"), default="auto")
    parser.add_argument("--image-size", type=int, default=256, help="pixels (default: 256)")
    parser.add_argument(
        "--crop-size",
        type=_int_or("none"),
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


def _demo(options):
    from skpadim._demo import run_demo

    check_output_file(options.output)
    run_demo(options.output)


def _fit(options):
    import joblib

    from skpadim._image_files import list_images

    check_output_file(options.output)
    paths = list_images(options.folder)
    detector = _make_detector(options, contamination=options.contamination).fit(paths)
    with written_whole(options.output) as part:
        joblib.dump(detector, part)
    print(
        f"{options.output}: {detector.backbone_}, {', '.join(detector.layers_)}, "
        f"{len(paths)} images, threshold {detector.offset_:.4g}",
        file=sys.stderr,
    )


def _make_detector(options, **parameters):
    """An unfitted detector with the options that `fit` and `benchmark` share."""
    from skpadim import PadimDetector

    crop_size = options.crop_size or max(1, options.image_size * 7 // 8)
    return PadimDetector(
        options.backbone,
        weights=None if options.weights == "none" else options.weights,
        layers=options.layers if options.layers == "auto" else tuple(options.layers),
        n_features=None if options.n_features == "all" else options.n_features,
        image_size=options.image_size,
        crop_size=None if crop_size == "none" else crop_size,
        device=options.device,
        random_state=options.seed,
        verbose=1,
        **parameters,
    )


def _score(options):
    import numpy as np
    import pandas as pd

    from skpadim._image_files import list_images

    if options.output is not None:
        check_output_file(options.output)
    if options.maps is not None:
        _check_maps(options.maps, options.folder)
    detector = _load(options.model)
    detector.set_params(device=options.device, verbose=1)
    paths = list_images(options.folder)
    scores = []
    for maps in detector.iter_anomaly_maps(paths):
        if options.maps is not None:
            _write_maps(options, detector, paths[len(scores) : len(scores) + len(maps)], maps)
        scores.extend(-maps.max(axis=(1, 2)))
    table = pd.DataFrame({"path": paths, "score": np.array(scores)})
    if hasattr(detector, "offset_"):
        table["decision"] = table["score"] - detector.offset_
        table["label"] = np.where(table["decision"] >= 0, 1, -1)
    if options.output is None:
        table.to_csv(sys.stdout, index=False)
    else:
        with written_whole(options.output) as part:
            table.to_csv(part, index=False)
    if "label" in table:
        anomalous = int((table["label"] < 0).sum())
        print(f"{anomalous} of {len(table)} images are anomalous", file=sys.stderr)


def _benchmark(options):
    from skpadim.benchmark import markdown_table, run_benchmark

    results = run_benchmark(
        options.dataset,
        options.root,
        categories=options.category,
        detector=_make_detector(options, batch_size=options.batch_size),
        seed=options.seed,
        resolution=options.resolution,
        on_error=options.on_error,
        output=options.output,
        verbose=1,
    )
    print(markdown_table(results))


def _load(path):
    """A detector from a model file."""
    import joblib

    from skpadim import PadimDetector

    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; 'skpadim fit' writes model files.")
    try:
        detector = joblib.load(path)
    except Exception as error:  # unpickling raises nearly anything
        raise ValueError(f"{path} cannot be read as a model ({error}).") from error
    if not isinstance(detector, PadimDetector):
        raise ValueError(f"{path} holds a {type(detector).__name__}, not a PadimDetector.")
    return detector


def _write_maps(options, detector, paths, maps):
    """Write each map twice: values as .tiff, colours beside the image as .png."""
    import numpy as np
    from PIL import Image

    from skpadim._map_pictures import colour_map
    from skpadim._pixels import read_image, to_float

    threshold = -getattr(detector, "offset_", -float(maps.max()))
    for path, anomaly_map in zip(paths, maps, strict=True):
        relative = path.relative_to(options.folder)
        # The suffix stays in the name: a.png and a.jpg must not overwrite each other.
        target = options.maps / relative.parent / relative.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(anomaly_map).save(f"{target}.tiff")
        image = detector.embedder_.preprocess(read_image(path))
        pixels = (to_float(image).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        coloured = colour_map(anomaly_map, 0, 1.5 * threshold)
        Image.fromarray(np.hstack([pixels, coloured])).save(f"{target}.png")


def _check_maps(maps, folder):
    """See that maps will not lie among the images, nor where a file is."""
    if maps.exists() and not maps.is_dir():
        raise NotADirectoryError(f"--maps {maps} is a file; give the name of a folder.")
    if maps.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"--maps {maps} lies in {folder}: the maps would be taken for images the next time. "
            "Give a folder outside of it."
        )


if __name__ == "__main__":
    sys.exit(main())
