"""PadimDetector: embedding, Gaussians, anomaly map and threshold in one estimator."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from skpadim._calibration import conformal_offset
from skpadim._devices import resolve_device
from skpadim._embedding import (
    EMBEDDING_CONSTRAINTS,
    MODEL_PARAMETERS,
    PatchEmbedder,
    check_unchanged,
)
from skpadim._gaussian import PatchGaussian, check_has_threshold
from skpadim._images import Images
from skpadim._labels import check_labels
from skpadim._learning import learn_state, score_training_images
from skpadim._persistence import VersionedStateMixin
from skpadim._scoring import MapMaker, iter_map_batches, score_images


class PadimDetector(VersionedStateMixin, OutlierMixin, BaseEstimator):
    """Find defective images, and where they are defective, after seeing good ones.

    PaDiM [1]_: a frozen network turns each image into a grid of patch embeddings; at each
    position a Gaussian is fitted over the training images; a new image is scored position by
    position with the Mahalanobis distance. The distances, upsampled and smoothed, are the
    anomaly map, and its maximum is the image's score.

    Images are streamed: the memory needed does not grow with their number.

    Parameters
    ----------
    backbone : str, Backbone or nn.Module, default="auto"
        The network, by name; see :func:`skpadim.backbones.load_backbone`. "auto" is resnet18 with
        ImageNet weights if they are on this machine or can be fetched, else the filter bank, with
        a warning; :attr:`backbone_` records which.
    weights : {"imagenet"}, path or None, default="imagenet"
        Weights of a network of torchvision: ImageNet's, those of a state dict
        (``.safetensors`` or ``.pth``), or None for random ones.
    layers : "auto" or sequence of str, default="auto"
        Layers of the network, from fine to coarse; every backbone offers "layer1" to "layer3".
        "auto" is all three, as in the paper.
    n_features : "auto", int or None, default="auto"
        Length of an embedding. "auto" is the paper's: 100 (resnet18 and other networks), 550
        (wide_resnet50_2), all of the filter bank's; None keeps all features of the layers.
    projection : {"random", "semi_orthogonal"}, default="random"
        How features are reduced: a random selection, as in the paper, or a random semi-orthogonal
        projection.
    image_size : int or (height, width), default=256
        Images are resized to this many pixels; an int means a square, whatever the image's shape.
    crop_size : int or (height, width) or None, default=224
        The centre that is kept of the resized image; None keeps it whole. What lies outside is
        not inspected.
    regularization : float, default=0.01
        The paper's ε: added to the diagonal of each covariance, in the features' units squared.
    sigma : float, default=4.0
        Standard deviation of the Gaussian that smooths the map, in pixels of the network's input.
    contamination : float, default=0.05
        Share of new good images that :meth:`predict` may flag, in (0, 0.5]; with
        ``calibration="training"`` the share of the training images that it flags.
    calibration : {"leave_one_out", "training"} or None, default="leave_one_out"
        Which scores of the training images set the threshold: those under a model fitted without
        the image (in closed form, without refits), or those under the model itself, which flags
        more of the new good images than asked for, often most of them. None sets no threshold.
    batch_size : int, default=32
        Images that go through the network at a time.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the GPU if there is one, else the CPU.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Of the network's arithmetic. In half precision the factors of the covariances are held in
        bfloat16 too, where there are more images than features. All else is computed in float32
        or better.
    compile : bool, default=False
        Compile the network with :func:`torch.compile`: tens of seconds at first use, for some
        percent of speed afterwards.
    n_jobs : int or None, default=None
        Processes that images are shared out to, in fits and in scoring; each holds a network and
        scores with a copy of the Gaussians. None means 1, and under
        :func:`joblib.parallel_config` all workers of the engine that is set there: a Dask, Ray or
        Spark cluster works so. -1 means all processors. Results differ by rounding only.
    memory : str, path, joblib.Memory or None, default=None
        A folder in which the feature maps of every image are kept, by content: in a grid search
        an image then goes through the network once, whatever the folds and candidates. See the
        notes of :class:`PatchEmbedder`.
    random_state : int, RandomState or None, default=None
        Draws the features (and random weights). With an int, fits are repeatable.
    verbose : int, default=0
        Above 0, show progress bars if the standard error is a terminal.

    Attributes
    ----------
    backbone_ : str
        Name of the network that is used.
    layers_ : tuple of str
        Layers that are used.
    embedder_ : PatchEmbedder
        Turns images into embeddings.
    gaussian_ : PatchGaussian
        The Gaussian at each position.
    n_samples_seen_ : int
        Number of training images.
    training_scores_ : ndarray of shape (n_samples,)
        Scores of the training images that :meth:`fit` set the threshold from, higher is more
        normal.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``. Not there after
        :meth:`partial_fit`, or with ``calibration=None``: see :meth:`calibrate`.

    See Also
    --------
    PatchEmbedder, PatchGaussian : The two halves, to be used in a pipeline.

    Notes
    -----
    Wherever images are asked for, `X` may be an array (n, height, width, 3) or (n, height,
    width), uint8 or float in [0, 1]; a tensor (n, 3, height, width); a list, array, Series or
    DataFrame column of paths; a list of PIL images or arrays, of any sizes; or the path of a
    folder, whose images are taken in sorted order.

    A fitted detector holds all that scoring needs, the network up to its deepest layer included.

    References
    ----------
    .. [1] Defard, Setkov, Loesch & Audigier, "PaDiM: a Patch Distribution Modeling Framework for
       Anomaly Detection and Localization", arXiv 2011.08785.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim import PadimDetector
    >>> rng = np.random.default_rng(0)
    >>> good = rng.uniform(0.4, 0.6, size=(30, 64, 64))
    >>> new = rng.uniform(0.4, 0.6, size=(2, 64, 64))
    >>> new[1, 20:30, 30:40] = 0.9                          # a defect in the second image
    >>> detector = PadimDetector("filter_bank", image_size=64, crop_size=None).fit(good)
    >>> detector.predict(new)
    array([ 1, -1])
    >>> detector.anomaly_map(new).shape
    (2, 64, 64)
    """

    _parameter_constraints = {
        **EMBEDDING_CONSTRAINTS,
        **PatchGaussian._parameter_constraints,
        "sigma": [Interval(Real, 0, None, closed="left")],
        "n_jobs": [Integral, None],
    }

    def __init__(
        self,
        backbone="auto",
        *,
        weights="imagenet",
        layers="auto",
        n_features="auto",
        projection="random",
        image_size=256,
        crop_size=224,
        regularization=0.01,
        sigma=4.0,
        contamination=0.05,
        calibration="leave_one_out",
        batch_size=32,
        device="auto",
        precision="float32",
        compile=False,
        n_jobs=None,
        memory=None,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.layers = layers
        self.n_features = n_features
        self.projection = projection
        self.image_size = image_size
        self.crop_size = crop_size
        self.regularization = regularization
        self.sigma = sigma
        self.contamination = contamination
        self.calibration = calibration
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.compile = compile
        self.n_jobs = n_jobs
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Learn from good images.

        Parameters
        ----------
        X : images
            At least two, three for ``calibration="leave_one_out"``; see Notes.
        y : array-like of shape (n_samples,), default=None
            +1 good, -1 defective: images labelled -1 are left out. None means that all are good.

        Returns
        -------
        self : PadimDetector
            If an error is raised, the detector is left as it was.
        """
        self._validate_params()
        images = _good_images(X, y, min_images=2)
        embedder = self._make_embedder().fit()
        state, embeddings = learn_state(embedder, images, self.n_jobs)
        scores = score_training_images(
            embedder,
            images,
            state,
            embeddings,
            regularization=self.regularization,
            sigma=float(self.sigma),
            calibration=self.calibration,
            n_jobs=self.n_jobs,
        )
        return self._store(embedder, state, scores)

    def partial_fit(self, X, y=None):
        """Learn from more good images, as if they had been given to one fit.

        The threshold is dropped, since the model is another one now; :meth:`calibrate` sets it.

        Parameters
        ----------
        X : images
            One or more; see Notes.
        y : array-like of shape (n_samples,), default=None
            As in :meth:`fit`.

        Returns
        -------
        self : PadimDetector
            If an error is raised, the detector is left as it was.
        """
        self._validate_params()
        images = _good_images(X, y)
        if not self.__sklearn_is_fitted__():
            embedder = self._make_embedder().fit()
            state, _ = learn_state(embedder, images, self.n_jobs)
            return self._store(embedder, state, None)
        embedder = self._fitted_embedder()
        state, _ = learn_state(embedder, images, self.n_jobs)
        # Into the new arrays: should this be interrupted, the model from before is whole.
        state = state.merge(self.gaussian_._state(state.mean.device))
        return self._store(embedder, state, None)

    def calibrate(self, X):
        """Set the threshold from good images that the model has not seen.

        Parameters
        ----------
        X : images
            Good ones, held out; see Notes.

        Returns
        -------
        self : PadimDetector
            At most the share `contamination` of new good images is flagged from now on.
        """
        self._validate_params()
        self.offset_ = conformal_offset(self.score_samples(X), self.contamination)
        return self

    def anomaly_map(self, X):
        """Anomaly map of each image: higher is more anomalous.

        Parameters
        ----------
        X : images
            See Notes.

        Returns
        -------
        maps : ndarray of shape (n_samples, height, width), float32
            Smoothed Mahalanobis distances at the resolution of the network's input
            (`image_size` after `crop_size`).
        """
        check_is_fitted(self)
        images = Images(X)
        maps = np.empty((len(images), *self.embedder_.input_size_), dtype=np.float32)
        done = 0
        for batch in self.iter_anomaly_maps(images):
            maps[done : done + len(batch)] = batch
            done += len(batch)
        return maps

    def iter_anomaly_maps(self, X) -> Iterator[np.ndarray]:
        """Anomaly maps batch by batch, for more images than their maps fit in memory.

        Parameters
        ----------
        X : images
            See Notes.

        Yields
        ------
        maps : ndarray of shape (n_batch, height, width), float32
            As :meth:`anomaly_map` gives them, at most `batch_size` at a time.
        """
        check_is_fitted(self)
        return iter_map_batches(self._map_maker(), Images(X), self.n_jobs, "Scoring")

    def score_samples(self, X):
        """Score of each image: higher is more normal.

        Parameters
        ----------
        X : images
            See Notes.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float32
            Minus the maximum of the anomaly map.
        """
        check_is_fitted(self)
        return score_images(self._map_maker(), Images(X), self.n_jobs, "Scoring")

    def decision_function(self, X):
        """Score of each image above the threshold: negative is anomalous.

        Parameters
        ----------
        X : images
            See Notes.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``.
        """
        check_is_fitted(self)
        check_has_threshold(self)
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Label of each image: +1 good, -1 anomalous.

        Parameters
        ----------
        X : images
            See Notes.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def _make_embedder(self):
        """A PatchEmbedder with this detector's parameters."""
        parameters = self.get_params(deep=False)
        names = PatchEmbedder._get_param_names()
        return PatchEmbedder(**{name: parameters[name] for name in names})

    def _fitted_embedder(self):
        """The fitted embedder, told the current values of what it does not depend on."""
        self._validate_params()
        check_unchanged(self, self._fitted_parameters)
        names = ("batch_size", "device", "compile", "memory", "verbose")
        return self.embedder_.set_params(**{name: getattr(self, name) for name in names})

    def _map_maker(self):
        """All that scoring needs, for the device that is asked for."""
        embedder = self._fitted_embedder()
        device = resolve_device(self.device, fall_back=True)
        dtype = torch.float32 if self.precision == "float32" else torch.bfloat16
        return MapMaker(embedder, self.gaussian_._whitening(device, dtype), float(self.sigma))

    def _store(self, embedder, state, scores):
        """Set the fitted attributes, all at once, when nothing can fail any more."""
        gaussian = PatchGaussian(
            regularization=self.regularization,
            contamination=self.contamination,
            calibration=self.calibration,
        )
        threshold = {} if scores is None else gaussian._threshold(scores)
        gaussian._set_state(state, embedder.grid_)
        gaussian.n_features_in_ = embedder.n_features_out_
        for attribute in ("offset_", "training_scores_"):
            vars(self).pop(attribute, None)
        vars(self).update(threshold)
        self.embedder_, self.gaussian_ = embedder, gaussian
        self.backbone_, self.layers_ = embedder.backbone_, embedder.layers_
        self.n_samples_seen_ = state.count
        names = (*MODEL_PARAMETERS, "regularization", "sigma")
        self._fitted_parameters = {name: getattr(self, name) for name in names}
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "gaussian_")


def _good_images(X, y, min_images=1):
    """The images that are not labelled defective."""
    images = Images(X, min_images=min_images)
    if y is None:
        return images
    good = np.flatnonzero(check_labels(y, len(images)) == 1)
    if len(good) < min_images:
        raise ValueError(f"y labels {len(good)} image as good; at least {min_images} are needed.")
    return images.take(good)
