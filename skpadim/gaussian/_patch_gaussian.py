"""The estimator of one Gaussian per patch position; what it keeps is in `_moments`,
its mathematics in `_mahalanobis`.
"""

from __future__ import annotations

from numbers import Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from skpadim._anomaly_map import anomaly_maps
from skpadim._documentation import DocumentedMixin
from skpadim._persistence import VersionedStateMixin
from skpadim.calibration._outlier_mixin import CalibratedOutlierMixin
from skpadim.calibration._training_samples import (
    are_labels,
    check_groups,
    find_good,
    sample_digests,
)
from skpadim.gaussian._covariances import covariances, variances
from skpadim.gaussian._embedding_checks import as_numpy, as_tensor, check_embeddings
from skpadim.gaussian._leave_one_out import check_enough_samples
from skpadim.gaussian._moments import Moments, Samples
from skpadim.gaussian._sharing import (
    SHARING,
    check_shared_scorable,
    least_pool,
    pooled_means,
    shared_training_distances,
    shared_whitening_of,
    state_to_share,
)
from skpadim.gaussian._shrinkage import chosen_regularization
from skpadim.machine._torch_state import own_torch_state


class PatchGaussian(VersionedStateMixin, DocumentedMixin, CalibratedOutlierMixin, BaseEstimator):
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
    regularization : float or "auto", default=0.01
        The paper's ε: added to the diagonal of each covariance, in the features' units squared.
        "auto" chooses it from the samples' covariances (oracle approximating shrinkage, OAS
        [4]_; the same for all positions), for features of unknown scale; see
        :attr:`regularization_`. Leave-one-out scores are then those under the number that all
        samples chose, the one left out included: of n samples, one has little say in it.
    sharing : {"position", "neighbourhood", "image"}, default="position"
        Which embeddings a Gaussian is fitted to. "position": those at its position, as in the
        paper. "neighbourhood": also those at the up to eight positions around, for few images and
        for parts that shift a little. "image": those at all positions, one Gaussian for all, for
        textures, where one place is like another; what is kept then is one mean and scatter,
        whatever the size of the grid. The last two can be fitted to a single image (two with
        ``calibration="leave_one_out"``, which leaves out all that an image adds).
        Plain two-dimensional data has one position, and nothing to share.
    contamination : float, default=0.05
        In (0, 0.5]. With ``calibration="training"`` the share of the *training* samples that
        :meth:`predict` calls anomalous, as in scikit-learn; of new normal samples it flags more,
        often most. With ``"leave_one_out"``, and after :meth:`calibrate` with held-out samples,
        the share of *new* normal samples that it may flag.
    calibration : {"training", "leave_one_out"} or None, default="training"
        Which scores of the training samples set the threshold. "training": those under the model
        itself, which has seen them, so that they are too good, the more so the fewer samples
        there are beside features. "leave_one_out": those under the model without the sample, or
        without its group (`groups` of :meth:`fit`), in closed form; they are what new samples
        score. None sets no threshold, and :meth:`predict` is not available.
    solver : {"auto", "full", "low_rank"}, default="auto"
        What is kept, and computed with. "full": means and scatters. "low_rank": the samples, whose
        covariance has a rank below their number; the same distances by the Woodbury identity,
        but without bound on the memory. "auto": the samples while there are no more of them than
        features, then means and scatters; distances are computed in the faster of both ways. Where
        positions share Gaussians, these are pooled, and computed with, as means and scatters.

    Attributes
    ----------
    regularization_ : float
        What is added to the diagonals: `regularization`, or what "auto" has chosen.
    location_ : ndarray of shape (height, width, n_features) or (n_features,)
        Mean of the Gaussian at each position; a read-only view with ``sharing="image"``.
    samples_ : ndarray of shape (n_samples, height, width, n_features) or (n_samples, n_features)
        A copy of the samples, where they are kept.
    n_samples_seen_ : int
        Number of samples behind the moments.
    training_scores_ : ndarray of shape (n_samples,)
        Scores of the training samples that :meth:`fit` set the threshold from, higher is more
        normal.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of normal samples under a model that has not seen them, which the threshold and
        :meth:`p_values` come from: the training samples' of ``"leave_one_out"``, or those of the
        samples last given to :meth:`calibrate`. Not there where the training samples' own scores
        set the threshold.
    calibration_groups_ : ndarray of shape (n_calibration,) or None
        Group of each of these samples, as an integer; None if no groups were given.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``. This and the scores it
        comes from are not there after :meth:`partial_fit` or :meth:`merge`, which change the
        model: see :meth:`calibrate`.
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

    Of many samples inspected together, :meth:`predict` flags the share `contamination` of the
    good ones, which may be most of what it flags if few are bad. To bound the share of good ones
    *among the flagged*, the false discovery rate, by 10 % say, use the p-values with the procedure
    of Benjamini and Hochberg, which holds for conformal p-values [3]_::

        flagged = scipy.stats.false_discovery_control(gaussian.p_values(X), method="bh") <= 0.1

    The smallest p-value is 1 / (n + 1) for n calibration samples (or groups), so a few bad samples
    among many can only be flagged if n is large: about 10 n_inspected / n_bad for 10 %.

    References
    ----------
    .. [1] Defard, Setkov, Loesch & Audigier, "PaDiM: a Patch Distribution Modeling Framework for
       Anomaly Detection and Localization", arXiv 2011.08785, sections 3.2 and 3.3.
    .. [2] Woodbury, "Inverting modified matrices", Princeton, 1950.
    .. [3] Bates, Candès, Lei, Romano & Sesia, "Testing for outliers with conformal p-values",
       Annals of Statistics 51, 2023.
    .. [4] Chen, Wiesel, Eldar & Hero, "Shrinkage algorithms for MMSE covariance estimation",
       IEEE Transactions on Signal Processing 58, 2010.

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
        "regularization": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "sharing": [StrOptions(set(SHARING))],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "calibration": [StrOptions({"training", "leave_one_out"}), None],
        "solver": [StrOptions({"auto", "full", "low_rank"})],
    }

    # With metadata routing on, groups given to a search or a pipeline get here by themselves.
    __metadata_request__fit = {"groups": True}

    def __init__(
        self,
        *,
        regularization=0.01,
        sharing="position",
        contamination=0.05,
        calibration="training",
        solver="auto",
    ):
        self.regularization = regularization
        self.sharing = sharing
        self.contamination = contamination
        self.calibration = calibration
        self.solver = solver

    @own_torch_state()
    def fit(self, X, y=None, groups=None):
        """Learn the Gaussians and the threshold.

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features) \
                or (n_samples, n_features)
            Embeddings of normal samples, at least two (three for ``"leave_one_out"``); one less
            where positions share Gaussians.
        y : array-like of shape (n_samples,), default=None
            +1 normal, -1 anomalous: samples labelled -1 are left out. With embeddings of images
            also 0 and 1, as :meth:`PadimDetector.fit` reads them; with plain features any other
            `y` is ignored.
        groups : array-like of shape (n_samples,), default=None
            Label of what each sample shows, a part's number where there are several photographs
            of it. With ``calibration="leave_one_out"`` a sample is scored under the model without
            its whole group, and each group counts as one; at least two samples must be left.
            Other calibrations have no use for it.

        Returns
        -------
        self : PatchGaussian
        """
        self._validate_params()
        X, groups, labels = _normal_samples(X, y, groups)
        min_samples = 1 if _is_of_images(X) and self.sharing != "position" else 2
        embeddings, grid = check_embeddings(self, X, min_samples=min_samples)
        grid = np.ones(grid, dtype=bool)
        sharing = self._sharing_on(grid)
        least = 2 if least_pool(sharing, grid) == 1 else 1
        check_enough_samples(len(embeddings), self.calibration, groups, labels, least)
        state = state_to_share(embeddings, sharing, self.solver, copy=True)
        regularization = chosen_regularization(self.regularization, state, sharing, grid)
        check_shared_scorable(state, sharing, grid, regularization)
        threshold = {}
        if self.calibration is not None:
            groups = groups if self.calibration == "leave_one_out" else None
            distances = shared_training_distances(
                state, embeddings, sharing, grid, regularization, self.calibration, groups
            )
            scores = -as_numpy(distances.amax(dim=1))
            threshold = self._fitted_threshold(scores, groups)
        digests = sample_digests(embeddings)
        self._record_input(X, grid)
        self._set_state(state, grid, sharing, digests, regularization)
        vars(self).update(threshold)
        return self

    @own_torch_state()
    def partial_fit(self, X, y=None):
        """Add a batch of normal samples to the Gaussians.

        The threshold is dropped, since the model is another one now; :meth:`calibrate` sets it.
        Unlike :meth:`fit` this takes what cannot be scored yet, a single sample say, or without
        regularization no more samples than features: scoring raises an error until there are more.

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
        X, _, _ = _normal_samples(X, y)
        first = not hasattr(self, "location_")
        embeddings, grid = check_embeddings(self, X, min_samples=1, fitted=not first)
        grid = np.ones(grid, dtype=bool) if first else self._grid
        digests = sample_digests(embeddings)
        if first:
            sharing = self._sharing_on(grid)
            self._record_input(X, grid)
            state = state_to_share(embeddings, sharing, self.solver, copy=True)
            return self._set_state(state, grid, sharing, digests)
        # Into new arrays: those from before may be in somebody else's hands.
        state, sharing = self._state(embeddings.device).copy(), self._sharing
        if sharing == "image":
            state = state.merge(state_to_share(embeddings, sharing, self.solver, copy=False))
        else:
            state = state.update(embeddings)
        digests = np.concatenate([self._learned_digests(), digests])
        return self._set_state(state, grid, sharing, digests)

    @own_torch_state()
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
        if self._sharing != other._sharing:
            raise ValueError(
                "Only Gaussians that are shared alike can be merged: this one was fitted with "
                f"sharing={self._sharing!r}, the other with {other._sharing!r}."
            )
        cpu = torch.device("cpu")
        state = self._state(cpu).copy().merge(other._state(cpu))
        digests = np.concatenate([self._learned_digests(), other._learned_digests()])
        return self._set_state(state, self._grid, self._sharing, digests)

    @own_torch_state()
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
        embeddings, grid = check_embeddings(self, X, min_samples=1, fitted=True)
        distances = self._distances(embeddings).reshape(len(embeddings), *grid)
        return distances if isinstance(X, torch.Tensor) else distances.numpy()

    def anomaly_map(self, X, size, sigma=4.0):
        """Anomaly map of each image, as :meth:`PadimDetector.anomaly_map` makes it.

        Of a pipeline::

            embeddings = pipeline[:-1].transform(X)
            maps = pipeline[-1].anomaly_map(embeddings, size=pipeline[0].input_size_)

        Parameters
        ----------
        X : array or tensor of shape (n_samples, height, width, n_features)
        size : (int, int)
            Height and width of the maps, in pixels.
        sigma : float, default=4.0
            Standard deviation of the Gaussian that smooths them, in pixels.

        Returns
        -------
        maps : array or tensor of shape (n_samples, height, width)
            Smoothed distances; higher is more anomalous. Their maxima are below the distances that
            :meth:`score_samples` and the threshold go by.
        """
        distances = self.mahalanobis(X)
        if distances.ndim != 3:
            raise ValueError(
                "anomaly_map needs embeddings of images, (n_samples, height, width, n_features); "
                "this PatchGaussian was fitted to plain features."
            )
        maps = anomaly_maps(torch.as_tensor(distances), size, sigma)
        return maps if isinstance(distances, torch.Tensor) else maps.numpy()

    @own_torch_state()
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

    @own_torch_state()
    def _score_held_out(self, X, y, groups):
        """Scores, groups and digests of held-out samples, and the digests of those learned."""
        X, groups, _ = _normal_samples(X, y, groups, any_y=False)
        embeddings, _ = check_embeddings(self, X, min_samples=1, fitted=True)
        scores = -as_numpy(self._distances(embeddings).amax(dim=1))
        return scores, groups, sample_digests(embeddings), self._learned_digests()

    @own_torch_state()
    def get_covariance(self):
        """Covariance at each position, ``S / (n - 1) + regularization_ * I``.

        S is the sum of the outer products of the n centred embeddings that the Gaussian is fitted
        to: n is `n_samples_seen_`, times the number of positions that share it. The model holds one
        triangle of it, or the samples; this is made when it is asked for, in twice the model's
        memory or more.

        Returns
        -------
        covariance : ndarray of shape (height, width, n_features, n_features) or \
                (n_features, n_features), float64
            With ``sharing="image"`` a read-only view of one matrix.
        """
        check_is_fitted(self)
        matrices = covariances(self._state(torch.device("cpu")), self._sharing, self._grid)
        diagonal = np.arange(matrices.shape[-1])
        matrices[:, diagonal, diagonal] += self.regularization_
        return self._at_positions(matrices)

    def _at_positions(self, values):
        """Values (n_gaussians, ...) at each position; a view where all share one Gaussian."""
        shape = *self.location_.shape[:-1], *values.shape[1:]
        if self._sharing == "image":
            return np.broadcast_to(values[0], shape)
        return values.reshape(shape)

    def _record_input(self, X, grid):
        """Store what scikit-learn keeps of the input: number and names of the features."""
        if grid.ndim or isinstance(X, torch.Tensor):
            self.n_features_in_ = int(np.shape(X)[-1])
            vars(self).pop("feature_names_in_", None)
        else:
            validate_data(self, X, skip_check_array=True)

    def _sharing_on(self, grid):
        """Which positions of a grid share a Gaussian; those of plain features are one."""
        if grid.ndim == 0 or self.sharing == "position":
            return "position"
        if self.solver == "low_rank":
            raise ValueError(
                f"sharing={self.sharing!r} pools more samples than low rank has any use for: set "
                "solver='auto', or sharing='position'."
            )
        return self.sharing

    def _state(self, device):
        """Moments or samples on `device`; on the CPU they share memory with the fitted arrays."""
        if self.sharing != self._given_sharing:
            raise ValueError(
                f"sharing={self.sharing!r}, but this {type(self).__name__} was fitted with "
                f"sharing={self._given_sharing!r}: fit it again, or set the parameter back."
            )
        n_features = self.location_.shape[-1]
        if hasattr(self, "samples_"):
            rows = as_tensor(self.samples_).reshape(self.n_samples_seen_, -1, n_features)
            limit = None if self.solver == "low_rank" else n_features
            return Samples(rows, limit).to(device)
        mean, count = self.location_, self.n_samples_seen_
        if self._sharing == "image":  # those of all patches
            mean, count = mean[0, 0], count * mean[..., 0].size
        elif self._sharing == "neighbourhood":
            mean = self._mean
        mean = mean.reshape(-1, n_features)
        return Moments(count, as_tensor(mean), as_tensor(self._scatter)).to(device)

    def _set_state(self, state, grid, sharing, digests=None, regularization=None):
        """Store a state as NumPy arrays and forget the threshold of the model before."""
        if self.regularization == "auto" and regularization is None:  # not chosen yet
            regularization = chosen_regularization("auto", state, sharing, grid)
        self._replace_threshold()
        for attribute in ("_scatter", "samples_", "_mean", "_training_digests"):
            vars(self).pop(attribute, None)
        if digests is not None:
            self._training_digests = digests
        self._sharing, self._given_sharing = sharing, self.sharing
        mean, count = state.mean, state.count
        shape = grid.shape if grid.all() else (1, int(grid.sum()))
        if isinstance(state, Samples):
            self.samples_ = state.rows.numpy(force=True).reshape(-1, *shape, mean.shape[-1])
        else:
            self._scatter = state.scatter.numpy(force=True)  # lower triangles
        if sharing == "neighbourhood":
            if not isinstance(state, Samples):
                self._mean = mean.numpy(force=True)
            mean = pooled_means(mean, grid)
        location = mean.numpy(force=True)
        if sharing == "image":
            count //= int(grid.sum())
            location = np.broadcast_to(location, (*shape, location.shape[-1]))
        self.n_samples_seen_ = count
        self.location_, self._grid = location.reshape(*shape, location.shape[-1]), grid
        self._auto_regularization = regularization if self.regularization == "auto" else None
        self._factors = {}
        return self

    @property
    def regularization_(self):
        """What is added to the diagonals: `regularization`, or the number that "auto" chose."""
        check_is_fitted(self)
        if self.regularization != "auto":
            return float(self.regularization)
        chosen = self._auto_regularization
        if chosen is None:
            state = self._state(torch.device("cpu"))
            chosen = chosen_regularization("auto", state, self._sharing, self._grid)
        if chosen is None:
            raise AttributeError(
                "regularization='auto' has nothing to choose from, of a single sample: give "
                "partial_fit more."
            )
        return chosen

    def _learned_digests(self):
        """Digests of the samples that the model has learned from, as far as they are known."""
        return getattr(self, "_training_digests", np.empty(0, dtype=np.uint64))

    def _distances(self, embeddings):
        """Distances of a tensor of embeddings."""
        device, dtype = embeddings.device, embeddings.dtype
        distances = self._whitening(device, dtype).distances(embeddings)
        if not distances.isfinite().all():  # squares may overflow where distances do not
            exact = self._whitening(device, torch.float64).distances(embeddings.double())
            distances = exact.to(dtype)
            if not distances.isfinite().all():
                raise ValueError(
                    f"X is so far from what {type(self).__name__} has learned, in units of "
                    f"regularization={self.regularization_!r}, that distances overflow {dtype}: "
                    "divide all features by a constant, or use a larger regularization."
                )
        return distances

    def _whitening(self, device, dtype):
        """Factors of the covariances on a device, for products in `dtype`; built on first use."""
        grid = self._grid
        if self.n_samples_seen_ < 2 and least_pool(self._sharing, grid) == 1:
            raise ValueError(
                "The Gaussians have seen n_samples=1: give partial_fit at least one more."
            )
        regularization = self.regularization_
        key = (device, dtype, regularization, self.sharing)
        whitening = self._factors.get(key)  # once: another thread may clear it
        if whitening is None:
            try:
                state = self._state(device)
                whitening = shared_whitening_of(state, self._sharing, grid, regularization, dtype)
            except np.linalg.LinAlgError as error:
                raise ValueError(
                    f"The Gaussians cannot be scored with, having seen n_samples="
                    f"{self.n_samples_seen_}. {error} More samples (partial_fit) may do, too."
                ) from None
            self._factors.clear()
            self._factors[key] = whitening
        return whitening

    def __sklearn_is_fitted__(self):
        return hasattr(self, "location_")

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_factors", None)
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        self._factors = {}


def new_gaussian(
    state: Moments | Samples,
    grid: np.ndarray,
    regularization: float | str,
    sharing: str = "position",
    chosen: float | None = None,
) -> PatchGaussian:
    """An estimator that has learned a state, on a grid of positions; without a threshold.

    Where the grid is not True there is no Gaussian, and the others stand in one row. `chosen` is
    what "auto" has chosen for the state, if that is known.
    """
    gaussian = PatchGaussian(regularization=regularization, sharing=sharing, calibration=None)
    gaussian.n_features_in_ = state.mean.shape[-1]
    return gaussian._set_state(state, grid, sharing, regularization=chosen)


def state_in(gaussian: PatchGaussian, device: torch.device) -> Moments | Samples:
    """What an estimator has learned; on the CPU it shares memory with the fitted arrays."""
    return gaussian._state(device)


def whitening_in(gaussian: PatchGaussian, device: torch.device, dtype: torch.dtype):
    """Factors of an estimator's covariances, for products in `dtype`."""
    return gaussian._whitening(device, dtype)


