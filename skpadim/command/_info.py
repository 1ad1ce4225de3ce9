"""`skpadim info`: what a model file holds."""

from __future__ import annotations

from skpadim.command._arguments import add_command, add_model
from skpadim.command._model import load_model
from skpadim.command._threshold import in_words, origin


def add_info(commands):
    """Add the subcommand."""
    parser = add_command(
        commands,
        "info",
        run_info,
        help="say what a model file holds",
        description="Say what a model was fitted with, its threshold, versions, licence and size.",
        example="skpadim info model.joblib",
    )
    add_model(parser)


def run_info(options) -> None:
    """Run the subcommand."""
    detector = load_model(options.model)
    rows = describe(detector, options.model.stat().st_size)
    width = max(map(len, rows))
    for name, value in {"file": options.model, **rows}.items():
        print(f"{name:<{width}}  {value}")


def describe(detector, n_bytes: int) -> dict[str, str]:
    """What is known of a detector from a file of some bytes, in the order in which it is told."""
    from skpadim import __version__
    from skpadim._input_in_words import input_in_words
    from skpadim._padim import fitted_versions
    from skpadim._persistence import package_versions
    from skpadim.embedding._patch_embedder import network_of

    embedder, groups = detector.embedder_, getattr(detector, "calibration_groups_", None)
    present = {"skpadim": __version__, **package_versions()}
    fitted = fitted_versions(detector)
    rows = {
        "backbone": detector.backbone_,
        "licence of the weights": network_of(embedder).license or "not known",
        "layers": ", ".join(detector.layers_),
        "images are resized to": _pixels(embedder.image_size_),
        **input_in_words(detector),
        "grid of positions": _pixels(embedder.grid_),
        "features": str(embedder.n_features_out_),
        "images learned from": str(detector.n_samples_seen_),
        "groups": "none" if groups is None else str(len(set(groups.tolist()))),
        "threshold": in_words(detector).removeprefix("threshold "),
        "which comes from": origin(detector),
        "other settings": _changed_parameters(detector) or "the defaults",
        "fitted with": _versions(fitted) or "versions that the file does not tell",
        "size on disk": _megabytes(n_bytes),
        "size in memory": "little of it at a time"
        if detector.tile_size is not None
        else f"{_megabytes(n_bytes + _factor_bytes(detector))} while it scores",
    }
    if fitted != present:
        rows["here are"] = _versions(present)
    return rows


def _changed_parameters(detector):
    """Parameters that are not the defaults, as they would be written."""
    defaults = type(detector)().get_params()
    told = ("backbone", "contamination", "calibration", "roi", "verbose")
    return ", ".join(
        f"{name}={value!r}"
        for name, value in detector.get_params(deep=False).items()
        if name not in told and repr(value) != repr(defaults[name])
    )


def _factor_bytes(detector):
    """Memory of what is made of the state when the first image is scored."""
    import torch

    from skpadim.gaussian._patch_gaussian import whitening_in

    whitening = whitening_in(detector.gaussian_, torch.device("cpu"), torch.float32)
    return whitening.mean.nbytes + whitening.factors.nbytes


def _versions(versions):
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _pixels(size):
    return f"{size[0]} x {size[1]}"


def _megabytes(n_bytes):
    return f"{n_bytes / 2**20:.1f} MiB"
