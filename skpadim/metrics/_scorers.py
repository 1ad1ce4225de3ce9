"""Scorers of anomaly maps for scikit-learn's searches and cross-validation."""

from __future__ import annotations

import copy

from sklearn.utils.metadata_routing import MetadataRequest

from skpadim.metrics import _curves
from skpadim.metrics._accumulator import PixelMetrics
from skpadim.metrics._evaluate import iter_maps_and_masks


class MapScorer:
    """Score a detector's anomaly maps against masks; see :data:`aupro_scorer`.

    Called as ``scorer(detector, X, y, masks=masks)``. For scikit-learn's tools, which divide the
    masks as they divide X, ask for them with :meth:`set_score_request` after
    ``sklearn.set_config(enable_metadata_routing=True)``.

    Parameters
    ----------
    name : str
        Of the metric.
    metric : callable
        Makes the value from counts; higher is better.
    """

    def __init__(self, name, metric):
        self._name = name
        self._metric = metric
        self._request = MetadataRequest(owner=self)
        self._request.score.add_request(param="masks", alias=None)

    def __repr__(self):
        return f"{self._name}_scorer"

    def __call__(self, estimator, X, y=None, *, masks=None):
        """Score a fitted detector.

        Parameters
        ----------
        estimator : PadimDetector, or any object with ``iter_anomaly_maps(X)``
        X : images
        y : ignored
            The masks tell what is anomalous.
        masks : sequence of length n_samples
            Arrays, paths or None, as for :func:`evaluate`; compared at the maps' resolution.

        Returns
        -------
        score : float
            Exact; higher is better.
        """
        if masks is None:
            raise ValueError(
                f"{self!r} needs masks. In a search or cross-validation, call "
                "sklearn.set_config(enable_metadata_routing=True), give scoring="
                f"{self!r}.set_score_request(masks=True), and pass masks=... to fit."
            )
        metrics = PixelMetrics()
        for _, anomaly_map, mask, window in iter_maps_and_masks(estimator, X, masks):
            metrics.update([window.crop_mask(mask)], [anomaly_map])
        return self._metric(metrics)

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
        """
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
