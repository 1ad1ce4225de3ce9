"""Scorers of anomaly maps for scikit-learn's searches and cross-validation."""

from __future__ import annotations

import copy

from sklearn import get_config
from sklearn.utils.metadata_routing import MetadataRequest

from skpadim._routing import how_to_pass_masks
from skpadim.calibration._training_samples import USE_NORMAL_FOLD, are_labels, check_labels
from skpadim.metrics import _curves
from skpadim.metrics._evaluate import update_at_map_size, warn_of_vanished
from skpadim.metrics._pixel_metrics import PixelMetrics


class MapScorer:
    """Score a detector's anomaly maps against masks; see :data:`aupro_scorer`.

    Called as ``scorer(detector, X, y, masks=masks)``. scikit-learn's searches and
    cross-validations, which divide masks as they divide X, pass them on after
    ``sklearn.set_config(enable_metadata_routing=True)``: the scorer asks for them by itself, under
    another name if :meth:`set_score_request` says so. `metric` makes its value, of which higher is
    better, from a :class:`PixelMetrics`.
    """

    def __init__(self, name, metric):
        self._name = name
        self._metric = metric
        self._request = MetadataRequest(owner=self)
        # It cannot do without, so it asks for them by default.
        self._request.score.add_request(param="masks", alias=True)

    def __repr__(self):
        return f"{self._name}_scorer"

    def __call__(self, estimator, X, y=None, *, masks=None):
        """Score a fitted detector.

        Parameters
        ----------
        estimator : PadimDetector, or any object with ``iter_anomaly_maps(X)``
        X : images
        y : array-like of shape (n_samples,), default=None
            The masks tell what is anomalous; if these are labels, +1 and -1, they must agree.
        masks : sequence of length n_samples
            Arrays, paths or None, as for :func:`evaluate`; compared at the maps' resolution.

        Returns
        -------
        score : float
            Exact; higher is better.

        Raises
        ------
        TypeError, ValueError
            If there are no masks, or they have anomalous or normal pixels alone; otherwise as
            :func:`evaluate`.
        """
        if masks is None:
            raise ValueError(
                f"{self!r} needs masks. Call it as {self!r}(detector, X, masks=masks). "
                f"{how_to_pass_masks(repr(self))}"
            )
        anomalous = check_labels(y) == -1 if y is not None and are_labels(y) else None
        metrics = PixelMetrics()
        warn_of_vanished(update_at_map_size(metrics, estimator, X, masks, anomalous))
        try:
            return self._metric(metrics)
        except ValueError as error:  # one kind of pixel
            raise ValueError(f"{self!r}: {error} {USE_NORMAL_FOLD}") from None

    def set_score_request(self, *, masks=True):
        """Say how scikit-learn's tools are to pass masks.

        Parameters
        ----------
        masks : bool, str or None, default=True
            True asks for them; a string asks for them under that name; False does not; None
            raises if they are given.

        Returns
        -------
        scorer : MapScorer
            A new one; this one is left as it is.

        Raises
        ------
        RuntimeError
            If metadata routing is off, as scikit-learn's own objects do: masks would not arrive.
        """
        if not get_config()["enable_metadata_routing"]:
            raise RuntimeError(
                "set_score_request has no effect while metadata routing is off. "
                f"{how_to_pass_masks(repr(self))}"
            )
        scorer = copy.deepcopy(self)
        scorer._request.score.add_request(param="masks", alias=masks)
        return scorer

    def get_metadata_routing(self):
        """Return the request, for scikit-learn's metadata routing.

        Returns
        -------
        request : sklearn.utils.metadata_routing.MetadataRequest
        """
        return self._request


def _aupro(metrics):
    return _curves.aupro(metrics.counts(), 0.3)


def _pixel_roc_auc(metrics):
    return _curves.roc_auc(metrics.counts())


aupro_scorer = MapScorer("aupro", _aupro)
"""Scorer of the area under the PRO curve up to a false positive rate of 0.3."""

pixel_roc_auc_scorer = MapScorer("pixel_roc_auc", _pixel_roc_auc)
"""Scorer of the area under the pixels' ROC curve."""
