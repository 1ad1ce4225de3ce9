"""PadimDetector: embedding, Gaussians, anomaly map and threshold in one estimator."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from numbers import Integral, Real

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from skpadim._documentation import DocumentedMixin
from skpadim._inspection import Criteria, Inspection, iter_inspections
from skpadim._persistence import VersionedStateMixin, package_versions
from skpadim._routing import refuse_metadata
from skpadim._version import __version__
from skpadim.alignment._image_aligner import warn_of_unaligned
from skpadim.calibration._outlier_mixin import CalibratedOutlierMixin, needs_threshold
from skpadim.calibration._training_samples import check_groups, find_good
from skpadim.embedding._parameters import (
    EMBEDDING_CONSTRAINTS,
    MODEL_PARAMETERS,
    check_unchanged,
)
from skpadim.embedding._patch_embedder import PatchEmbedder
from skpadim.gaussian._leave_one_out import check_enough_samples
from skpadim.gaussian._patch_gaussian import (
    PatchGaussian,
    new_gaussian,
    state_in,
    whitening_in,
)
from skpadim.gaussian._sharing import check_shared_scorable, least_pool
from skpadim.gaussian._shrinkage import chosen_regularization
from skpadim.images._batches import Images, image_parts
from skpadim.images._tags import TakesImagesMixin
from skpadim.images._unreadable import UnreadableImageError, warned_of
from skpadim.machine._devices import available_device, resolve_device
from skpadim.machine._torch_state import own_torch_state
from skpadim.regions._table import join_tables
from skpadim.streaming._chunks import size_of_parts
from skpadim.streaming._learning import image_digests, learn, score_training_images
from skpadim.streaming._scoring import MapMaker, iter_map_batches, score_images


class PadimDetector(
    VersionedStateMixin, DocumentedMixin, TakesImagesMixin, CalibratedOutlierMixin, BaseEstimator
):
    """Find defective images, and where they are defective, after seeing good ones.

    PaDiM [1]_: a frozen network turns each image into a grid of patch embeddings; at each
    position a Gaussian is fitted over the training images; a new image is scored position by
    position with the Mahalanobis distance. The distances, upsampled and smoothed, are the
    anomaly map, and its maximum is the image's score.

    Images are streamed: the memory needed does not grow with their number.

    Parameters
    ----------
    backbone : str, Backbone or nn.Module, default="auto"
        The network, by name; see :func:`skpadim.backbones.load_backbone`. "auto" is
        "efficientnet_lite0", whose ImageNet weights are installed with skpadim. The paper's are
        "resnet18" and "wide_resnet50_2"; "filter_bank" is the fastest, and needs no weights.
        ``"timm/<name>"`` is a network of timm.
    weights : {"imagenet"}, path or None, default="imagenet"
        Weights of the network: ImageNet's (timm's own), those of a state dict (``.safetensors`` or
        ``.pth``), or None for random ones.
    layers : "auto" or sequence of str, default="auto"
        Layers of the network, from fine to coarse; every backbone offers "layer1" to "layer3".
        "auto" is all three, as in the paper, and "layer2" and "layer4" of an EfficientNet-Lite.
    n_features : "auto", int or None, default="auto"
        Length of an embedding. "auto" is the paper's: 100 (resnet18 and other networks), 550
        (wide_resnet50_2), all of the filter bank's and of an EfficientNet-Lite's; None keeps all
        features of the layers.
    projection : {"random", "semi_orthogonal"}, default="random"
        How features are reduced: a random selection, as in the paper, or a random semi-orthogonal
        projection.
    image_size : int or (height, width), default=256
        Images are resized to this many pixels; an int means a square, whatever the image's shape.
    crop_size : int or (height, width) or None, default=None
        The centre that is kept of the resized image; what lies outside is not inspected. None
        keeps it whole; the paper's is 224.
    keep_aspect_ratio : bool, default=False
        Resize the shorter side to `image_size`, a number, and the other so that the proportions of
        the training images are kept. All images must have them, within 2 %; others are refused.
    align : {"translation", "rigid", "similarity"}, ImageAligner or None, default=None
        Bring parts that are shifted, turned or of another size to one place, by an
        :class:`ImageAligner` that learns where from the training images. One that is given is
        cloned; its `image_size` is this one's. What then lies outside of an image plays no part in
        scores, maps lie as the images do, and their pixels are NaN where the reference has nothing.
        Training images that cannot be aligned are left out, others are scored as they lie, with a
        warning.
    roi : array, path, PIL image, list of polygons or None, default=None
        Region of interest: what lies outside is not inspected. It has no Gaussians, and plays no
        part in scores, threshold and regions; its pixels are NaN in maps, and count in no metric.
        A bool array (height, width) that is True inside; an image that is black outside and white
        inside; both of the size of the training images, or of `image_size`. Or polygons, each a
        list of corners (x, y) in pixels of the training images. With `align` it lies where the
        reference has it. The network sees the region on a ground of its mean colour, so that
        nothing outside has any influence.
    tile_size : int or (height, width) or None, default=None
        For small defects in large photographs: the network sees tiles of this many pixels of an
        image of `image_size`, one after the other, which overlap by 64 pixels or half. There is a
        Gaussian for each place of the whole image, and one map of it, as without tiles. What is
        learned lies in temporary files and is worked on in parts, so that 12 megapixels take
        less than 6 GB; see the guide, "Large images". Sizes must be multiples of the stride of the
        coarsest layer. `n_jobs` has no effect, and Gaussians are computed on the CPU. 256 to 512
        are usual.
    regularization : float or "auto", default=0.01
        The paper's ε: added to the diagonal of each covariance, in the features' units squared.
        "auto" chooses it from the samples' covariances (oracle approximating shrinkage, OAS
        [3]_; the same for all positions), for features of unknown scale; see
        :attr:`regularization_`. Leave-one-out scores are then those under the number that all
        samples chose, the one left out included: of n samples, one has little say in it.
    sharing : {"position", "neighbourhood", "image"}, default="position"
        Which embeddings a Gaussian is fitted to. "position": those at its position, as in the
        paper. "neighbourhood": also those at the up to eight positions around, for few images and
        for parts that shift a little. "image": those at all positions, one Gaussian for all, for
        textures, where one place is like another; what is kept then is one mean and scatter,
        whatever the size of the grid. The last two can be fitted to a single image (two with
        ``calibration="leave_one_out"``, which leaves out all that an image adds).
    sigma : float, default=4.0
        Standard deviation of the Gaussian that smooths the map, in pixels of the network's input.
    contamination : float, default=0.05
        In (0, 0.5]. With ``calibration="leave_one_out"``, and after :meth:`calibrate` with held-out
        images, the share of *new* good images that :meth:`predict` may flag. With
        ``calibration="training"`` the share of the *training* images that it flags, as elsewhere
        in scikit-learn; of new good images it flags more, often most.
    calibration : {"leave_one_out", "training"} or None, default="leave_one_out"
        Which scores of the training images set the threshold. "leave_one_out": those under a model
        fitted without the image, or without its group (`groups` of :meth:`fit`), in closed form,
        without refits. "training": those under the model itself, which has seen them, so that
        they are too good. None sets no threshold, and :meth:`predict` is not available.
    batch_size : int, default=32
        Images that go through the network at a time.
    device : str or torch.device, default="auto"
        Where to compute; "auto" is the GPU if there is one, else the CPU.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Of the network's arithmetic, float32 on a CPU without instructions for it. In half precision
        the factors of the covariances are held in bfloat16 too, where there are more images than
        features. All else is computed in float32 or better.
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
    aligner_ : ImageAligner or None
        What images are aligned by; ``aligner_.measure(X)`` says where their parts lie.
    roi_ : ndarray of shape (height, width), bool, or None
        `roi` in the pixels of maps.
    gaussian_ : PatchGaussian
        The Gaussian at each position; with `roi` those inside, in one row.
    regularization_ : float
        What is added to the diagonals: `regularization`, or what "auto" has chosen.
    n_samples_seen_ : int
        Number of training images.
    training_scores_ : ndarray of shape (n_samples,)
        Scores of the training images that :meth:`fit` set the threshold from, higher is more
        normal.
    calibration_scores_ : ndarray of shape (n_calibration,)
        Scores of good images under a model that has not seen them, which the threshold and
        :meth:`p_values` come from: the training images' of ``"leave_one_out"``, or those of the
        images last given to :meth:`calibrate`. Not there where the training images' own scores
        set the threshold.
    calibration_groups_ : ndarray of shape (n_calibration,) or None
        Group of each of these images, as an integer; None if no groups were given.
    offset_ : float
        Threshold: ``decision_function(X) = score_samples(X) - offset_``. This and the scores it
        comes from are not there after :meth:`partial_fit`, or with ``calibration=None``: see
        :meth:`calibrate`.

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

    A pipeline that ends in a detector gives maps by its parts::

        pipeline[-1].anomaly_map(pipeline[:-1].transform(X))

    Of many images inspected together, :meth:`predict` flags the share `contamination` of the good
    ones, which may be most of what it flags if few are bad. To bound the share of good ones *among
    the flagged*, the false discovery rate, by 10 % say, use the p-values with the procedure of
    Benjamini and Hochberg, which holds for conformal p-values [2]_::

        flagged = scipy.stats.false_discovery_control(detector.p_values(X), method="bh") <= 0.1

    The smallest p-value is 1 / (n + 1) for n training images (or groups), so a few bad images among
    very many good ones need many training images to be found in this way.

    References
    ----------
    .. [1] Defard, Setkov, Loesch & Audigier, "PaDiM: a Patch Distribution Modeling Framework for
       Anomaly Detection and Localization", arXiv 2011.08785.
    .. [2] Bates, Candès, Lei, Romano & Sesia, "Testing for outliers with conformal p-values",
       Annals of Statistics 51, 2023.
    .. [3] Chen, Wiesel, Eldar & Hero, "Shrinkage algorithms for MMSE covariance estimation",
       IEEE Transactions on Signal Processing 58, 2010.

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

    # With metadata routing on, groups given to a search or a pipeline get here by themselves.
    __metadata_request__fit = {"groups": True}

    def __init__(
        self,
        backbone="auto",
        *,
        weights="imagenet",
        layers="auto",
        n_features="auto",
        projection="random",
        image_size=256,
        crop_size=None,
        keep_aspect_ratio=False,
        align=None,
        roi=None,
        tile_size=None,
        regularization=0.01,
        sharing="position",
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
        self.keep_aspect_ratio = keep_aspect_ratio
        self.align = align
        self.roi = roi
        self.tile_size = tile_size
        self.regularization = regularization
        self.sharing = sharing
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

    @own_torch_state()
    def fit(self, X, y=None, groups=None, **metadata):
        """Learn from good images.

        Parameters
        ----------
        X : images
            At least two, three for ``calibration="leave_one_out"``; one less with another
            `sharing` than "position". See Notes.
        y : array-like of shape (n_samples,), default=None
            +1 good, -1 defective; or bool, or 0 and 1, 1 (True) for defective, with a warning.
            Defective images are left out. None means that all are good.
        groups : array-like of shape (n_samples,), default=None
            Label of the part that each image shows, where there are several photographs of some:
            with ``calibration="leave_one_out"`` they are left out together. Each would vouch for
            the others otherwise, and the threshold would flag more than `contamination` of new
            parts.
        **metadata : refused
            Masks are, with word of how they get to the scorers of a search.

        Returns
        -------
        self : PadimDetector
            If an error is raised, the detector is left as it was.
        """
        refuse_metadata(f"{type(self).__name__}.fit", metadata)
        self._validate_params()
        least = 2 if self.sharing == "position" else 1
        images, groups, names = _good_images(X, y, groups, min_images=least)
        check_enough_samples(len(images), self.calibration, groups, names, least)
        embedder = self._make_embedder().fit(images)
        images, kept = _aligned(embedder.aligner_, images)
        groups = None if groups is None else groups[kept]
        least = 2 if least_pool(self.sharing, embedder.inspected_) == 1 else 1
        check_enough_samples(len(images), self.calibration, groups, names, least)
        learned = learn(embedder, images, self.n_jobs, self.sharing)
        sharing = self.sharing, embedder.inspected_
        regularization = chosen_regularization(self.regularization, learned.state, *sharing)
        check_shared_scorable(learned.state, *sharing, regularization)
        threshold = {}
        if self.calibration is not None:
            scores = score_training_images(
                embedder,
                images,
                learned,
                sharing=self.sharing,
                regularization=regularization,
                sigma=float(self.sigma),
                calibration=self.calibration,
                groups=groups,
                n_jobs=self.n_jobs,
            )
            threshold = self._fitted_threshold(scores, groups)
        return self._store(embedder, learned.state, learned.digests, threshold, regularization)

    @own_torch_state()
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
        images, _, _ = _good_images(X, y)
        if not self.__sklearn_is_fitted__():
            embedder = self._make_embedder().fit(images)
            images, _ = _aligned(embedder.aligner_, images)
            learned = learn(embedder, images, self.n_jobs, self.sharing)
            return self._store(embedder, learned.state, learned.digests)
        embedder = self._fitted_embedder()
        images, _ = _aligned(embedder.aligner_, images)
        learned = learn(embedder, images, self.n_jobs, self.sharing)
        # Into the new arrays: should this be interrupted, the model from before is whole.
        state = learned.state.merge(state_in(self.gaussian_, learned.state.mean.device))
        digests = np.concatenate([self._training_digests, learned.digests])
        return self._store(embedder, state, digests)

    @needs_threshold
    @own_torch_state()
    def anomaly_mask(self, X, size="model", roi=None):
        """Where each image is defective.

        The map is compared with the threshold of :meth:`predict`, which has a meaning for pixels
        too: it is the level that the map of a new good image exceeds *anywhere* with probability
        `contamination` at most. So a mask has pixels just where :meth:`predict` says -1.

        Parameters
        ----------
        X : images
            See Notes.
        size : {"model", "original"}, default="model"
            As in :meth:`anomaly_map`.
        roi : sequence of length n_samples, default=None
            As in :meth:`score_samples`.

        Returns
        -------
        masks : ndarray of shape (n_samples, height, width), or list of ndarrays, bool
            True where the image is anomalous; of the shapes of :meth:`anomaly_map`.
        """
        check_is_fitted(self)
        images = Images(X, regions=roi)
        if _is_original(size):
            return [inspection.mask for inspection in self._inspections(images)]
        masks = np.empty((len(images), *self.embedder_.input_size_), dtype=bool)
        done = 0
        for maps in self.iter_anomaly_maps(images):
            np.greater(maps, -self.offset_, out=masks[done : done + len(maps)])
            done += len(maps)
        return masks

    @own_torch_state()
    def anomaly_map(self, X, size="model", roi=None):
        """Anomaly map of each image: higher is more anomalous.

        Parameters
        ----------
        X : images
            See Notes.
        size : {"model", "original"}, default="model"
            Of the maps: that of the network's input, `image_size` after `crop_size`; or each
            image's own, whose pixels outside of the crop are NaN.
        roi : sequence of length n_samples, default=None
            As in :meth:`score_samples`.

        Returns
        -------
        maps : ndarray of shape (n_samples, height, width), or list of ndarrays, float32
            Smoothed Mahalanobis distances; with ``size="original"`` a list of arrays
            (height, width), sampled bilinearly. NaN is what is not inspected: outside of `roi`, and
            with `align` where the reference has nothing.
        """
        check_is_fitted(self)
        images = Images(X, regions=roi)
        if _is_original(size):
            return [inspection.anomaly_map for inspection in self._inspections(images)]
        maps = np.empty((len(images), *self.embedder_.input_size_), dtype=np.float32)
        done = 0
        for batch in self.iter_anomaly_maps(images):
            maps[done : done + len(batch)] = batch
            done += len(batch)
        return maps

    def iter_anomaly_maps(self, X, on_error="raise", roi=None) -> Iterator[np.ndarray]:
        """Anomaly maps batch by batch, for more images than their maps fit in memory.

        Parameters
        ----------
        X : images
            See Notes; or an iterator (a generator, for instance) that gives images one by one, of
            which never more are asked for than the next maps need: `batch_size`, or with `n_jobs`
            as many for each of some batches ahead.
        on_error : {"raise", "skip"}, default="raise"
            At images that cannot be read: raise an :class:`~skpadim.UnreadableImageError`, which
            has the `index` and `path` of the first, or fill their maps with NaN, with a warning
            that names each, and go on.
        roi : sequence of length n_samples, default=None
            As in :meth:`score_samples`.

        Yields
        ------
        maps : ndarray of shape (n_batch, height, width), float32
            As :meth:`anomaly_map` gives them, at most `batch_size` at a time.
        """
        return warned_of(iter_maps_and_errors(self, X, on_error, roi))

    @needs_threshold
    def inspect(self, X, min_area=0, on_error="raise", roi=None) -> Iterator[Inspection]:
        """All that there is to say of each image, one after the other.

        Parameters
        ----------
        X : images
            See Notes; or an iterable (a generator, or a camera's own class) that gives images one
            by one. It is asked for the next image when the next inspection is asked for, and not
            before. Images of other kinds are worked on `batch_size` at a time, which is faster.
        min_area : float, default=0
            Regions of fewer pixels are left out of :attr:`Inspection.regions`; the verdict and the
            mask stay.
        on_error : {"raise", "skip"}, default="raise"
            At images that cannot be read: raise an :class:`~skpadim.UnreadableImageError`, or leave
            them out, with a warning that names each.
        roi : sequence of length n_samples, default=None
            As in :meth:`score_samples`.

        Yields
        ------
        inspection : Inspection
            Index, score, verdict and the time that they took; and p-value, map, mask and regions,
            which are computed when they are asked for. It holds the map at the model's size and
            what was given as image: keep of it what you need.

        See Also
        --------
        anomalous_regions : The regions of all images as one table.

        Examples
        --------
        A loop over a camera::

            def frames(camera):
                while True:
                    yield camera.read()                 # an array (height, width, 3), RGB

            for inspection in detector.inspect(frames(camera)):
                if inspection.is_anomalous:
                    line.reject(inspection.index)
                    log(inspection.p_value, inspection.regions)
        """
        check_is_fitted(self)
        if not isinstance(min_area, Real) or not min_area >= 0:
            raise ValueError(f"min_area={min_area!r} must be a number of pixels, 0 or more.")
        return self._inspections(X, min_area, on_error, roi)

    @needs_threshold
    def anomalous_regions(self, X, min_area=0, roi=None) -> pd.DataFrame:
        """The regions of :meth:`anomaly_mask`, in each image's own pixels.

        Parameters
        ----------
        X : images
            See Notes; or an iterable, as for :meth:`inspect`.
        min_area : float, default=0
            Regions of fewer pixels are left out.
        roi : sequence of length n_samples, default=None
            As in :meth:`score_samples`.

        Returns
        -------
        regions : DataFrame
            A row for each region, image by image; an image in which nothing is anomalous has none.
            Its columns:

            - ``image``: the image's path, or its index in `X` if it has no path
            - ``label``: number of the region in its image, from 1, in the order of their first
              pixels, row by row
            - ``top``, ``left``, ``bottom``, ``right``: the bounding box in pixels; ``bottom`` and
              ``right`` lie behind the last pixel, as in a slice
            - ``centroid_y``, ``centroid_x``: mean row and column of its pixels
            - ``area``: number of pixels
            - ``peak``, ``mean``: of the anomaly map in the region. The highest peak of an image is
              the maximum of its map, which is minus its score
            - ``p_value``: see the notes of this method; NaN if there are no calibration scores
            - ``image_height``, ``image_width``: size of the image in pixels
            - ``rle``: the region's mask as run lengths, column by column, as COCO has them

        See Also
        --------
        skpadim.regions.to_coco, skpadim.regions.to_label_studio : For tools of annotators.
        inspect : Image by image, with scores and maps.

        Notes
        -----
        Pixels that touch at a corner belong to one region. A region is where the map is above the
        threshold of :meth:`predict`, and that is set from the largest value of each calibration
        image's map. So, of a new good image, the probability that *any* region is flagged is at
        most `contamination`: exactly for held-out images (:meth:`calibrate`), nearly so for
        leave-one-out scores. This holds for the image as a whole, whatever the number of its
        pixels, and `min_area` can only lower it. With ``calibration="training"``, or a threshold of
        one's own, nothing is promised.

        The p-value of a region is that of its peak beside the calibration scores: how likely a good
        image has a peak as high *anywhere*. So the p-values of several regions of one image need no
        correction for their number: of a good image, any of them is α or less with probability α at
        most. The smallest is the image's own p-value.
        In a defective image it holds as well for regions away from the defect, where the map is
        that of a good part; near it the map is raised by the network's field of view and by
        `sigma`. Of many images together it says nothing: choose images by
        :meth:`p_values` as the notes of the class say, then look at the regions of those.

        Examples
        --------
        >>> import numpy as np
        >>> from skpadim import PadimDetector
        >>> rng = np.random.default_rng(0)
        >>> good = rng.uniform(0.4, 0.6, size=(30, 64, 64))
        >>> new = rng.uniform(0.4, 0.6, size=(2, 64, 64))
        >>> new[1, 20:30, 30:40] = 0.9
        >>> detector = PadimDetector("filter_bank", image_size=64, random_state=0).fit(good)
        >>> regions = detector.anomalous_regions(new, min_area=20)
        >>> regions[["image", "label", "p_value"]].round(3)
           image  label  p_value
        0      1      1    0.032
        """
        inspections = self.inspect(X, min_area, roi=roi)
        return join_tables([each.regions for each in inspections if each.is_anomalous])

    @own_torch_state()
    def score_samples(self, X, roi=None):
        """Score of each image: higher is more normal.

        Parameters
        ----------
        X : images
            See Notes.
        roi : sequence of length n_samples, default=None
            One region of interest an image, in the forms of the parameter `roi`, in pixels of that
            image or of `image_size`; None for an image that is inspected whole. What the model
            does not inspect stays out.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float32
            Minus the maximum of the anomaly map, but for its NaN pixels.
        """
        check_is_fitted(self)
        images = Images(X, regions=roi)
        return score_images(map_maker(self), images, self.n_jobs, "Scoring")

    @own_torch_state()
    def _inspections(self, X, min_area=0, on_error="raise", roi=None):
        """As :meth:`inspect`, also without a threshold, for what needs none."""
        if hasattr(X, "__iter__") and not hasattr(X, "__len__"):  # a camera's own class, say
            X = iter(X)
        make_maps = partial(
            iter_map_batches, map_maker(self), n_jobs=self.n_jobs, description="Scoring"
        )
        parts = image_parts(X, 1, on_error, roi)  # of an iterator: each image when it comes
        return iter_inspections(make_maps, parts, Criteria.of(self, min_area))

    def _score_held_out(self, X, y, groups):
        """Scores, groups and digests of held-out good images, and the digests of those learned."""
        images, groups, _ = _good_images(X, y, groups)
        scores = self.score_samples(images)
        return scores, groups, image_digests(images.items), self._training_digests

    def _make_embedder(self):
        """A PatchEmbedder with this detector's parameters."""
        parameters = self.get_params(deep=False)
        names = PatchEmbedder._get_param_names()
        return PatchEmbedder(**{name: parameters[name] for name in names})

    def _fitted_embedder(self):
        """The fitted embedder, told the current values of what it does not depend on."""
        self._validate_params()
        check_unchanged(self, self._fitted_parameters)
        for name in ("batch_size", "compile", "memory", "verbose"):
            setattr(self.embedder_, name, getattr(self, name))
        # Found here, so that neither the embedder nor its copies with the workers warn as well.
        self.embedder_.device = available_device(self.device, self)
        return self.embedder_

    def _store(self, embedder, state, digests, threshold=None, chosen=None):
        """Set the fitted attributes, all at once, when nothing can fail any more."""
        grid = embedder.inspected_
        gaussian = new_gaussian(state, grid, self.regularization, self.sharing, chosen)
        self._replace_threshold(threshold)
        self.embedder_, self.gaussian_ = embedder, gaussian
        self.backbone_, self.layers_ = embedder.backbone_, embedder.layers_
        self.aligner_, self.roi_ = embedder.aligner_, embedder.roi_
        self.n_samples_seen_ = gaussian.n_samples_seen_
        self._training_digests = digests
        self._fitted_versions = {"skpadim": __version__, **package_versions()}
        names = (*MODEL_PARAMETERS, "regularization", "sharing", "sigma")
        self._fitted_parameters = {name: getattr(self, name) for name in names}
        return self

    @property
    def regularization_(self):
        """What is added to the diagonals: `regularization`, or the number that "auto" chose."""
        check_is_fitted(self)
        return self.gaussian_.regularization_

    def __sklearn_is_fitted__(self):
        return hasattr(self, "gaussian_")


def _is_original(size):
    if size not in ("model", "original"):
        raise ValueError(f"size={size!r} must be 'model' or 'original'.")
    return size == "original"


def _good_images(X, y, groups=None, min_images=1):
    """The images that are not labelled defective, their groups, and what the groups are called."""
    images, names = Images(X, min_images=min_images), None
    if groups is not None:
        groups, names = check_groups(groups, len(images))
    if y is None:
        return images, groups, names
    good = find_good(y, len(images), at_least=min_images)
    return images.take(good), groups if groups is None else groups[good], names


def _aligned(aligner, images):
    """The images that can be aligned, and their indices; all where there is no aligner."""
    if aligner is None:
        return images, np.arange(len(images))
    kept = aligner.measure_all(images)
    warn_of_unaligned(images.unaligned(), "They are left out.")
    if not len(kept):
        raise ValueError(
            f"None of the {len(images)} images can be aligned with those that the model has "
            "learned from: see ImageAligner.measure."
        )
    return images.take(kept), kept


def make_embedder(detector: PadimDetector) -> PatchEmbedder:
    """A fitted embedder with the parameters of a detector, all checked; no images, no aligner."""
    detector._validate_params()
    return detector._make_embedder().set_params(align=None).fit()


def map_maker(detector: PadimDetector) -> MapMaker:
    """All that scoring by a fitted detector needs, for the device that is asked for."""
    embedder = detector._fitted_embedder()
    device = resolve_device(embedder.device if embedder.tile_size is None else "cpu")
    dtype = torch.float32 if detector.precision == "float32" else torch.bfloat16
    whitening = whitening_in(detector.gaussian_, device, dtype)
    return MapMaker(embedder, whitening, float(detector.sigma))


def fitted_versions(detector: PadimDetector) -> dict[str, str]:
    """Versions of packages that a detector was fitted with; empty if it does not tell."""
    return getattr(detector, "_fitted_versions", {})


@own_torch_state()
def iter_maps_and_errors(
    detector: PadimDetector, X, on_error: str, roi=None
) -> Iterator[tuple[np.ndarray, dict[int, UnreadableImageError]]]:
    """As `iter_anomaly_maps`, with the errors of each batch in place of warnings."""
    check_is_fitted(detector)
    n_jobs = detector.n_jobs
    parts = image_parts(X, size_of_parts(int(detector.batch_size), n_jobs), on_error, roi)
    return iter_map_batches(map_maker(detector), parts, n_jobs, "Scoring")
