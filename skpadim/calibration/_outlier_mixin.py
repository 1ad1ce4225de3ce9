"""A threshold on scores: what an outlier detector offers with it, and how it is set again."""

from __future__ import annotations

from functools import partial, update_wrapper
from types import MethodType

import numpy as np
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from skpadim._arrays import as_array
from skpadim.calibration._conformal import conformal_offset, conformal_p_values, training_offset
from skpadim.calibration._training_samples import warn_of_learned_samples

# All of them belong to one model: they go when it changes.
_ATTRIBUTES = ("offset_", "training_scores_", "calibration_scores_", "calibration_groups_")


def _check_has_threshold(estimator):
    if not hasattr(estimator, "offset_"):
        raise AttributeError(
            f"This {type(estimator).__name__} has no threshold: partial_fit, merge and "
            "calibration=None leave it open. Call calibrate with normal samples that it has not "
            "seen; score_samples needs no threshold."
        )


def _check_has_calibration_scores(estimator):
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


class _MethodIf:
    """As scikit-learn's ``available_if``, which keeps to itself how to get the method."""

    def __init__(self, check, method):
        self._check, self._method = check, method
        update_wrapper(self, method)

    def __get__(self, estimator, owner=None):
        if estimator is None:
            return self._method
        if estimator.__sklearn_is_fitted__():
            self._check(estimator)
        return MethodType(self._method, estimator)


# Decorators of methods that a fitted estimator without these does not have.
needs_threshold = partial(_MethodIf, _check_has_threshold)
needs_calibration_scores = partial(_MethodIf, _check_has_calibration_scores)


class CalibratedOutlierMixin(OutlierMixin):
    """What follows from `score_samples` and a threshold that is set from scores of good samples.

    Of an estimator with the parameters `contamination` and `calibration`; it has
    ``_score_held_out(X, y, groups)``, which gives scores, groups and digests of the samples that
    are labelled good, and the digests of those that the model has learned from.
    """

    @needs_threshold
    def decision_function(self, X, **params):
        """Score of each sample above the threshold: negative is anomalous.

        Parameters
        ----------
        X : samples
            As :meth:`score_samples` takes them.
        **params : dict
            Of :meth:`score_samples`, if it has any.

        Returns
        -------
        decision : array or tensor of shape (n_samples,)
            ``score_samples(X) - offset_``.
        """
        check_is_fitted(self)
        return self.score_samples(X, **params) - self.offset_

    @needs_threshold
    def predict(self, X, **params):
        """Label of each sample: +1 good, -1 anomalous.

        Parameters
        ----------
        X : samples
            As :meth:`score_samples` takes them.
        **params : dict
            Of :meth:`score_samples`, if it has any.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
        """
        return np.where(as_array(self.decision_function(X, **params), "scores") >= 0, 1, -1)

    @needs_calibration_scores
    def p_values(self, X, **params):
        """Conformal p-value of each sample: how likely a good one scores as low.

        Parameters
        ----------
        X : samples
            As :meth:`score_samples` takes them.
        **params : dict
            Of :meth:`score_samples`, if it has any.

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            In (0, 1], lower is more anomalous: the share of :attr:`calibration_scores_`, the
            sample's own included, that are no higher than its score, each group counting as one.
            :meth:`predict` flags the samples with p-values of `contamination` or less, where
            there are enough calibration scores for it. See the notes on many samples at once.

        Raises
        ------
        AttributeError
            If there are no scores of samples that the model has not seen:
            ``calibration="leave_one_out"`` or :meth:`calibrate` gives them.
        """
        check_is_fitted(self)
        scores = as_array(self.score_samples(X, **params), "scores")
        return conformal_p_values(scores, self.calibration_scores_, self.calibration_groups_)

    def calibrate(self, X=None, y=None, *, groups=None):
        """Set the threshold from good samples that the model has not seen.

        Or, without samples, set it anew from the scores that it came from, after `contamination`
        was changed; nothing is fitted again.

        Parameters
        ----------
        X : samples, default=None
            Held out, as :meth:`score_samples` takes them. None for the scores that :meth:`fit`, or
            this method, has left.
        y : array-like of shape (n_samples,), default=None
            Labels of `X`: +1 good, -1 anomalous; or bool, or 0 and 1, 1 (True) for anomalous, with
            a warning. Anomalous samples are left out. None means that all are good.
        groups : array-like of shape (n_samples,), default=None
            Label of the part that each sample of `X` shows, as in :meth:`fit`: each part counts as
            one.

        Returns
        -------
        self : estimator
            :attr:`offset_` is such that at most the share `contamination` of new good samples
            falls below it (conformal quantile). Without `X`, after ``calibration="training"``,
            that share of the training samples does.

        Warns
        -----
        UserWarning
            If the model has learned from some of the samples, told by their content; if there are
            too few samples or groups for `contamination`.

        Notes
        -----
        A threshold of one's own is set as in the rest of scikit-learn, ``estimator.offset_ =
        -threshold``, where `threshold` is the value of the anomaly map above which a sample is
        anomalous. It holds until the next :meth:`calibrate` or :meth:`fit`, and changes no p-value.
        """
        check_is_fitted(self)
        self._validate_params()
        if X is None:
            for name, given in (("y", y), ("groups", groups)):
                if given is not None:
                    raise ValueError(
                        f"calibrate was given {name} without samples: give X too, or neither to "
                        "use the scores and groups that are there."
                    )
            vars(self).update(self._renewed_threshold())
            return self
        scores, groups, digests, learned = self._score_held_out(X, y, groups)
        warn_of_learned_samples(digests, learned, type(self).__name__, self.contamination)
        vars(self).update(self._held_out_threshold(scores, groups))
        return self

    def _fitted_threshold(self, scores, groups=None):
        """Attributes that follow from the scores of the training samples, by `calibration`."""
        if self.calibration == "training":
            offset = training_offset(scores, self.contamination)
            return {"training_scores_": scores, "offset_": offset}
        return {"training_scores_": scores, **self._held_out_threshold(scores, groups)}

    def _held_out_threshold(self, scores, groups):
        """Attributes that follow from scores under models that have not seen the samples."""
        return {
            "offset_": conformal_offset(scores, self.contamination, groups),
            "calibration_scores_": scores,
            "calibration_groups_": groups,
        }

    def _renewed_threshold(self):
        """Attributes of a threshold for the present `contamination`, from the scores there are."""
        fitted = vars(self)
        if "calibration_scores_" in fitted:
            return self._held_out_threshold(self.calibration_scores_, self.calibration_groups_)
        if "training_scores_" in fitted:
            return {"offset_": training_offset(self.training_scores_, self.contamination)}
        raise AttributeError(
            f"This {type(self).__name__} has no scores to set a threshold from: partial_fit, "
            "merge and calibration=None leave none. Give calibrate normal samples that it has not "
            "seen."
        )

    def _replace_threshold(self, attributes=None):
        """Forget the threshold of the model before, for another or for none."""
        for attribute in _ATTRIBUTES:
            vars(self).pop(attribute, None)
        vars(self).update(attributes or {})
