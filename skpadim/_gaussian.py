"""The estimator of one Gaussian per patch position; what it keeps is in `_moments`,
its mathematics in `_mahalanobis`.
"""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_array, check_is_fitted, validate_data

from skpadim._calibration import conformal_offset, training_offset
from skpadim._labels import are_labels, check_labels
from skpadim._leave_out import (
    TrainingDistances,
    check_enough_samples,
    low_rank_training_distances,
)
from skpadim._mahalanobis import whitening_of
from skpadim._moments import Moments, Samples, state_of
from skpadim._persistence import VersionedStateMixin


class PatchGaussian(VersionedStateMixin, OutlierMixin, BaseEstimator):
    """A multivariate Gaussian at each patch position, scored by the Mahalanobis distance.

    The second half of PaDiM [1]_: from the patch embeddings of normal images it learns, at each
    position of the grid, a mean and a covariance ``S / (n - 1) + regularization * I``. On plain
    two-dimensional data it is an ordinary outlier detector with one regularised Gaussian.

    Samples can come all at once (:meth:`fit`), in batches (:meth:`partial_fit`), or from models
    fitted elsewhere (:meth:`merge`); the result is the same up to rounding. What is kept at each
    position is never more than n_features vectors of n_features numbers, whatever the number of
    samples: the samples themselves while there are fewer, then their mean and scatter.

    Parameters
    ----------
    regularization : float, default=0.01
        The paper's ε: added to the diagonal of each covariance, in the features' units squared.
    contamination : float, default=0.05
        In (0, 0.5]. With ``calibration="training"`` the share of the training samples that
        :meth:`predict` calls anomalous, as in scikit-learn; with ``"leave_one_out"`` the share of
        *new* normal samples that it may flag.
    calibration : {"training", "leave_one_out"} or None, default="training"
        Which scores of the training samples set the threshold: those under the model itself, or
        those under the model without the sample, in closed form. None sets no threshold, and
        :meth:`predict` is not available.
    solver : {"auto", "full", "low_rank"}, default="auto"
        What is kept, and computed with. "full": means and scatters. "low_rank": the samples, whose
        covariance has a rank below their number; the same distances by the Woodbury identity,
        but without bound on the memory. "auto": the samples while there are no more of them than
        features, then means and scatters.

    Attributes
    ----------
    location_ : ndarray of shape (height, width, n_features) or (n_features,)
        Mean at each position.
    scatter_ : ndarray of shape (height, width, n_features, n_features) or (n_features, n_features)
        Sum of the outer products of the centred samples, S; only where the samples are not kept.
    samples_ : ndarray of shape (n_samples, height, width, n_features) or (n_samples, n_features)
        The samples, where they are kept.
    n_samples_seen_ : int
        Number of samples behind the moments.
    training_scores_ : ndarray of shape (n_samples,)
        Scores of the training samples that :meth:`fit` set the threshold from, higher is more
        normal.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``. Not there after
        :meth:`partial_fit` or :meth:`merge`, which change the model: see :meth:`calibrate`.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, if a DataFrame was given.

    See Also
    --------
    PatchEmbedder : Makes the embeddings from images.
    PadimDetector : Both in one, with the smoothed anomaly map.
    sklearn.covariance.EllipticEnvelope : A robust Gaussian for two-dimensional data.

    Notes
    -----
    NumPy arrays are computed on the CPU, torch tensors on the device they are on. Moments are
    accumulated and factorised (Cholesky) in float64; distances have the dtype of the input.

    With centred samples X as rows, λ for the regularization and δ for a new sample minus the mean,
    the low-rank form is ``δᵀ Σ⁻¹ δ = (‖δ‖² - ‖L⁻¹ X δ‖²) / λ``, ``L Lᵀ = X Xᵀ + λ (n - 1) I`` [2]_.

    References
    ----------
    .. [1] Defard, Setkov, Loesch & Audigier, "PaDiM: a Patch Distribution Modeling Framework for
       Anomaly Detection and Localization", arXiv 2011.08785, sections 3.2 and 3.3.
    .. [2] Woodbury, "Inverting modified matrices", Princeton, 1950.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim import PatchGaussian
    >>> rng = np.random.default_rng(0)
    >>> normal = rng.normal(size=(50, 4, 4, 3))       # 50 images, 4 x 4 patches, 3 features
    >>> new = rng.normal(size=(2, 4, 4, 3))
    >>> new[1, 2, 2] += 6                             # a defect at one patch of the second
    >>> gaussian = PatchGaussian().fit(normal)
    >>> gaussian.predict(new)
    array([ 1, -1])
    >>> distances = gaussian.mahalanobis(new)
    >>> np.unravel_index(distances[1].argmax(), (4, 4)) == (np.int64(2), np.int64(2))
    True
    """

    _parameter_constraints = {
        "regularization": [Interval(Real, 0, None, closed="left")],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "calibration": [StrOptions({"training", "leave_one_out"}), None],
        "solver": [StrOptions({"auto", "full", "low_rank"})],
    }

    def __init__(
        self,
        *,
        regularization=0.01,
        contamination=0.05,
        calibration="training",
        solver="auto",
    ):
        self.regularization = regularization
        self.contamination = contamination
        self.calibration = calibration
        self.solver = solver

    def fit(self, X, y=None):
        """Learn the Gaussians and the threshold.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)
            Embeddings of normal samples, at least two (three for ``"leave_one_out"``).
        y : array-like of shape (n_samples,), default=None
            If all values are +1 (normal) or -1, samples labelled -1 are left out. Any other `y`
            is ignored.

        Returns
        -------
        self : PatchGaussian
        """
        self._validate_params()
        X = _normal_samples(X, y)
        embeddings, grid = self._check_embeddings(X, min_samples=2)
        state = state_of(embeddings, self.solver)
        threshold = {}
        if self.calibration is not None:
            distances = self._training_distances(state, embeddings)
            threshold = self._threshold(-_numpy(distances.amax(dim=1)))
        self._record_input(X, grid)
        self._set_state(state, grid)
        vars(self).update(threshold)
        return self

    def partial_fit(self, X, y=None):
        """Add a batch of normal samples to the Gaussians.

        The threshold is dropped, since the model is another one now; :meth:`calibrate` sets it.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)
            One sample or more.
        y : array-like of shape (n_samples,), default=None
            As in :meth:`fit`.

        Returns
        -------
        self : PatchGaussian
        """
        self._validate_params()
        X = _normal_samples(X, y)
        first = not hasattr(self, "location_")
        embeddings, grid = self._check_embeddings(X, min_samples=1, fitted=not first)
        if first:
            self._record_input(X, grid)
            return self._set_state(state_of(embeddings, self.solver), grid)
        # Into new arrays: those from before may be in somebody else's hands.
        before = self._state(embeddings.device)
        return self._set_state(before.copy().update(embeddings), grid)

    def merge(self, other):
        """Add what another estimator has learned from other samples.

        Parameters
        ----------
        other : PatchGaussian
            Fitted on embeddings of the same shape; left as it is.

        Returns
        -------
        self : PatchGaussian
            As if fitted on both sets of samples, with this one's parameters and without a
            threshold (see :meth:`calibrate`).
        """
        check_is_fitted(self)
        check_is_fitted(other)
        if self.location_.shape != other.location_.shape:
            raise ValueError(
                f"Only Gaussians of the same shape can be merged: this one has {_layout(self)}, "
                f"the other has {_layout(other)}."
            )
        cpu = torch.device("cpu")
        state = self._state(cpu).copy().merge(other._state(cpu))
        return self._set_state(state, self.location_.shape[:-1])

    def calibrate(self, X):
        """Set the threshold from normal samples that the model has not seen.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)
            Normal samples, held out.

        Returns
        -------
        self : PatchGaussian
            :attr:`offset_` is such that at most the share `contamination` of new normal samples
            falls below it (conformal quantile).
        """
        self._validate_params()
        self.offset_ = conformal_offset(_numpy(self.score_samples(X)), self.contamination)
        return self

    def mahalanobis(self, X):
        """Distance of each patch to its position's Gaussian; higher is more anomalous.

        Unlike scikit-learn's ``EllipticEnvelope.mahalanobis``, distances are not squared.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)

        Returns
        -------
        distances : array or tensor of shape (n_samples, height, width) or (n_samples,)
            Non-negative; a tensor on its device if `X` was one.
        """
        check_is_fitted(self)
        embeddings, grid = self._check_embeddings(X, min_samples=1, fitted=True)
        distances = self._distances(embeddings).reshape(len(embeddings), *grid)
        return distances if isinstance(X, torch.Tensor) else distances.numpy()

    def score_samples(self, X):
        """Score of each sample; higher is more normal.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)

        Returns
        -------
        scores : array or tensor of shape (n_samples,)
            Minus the largest distance over the positions.
        """
        distances = self.mahalanobis(X)
        largest = distances.reshape(len(distances), -1).max(1)
        return -(largest.values if isinstance(distances, torch.Tensor) else largest)

    def decision_function(self, X):
        """Score of each sample above the threshold: negative is anomalous.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)

        Returns
        -------
        decision : array or tensor of shape (n_samples,)
            ``score_samples(X) - offset_``.
        """
        check_is_fitted(self)
        check_has_threshold(self)
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Label of each sample: +1 normal, -1 anomalous.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
        """
        return np.where(_numpy(self.decision_function(X)) >= 0, 1, -1)

    @property
    def covariance_(self):
        """Covariance at each position, ``S / (n_samples_seen_ - 1) + regularization * I``."""
        check_is_fitted(self)
        degrees_of_freedom = max(self.n_samples_seen_ - 1, 1)
        identity = np.eye(self.location_.shape[-1])
        scatter = getattr(self, "scatter_", None)
        if scatter is None:
            centred = np.moveaxis(self.samples_ - self.location_, 0, -2)
            scatter = centred.swapaxes(-1, -2) @ centred
        return scatter / degrees_of_freedom + self.regularization * identity

    def _check_embeddings(self, X, *, min_samples, fitted=False):
        """Return X as a tensor (n_samples, n_positions, n_features) and the shape of its grid."""
        if isinstance(X, torch.Tensor) and X.ndim in (2, 4):
            if not X.is_floating_point():
                raise TypeError(f"X must be a tensor of floats; its dtype is {X.dtype}.")
            X = X.detach()
            if X.dtype not in (torch.float32, torch.float64):
                X = X.to(torch.float32)  # half precision cannot be factorised
            if not torch.isfinite(X).all():
                raise ValueError("X has NaN or infinite values.")
            if len(X) < min_samples:
                raise ValueError(f"X has n_samples={len(X)}; at least {min_samples} are needed.")
        elif isinstance(X, torch.Tensor):
            pass  # refused below
        elif fitted and self.location_.ndim == 1:
            X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        else:
            X = check_array(
                X,
                dtype=[np.float64, np.float32],
                allow_nd=True,
                ensure_min_samples=min_samples,
                estimator=self,
                input_name="X",
            )
        if X.ndim not in (2, 4):
            raise ValueError(
                f"X has {X.ndim} dimensions, {tuple(X.shape)}: embeddings must be "
                "(n_samples, height, width, n_features) or (n_samples, n_features)."
            )
        if 0 in X.shape[1:]:
            raise ValueError(f"X has shape {tuple(X.shape)}: it has no features or positions.")
        grid = tuple(X.shape[1:-1])
        if fitted and tuple(X.shape[1:]) != self.location_.shape:
            raise ValueError(
                f"X has embeddings of shape {tuple(X.shape[1:])}, but {type(self).__name__} was "
                f"fitted with {self.location_.shape} as (height, width, n_features)."
            )
        tensor = X if isinstance(X, torch.Tensor) else _tensor(X)
        return tensor.reshape(len(X), -1, X.shape[-1]), grid

    def _record_input(self, X, grid):
        """Store what scikit-learn keeps of the input: number and names of the features."""
        if grid or isinstance(X, torch.Tensor):
            self.n_features_in_ = int(np.shape(X)[-1])
            vars(self).pop("feature_names_in_", None)
        else:
            validate_data(self, X, skip_check_array=True)

    def _state(self, device):
        """Moments or samples on `device`; on the CPU they share memory with the fitted arrays."""
        n_features = self.location_.shape[-1]
        if hasattr(self, "samples_"):
            rows = _tensor(self.samples_).reshape(self.n_samples_seen_, -1, n_features)
            limit = None if self.solver == "low_rank" else n_features
            return Samples(rows, limit).to(device)
        return Moments(
            self.n_samples_seen_,
            _tensor(self.location_).reshape(-1, n_features),
            _tensor(self.scatter_).reshape(-1, n_features, n_features),
        ).to(device)

    def _set_state(self, state, grid):
        """Store a state as NumPy arrays and forget the threshold of the model before."""
        for attribute in ("offset_", "training_scores_", "scatter_", "samples_"):
            vars(self).pop(attribute, None)
        mean = state.mean
        n_features = mean.shape[-1]
        self.n_samples_seen_ = state.count
        self.location_ = mean.numpy(force=True).reshape(*grid, n_features)
        if isinstance(state, Samples):
            self.samples_ = state.rows.numpy(force=True).reshape(-1, *grid, n_features)
        else:
            scatter = state.scatter.numpy(force=True)
            self.scatter_ = scatter.reshape(*grid, n_features, n_features)
        self._factors = {}
        return self

    def _training_distances(self, state, embeddings):
        """Distances (n_samples, n_positions) of the samples that the state is made of."""
        check_enough_samples(state.count, self.calibration)
        if isinstance(state, Samples):
            leave_one_out = self.calibration == "leave_one_out"
            return low_rank_training_distances(state, self.regularization, leave_one_out)
        distances = TrainingDistances(
            state, self.regularization, self.calibration, embeddings.dtype
        )
        return distances(embeddings)

    def _threshold(self, scores):
        """Fitted attributes that follow from the scores of the training samples."""
        conformal = self.calibration == "leave_one_out"
        set_offset = conformal_offset if conformal else training_offset
        return {"training_scores_": scores, "offset_": set_offset(scores, self.contamination)}

    def _distances(self, embeddings, dtype=None):
        """Distances of a tensor of embeddings; the factors are built on first use."""
        if self.n_samples_seen_ < 2:
            raise ValueError(
                "The Gaussians have seen n_samples=1: give partial_fit at least one more."
            )
        dtype = dtype or embeddings.dtype
        key = (embeddings.device, dtype, self.regularization)
        if key not in self._factors:
            self._factors.clear()
            state = self._state(embeddings.device)
            self._factors[key] = whitening_of(state, self.regularization, dtype)
        return self._factors[key].distances(embeddings)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "location_")

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_factors", None)
        if "scatter_" in state:
            # The scatter is symmetric: one triangle of it halves the model file.
            rows, columns = np.tril_indices(self.scatter_.shape[-1])
            state["scatter_"] = self.scatter_[..., rows, columns]
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        self._factors = {}
        if "scatter_" in state:
            n_features = self.location_.shape[-1]
            rows, columns = np.tril_indices(n_features)
            triangle, self.scatter_ = self.scatter_, np.empty((*self.location_.shape, n_features))
            self.scatter_[..., rows, columns] = triangle
            self.scatter_[..., columns, rows] = triangle


def _normal_samples(X, y):
    """The samples that are not labelled -1."""
    # On feature matrices any y may come along, a regression's in a pipeline say.
    if y is None or not are_labels(y):
        return X
    labels = check_labels(y, _num_samples(X))
    return X if (labels == 1).all() else _safe_indexing(X, np.flatnonzero(labels == 1))


def check_has_threshold(estimator):
    """Raise an error that says how to get a threshold, where there is none."""
    if not hasattr(estimator, "offset_"):
        raise AttributeError(
            f"This {type(estimator).__name__} has no threshold: partial_fit, merge and "
            "calibration=None leave it open. Call calibrate with normal samples that it has not "
            "seen; score_samples needs no threshold."
        )


def _layout(gaussian):
    *grid, n_features = gaussian.location_.shape
    return f"{' x '.join(map(str, grid)) or '1'} positions with {n_features} features"


def _tensor(array):
    """Tensor that shares memory with an array, unless torch cannot (memory maps, flips)."""
    shareable = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    return torch.from_numpy(array if shareable else array.copy())


def _numpy(array):
    return array.numpy(force=True) if isinstance(array, torch.Tensor) else array