def variances_in(gaussian: PatchGaussian) -> np.ndarray:
    """Diagonals (*grid, n_features) of the covariances, float64, without making these."""
    values = variances(gaussian._state(torch.device("cpu")), gaussian._sharing, gaussian._grid)
    return gaussian._at_positions(values + gaussian.regularization_)


def on_grid(gaussian: PatchGaussian, values: np.ndarray) -> np.ndarray:
    """Values (..., n) of the positions on the whole grid (height, width, n), NaN where is none."""
    grid = gaussian._grid
    if grid.all():
        return values
    whole = np.full((*grid.shape, values.shape[-1]), np.nan)
    whole[grid] = values.reshape(-1, values.shape[-1])
    return whole


def _normal_samples(X, y, groups=None, any_y=True):
    """The samples that are not labelled -1, their groups, and what the groups are called."""
    names = None
    if groups is not None:
        groups, names = check_groups(groups, _num_samples(X))
    # To a fit on feature matrices any y may come along, a regression's in a pipeline say.
    if y is not None and (not any_y or _is_of_images(X) or are_labels(y)):
        normal = find_good(y, _num_samples(X))
        if len(normal) < _num_samples(X):
            X = _safe_indexing(X, normal)
            groups = groups if groups is None else groups[normal]
    return X, groups, names


def _is_of_images(X):
    """Whether samples are grids of patches."""
    return (X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim) == 4


def _layout(gaussian):
    *grid, n_features = gaussian.location_.shape
    return f"{' x '.join(map(str, grid)) or '1'} positions with {n_features} features"
