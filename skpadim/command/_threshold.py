"""The threshold of a model: for one run, and in words."""

from __future__ import annotations

import warnings
from pathlib import Path


def set_threshold(detector, options) -> None:
    """Give a detector the threshold that --threshold or --contamination ask for, if they do."""
    if options.threshold is not None:
        detector.offset_ = -options.threshold
    elif options.contamination is not None:
        set_contamination(detector, options.contamination)


def set_contamination(detector, contamination: float) -> None:
    """Set the threshold from the scores that a fit has left."""
    if not (hasattr(detector, "calibration_scores_") or hasattr(detector, "training_scores_")):
        raise ValueError(
            "the model has no scores to set a threshold from: give --threshold, or set one from "
            "good images that it has not learned from, by 'skpadim calibrate MODEL --on FOLDER'."
        )
    detector.set_params(contamination=contamination).calibrate()


def check_threshold(detector, model: Path) -> None:
    """Refuse a model that tells no good image from an anomalous one."""
    if not hasattr(detector, "offset_"):
        raise ValueError(
            f"{model} has no threshold: give --threshold, or set one by 'skpadim calibrate {model} "
            "--on FOLDER' with good images that it has not learned from."
        )


def flagged_share(detector) -> float | None:
    """Share of new good images that a detector flags at most; None if it cannot tell."""
    from skpadim.calibration._conformal import expected_share

    if not hasattr(detector, "calibration_scores_"):
        return None
    return expected_share(
        detector.offset_, detector.calibration_scores_, detector.calibration_groups_
    )


def origin(detector) -> str:
    """What a detector's threshold was set from, in words."""
    import numpy as np

    if not hasattr(detector, "offset_"):
        return "nothing: none is set"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few images, which are counted elsewhere
        try:
            again = detector._renewed_threshold()["offset_"]
        except AttributeError:  # no scores to set it from
            again = None
    if again != detector.offset_:
        return "set by hand"
    asked = f"contamination {detector.contamination:g}"
    scores = getattr(detector, "calibration_scores_", None)
    if scores is None:
        return f"the scores of the training images themselves, {asked}"
    if np.array_equal(scores, getattr(detector, "training_scores_", None)):
        return f"the training images, each scored as if left out, {asked}"
    return f"{len(scores)} other good images, {asked}"


def percent(share: float) -> str:
    """A share with two digits, as "4.8 %", or more."""
    return f"{100 * share:.{2 if share < 0.995 else 3}g} %"


def in_words(detector) -> str:
    """A detector's threshold, and how many good images it is expected to flag."""
    if not hasattr(detector, "offset_"):
        return "no threshold"
    text, share = f"threshold {-detector.offset_:.4g}", flagged_share(detector)
    if share is not None:
        text += f", flags about {percent(share)} of new good images"
        return f"{text}, 1 in {round(1 / share)}"
    if hasattr(detector, "training_scores_"):
        share = (detector.training_scores_ < detector.offset_).mean()
        return f"{text}, flags {percent(share)} of its training images, and more of new ones"
    return text
