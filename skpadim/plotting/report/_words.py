"""What the page says of a detector and its scores, in words."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
from scipy.stats import mannwhitneyu

from skpadim._input_in_words import input_in_words, inspected_in_words
from skpadim._padim import PadimDetector
from skpadim._version import __version__
from skpadim.calibration._conformal import conformal_p_values
from skpadim.embedding._patch_embedder import network_of
from skpadim.plotting.report._findings import Findings

_METRICS = {
    "image_roc_auc": ("Image AUROC", "share of pairs in which the defective image scores higher"),
    "image_f1_max": ("Image F1", "at the threshold that is best for these very images"),
    "pixel_roc_auc": ("Pixel AUROC", "share of pairs in which the defective pixel scores higher"),
    "aupro_0.3": ("AUPRO", "overlap with each region, up to 30 % false positives"),
}
_FEWEST = 10  # images that a drift is looked for in
_RARE = 0.01  # p-value below which it is told


def odds(p_value: float, smallest: float) -> str:
    """A p-value as one good part in so many."""
    if p_value > 0.5:
        return "most good parts look at least this odd"
    few = "at most " if p_value <= smallest else ""
    return f"{few}1 good part in {1 / p_value:.0f} looks this odd"


def calibration_shares(detector: PadimDetector) -> dict | None:
    """Anomaly scores of good images, descending; share of new ones above, with i of these above."""
    if not hasattr(detector, "calibration_scores_"):
        return None
    ordered = np.sort(detector.calibration_scores_)
    # With none above there is still the new image itself.
    steps = np.append(np.nextafter(ordered[0], -np.inf), ordered)
    shares = conformal_p_values(steps, detector.calibration_scores_, detector.calibration_groups_)
    groups = detector.calibration_groups_
    return {
        "scores": (-ordered).tolist(),
        "shares": shares.tolist(),
        "who": f"the {len(ordered)} training images, each scored as if left out"
        if np.array_equal(detector.calibration_scores_, getattr(detector, "training_scores_", None))
        else f"the {len(ordered)} good images that set the threshold",
        "n_groups": None if groups is None else len(set(groups.tolist())),
    }


def drift(detector: PadimDetector, found: Findings) -> str | None:
    """Whether good images score as those did that the threshold comes from."""
    labelled = found.labelled
    scores = found.scores[found.good] if labelled else found.scores
    if not hasattr(detector, "calibration_scores_") or len(scores) < _FEWEST:
        return None
    before = -detector.calibration_scores_
    test = mannwhitneyu(scores, before)
    who = f"the {len(scores)} good images" if labelled else f"all {len(scores)} images"
    figures = (
        f"median {np.median(scores):.4g} against {np.median(before):.4g}, Mann-Whitney "
        f"p {'< 0.001' if test.pvalue < 0.001 else f'= {test.pvalue:.2g}'}"
    )
    unknown = "" if labelled else " Which of them are good is not known: defects raise scores too."
    as_before = f"the {len(before)} good ones that the threshold comes from ({figures}).{unknown}"
    if test.pvalue >= _RARE:
        return f"No drift is seen: {who} score as {as_before}"
    if test.statistic < len(scores) * len(before) / 2:
        return (
            f"Drift: {who} score lower than {as_before} Either the model has learned from some of "
            "these images, which says little of new ones, or light, camera or parts have changed."
        )
    return (
        f"Drift: {who} score higher than {as_before} If light, camera or parts have changed, "
        "calibrate with new good images, or fit again."
    )


def notes(detector: PadimDetector, found: Findings, masked: bool) -> list[str]:
    """What a reader should know before the figures."""
    labelled, texts = found.labelled, []
    if not hasattr(detector, "offset_"):
        which = "good images" if labelled and found.good.any() else "images"
        texts.append(
            "The model has no threshold of its own. The slider begins at the highest score of "
            f"the {which}."
        )
    if (where := inspected_in_words(detector)) != "all":
        size = "{} x {}".format(*detector.embedder_.image_size_)
        texts.append(f"Of each image, {size} pixels, the model inspects {where}.")
    if labelled and not masked:
        texts.append("No masks are given: there are no metrics of pixels.")
    text = drift(detector, found) or ""
    return texts + [text] * text.startswith("Drift")


def metric_rows(values: dict[str, float]) -> list[tuple[str, str, str]]:
    """Name, value and meaning of the metrics that there are."""
    return [
        (name, f"{values[key]:.3f}", meaning)
        for key, (name, meaning) in _METRICS.items()
        if np.isfinite(values.get(key, np.nan))
    ]


def about(detector: PadimDetector) -> list[tuple[str, dict[str, str]]]:
    """Tables of what was learned, of the parameters and of the versions."""
    embedder, groups = detector.embedder_, getattr(detector, "calibration_groups_", None)
    learned = {
        "backbone": detector.backbone_,
        "licence of the weights": network_of(embedder).license or "not known",
        "layers": ", ".join(detector.layers_),
        "training images": detector.n_samples_seen_,
        "groups": "none" if groups is None else len(set(groups.tolist())),
        "images are resized to": "{} x {}".format(*embedder.image_size_),
        **input_in_words(detector),
        "positions": "{} x {}".format(*embedder.grid_),
        "features": embedder.n_features_out_,
        "regularization": f"{detector.regularization_:.4g}",
        "threshold": f"{-detector.offset_:.4g}" if hasattr(detector, "offset_") else "none",
    }
    packages = {name: version(name) for name in ("torch", "scikit-learn", "numpy")}
    versions = {"skpadim": __version__, **packages, "Python": platform.python_version()}
    tables = {"Fit": learned, "Parameters": detector.get_params(), "Versions": versions}
    return [
        (title, {key: value if isinstance(value, str) else repr(value) for key, value in t.items()})
        for title, t in tables.items()
    ]
