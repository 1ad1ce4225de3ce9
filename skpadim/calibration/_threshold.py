"""What a fitted estimator keeps of its threshold, and how it is set again.

Free functions on an estimator with the parameters `contamination` and `calibration`, and the
attributes named in `THRESHOLD_ATTRIBUTES`.
"""

from __future__ import annotations

import numpy as np

from skpadim.calibration._conformal import conformal_offset, conformal_p_values, training_offset

# All of them belong to one model: they go when it changes.
THRESHOLD_ATTRIBUTES = ("offset_", "training_scores_", "calibration_scores_", "calibration_groups_")


def fitted_threshold(
    scores: np.ndarray, calibration: str, contamination: float, groups: np.ndarray | None = None
) -> dict:
    """Attributes that follow from the scores of the training samples.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
    calibration : {"training", "leave_one_out"}
        What the scores are; only those of ``"leave_one_out"`` can stand for new samples' scores.
    contamination : float
    groups : ndarray of shape (n_samples,), default=None
        Group of each sample, with ``"leave_one_out"``.

    Returns
    -------
    attributes : dict
    """
    if calibration == "training":
        offset = training_offset(scores, contamination)
        return {"training_scores_": scores, "offset_": offset}
    held_out = held_out_threshold(scores, contamination, groups)
    return {"training_scores_": scores, **held_out}


def held_out_threshold(
    scores: np.ndarray, contamination: float, groups: np.ndarray | None = None
) -> dict:
    """Attributes that follow from scores under models that have not seen the samples.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
    contamination : float
    groups : ndarray of shape (n_samples,), default=None

    Returns
    -------
    attributes : dict
    """
    return {
        "offset_": conformal_offset(scores, contamination, groups),
        "calibration_scores_": scores,
        "calibration_groups_": groups,
    }


def renewed_threshold(estimator, groups=None) -> dict:
    """Attributes of a threshold for the estimator's present `contamination`, from its scores.

    Parameters
    ----------
    estimator : PatchGaussian or PadimDetector
    groups : None
        What `calibrate` was given without samples, which is an error.
    """
    if groups is not None:
        raise ValueError(
            "calibrate was given groups without samples: give X too, or neither to use the scores "
            "and groups that are there."
        )
    fitted = vars(estimator)
    if "calibration_scores_" in fitted:
        scores, groups = fitted["calibration_scores_"], fitted["calibration_groups_"]
        return held_out_threshold(scores, estimator.contamination, groups)
    if "training_scores_" in fitted:
        return {"offset_": training_offset(fitted["training_scores_"], estimator.contamination)}
    raise AttributeError(
        f"This {type(estimator).__name__} has no scores to set a threshold from: partial_fit, "
        "merge and calibration=None leave none. Give calibrate normal samples that it has not "
        "seen."
    )


def p_values_of(estimator, scores: np.ndarray) -> np.ndarray:
    """Conformal p-values of new samples' scores, by the estimator's calibration scores."""
    return conformal_p_values(scores, estimator.calibration_scores_, estimator.calibration_groups_)


def check_has_threshold(estimator) -> None:
    """Raise an error that says how to get a threshold, where there is none."""
    if not hasattr(estimator, "offset_"):
        raise AttributeError(
            f"This {type(estimator).__name__} has no threshold: partial_fit, merge and "
            "calibration=None leave it open. Call calibrate with normal samples that it has not "
            "seen; score_samples needs no threshold."
        )


def check_has_calibration_scores(estimator) -> None:
    """Raise an error that says how to get p-values, where there are no scores for them."""
    if hasattr(estimator, "calibration_scores_"):
        return
    if hasattr(estimator, "training_scores_"):
        why = (
            "its threshold comes from the scores of the training samples themselves "
            "(calibration='training'), which are better than those of new samples, so p-values "
            "from them would be too small. Fit with calibration='leave_one_out', or call"
        )
    else:
        why = "partial_fit, merge and calibration=None leave no scores for them. Call"
    raise AttributeError(
        f"This {type(estimator).__name__} has no p-values: {why} calibrate with normal samples "
        "that it has not seen."
    )
