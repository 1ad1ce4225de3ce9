"""PadimDetector: streams images through embedding, Gaussians, anomaly map and threshold."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real

import numpy as np
import torch
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from skpadim._anomaly_map import anomaly_maps, image_scores
from skpadim._calibration import conformal_offset
from skpadim._embedding import (
    EMBEDDING_CONSTRAINTS,
    MODEL_PARAMETERS,
    PatchEmbedder,
    check_unchanged,
)
from skpadim._gaussian import PatchGaussian, check_has_threshold
from skpadim._images import Images
from skpadim._labels import check_labels
from skpadim._leave_out import (
    TrainingDistances,
    check_enough_samples,
    low_rank_training_distances,
)
from skpadim._moments import Moments, Samples
from skpadim._persistence import VersionedStateMixin

# Embeddings of more images than features are gathered before they are added to the moments, which
# then are read and written less often, and if all of the training set fits, calibration needs no
# second pass. The buffer is as large as the moments themselves, and no larger than this.
_MAX_CHUNK_BYTES = 2**30


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
        state, embeddings = _learn_state(embedder, images)
        scores = self._score_training_images(embedder, images, state, embeddings)
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
            state, _ = _learn_state(embedder, images)
            return self._store(embedder, state, None)
        embedder = self._fitted_embedder()
        state, _ = _learn_state(embedder, images)
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
        return (maps.numpy(force=True) for maps in self._iter_maps(Images(X)))

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
        return np.concatenate(
            [-image_scores(maps).numpy(force=True) for maps in self._iter_maps(Images(X))]
        )

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

    def _score_training_images(self, embedder, images, state, embeddings):
        """Scores of the training images that the threshold is set from; None without one.

        `embeddings` are those of all training images, or None if there are too many to keep: the
        images go through the network once more then.
        """
        if self.calibration is None:
            return None
        check_enough_samples(state.count, self.calibration)
        if isinstance(state, Samples):
            leave_one_out = self.calibration == "leave_one_out"
            distances = low_rank_training_distances(state, self.regularization, leave_one_out)
            batches = distances.split(self.batch_size)
        else:
            measure = TrainingDistances(state, self.regularization, self.calibration, torch.float32)
            if embeddings is None:
                images = embedder.iter_embeddings(images, "Calibrating (second pass)")
                batches = (measure(_flat(batch)) for batch in images)
            else:
                batches = measure(embeddings).split(self.batch_size)
        maps = (self._to_maps(batch, embedder) for batch in batches)
        return np.concatenate([-image_scores(batch).numpy(force=True) for batch in maps])

    def _iter_maps(self, images) -> Iterator[torch.Tensor]:
        """Yield anomaly maps batch by batch, as tensors on the device."""
        embedder = self._fitted_embedder()
        dtype = torch.float32 if self.precision == "float32" else torch.bfloat16
        for embeddings in embedder.iter_embeddings(images, "Scoring"):
            yield self._to_maps(self.gaussian_._distances(_flat(embeddings), dtype), embedder)

    def _to_maps(self, distances, embedder):
        """Distances (n_samples, n_positions) to maps (n_samples, height, width)."""
        grids = distances.reshape(len(distances), *embedder.grid_)
        return anomaly_maps(grids, embedder.input_size_, float(self.sigma))

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


def _learn_state(embedder, images):
    """Moments or samples of the images' embeddings, and the embeddings if all of them are kept."""
    n_images, n_features = len(images), embedder.n_features_out_
    bytes_per_image = 4 * embedder.grid_[0] * embedder.grid_[1] * n_features
    if n_images <= n_features:
        chunk_size = n_images
    else:
        moments_bytes = 2 * n_features * bytes_per_image  # float64 scatters
        chunk_bytes = min(moments_bytes, _MAX_CHUNK_BYTES)
        chunk_size = min(n_images, max(embedder.batch_size, chunk_bytes // bytes_per_image))
    chunk = moments = None
    filled = 0
    for batch in embedder.iter_embeddings(images, "Fitting"):
        if chunk is None:
            chunk = _flat(batch).new_empty((chunk_size, *_flat(batch).shape[1:]))
        if filled + len(batch) > chunk_size:
            moments = _add(moments, chunk[:filled])
            filled = 0
        chunk[filled : filled + len(batch)] = _flat(batch)
        filled += len(batch)
    if n_images <= n_features:
        return Samples(chunk, limit=n_features), chunk
    all_fit = moments is None
    moments = _add(moments, chunk[:filled])
    return moments, chunk if all_fit else None


def _add(moments, embeddings):
    return Moments.of(embeddings) if moments is None else moments.update(embeddings)


def _flat(embeddings):
    """(n_samples, height, width, n_features) to (n_samples, n_positions, n_features)."""
    return embeddings.reshape(len(embeddings), -1, embeddings.shape[-1])
