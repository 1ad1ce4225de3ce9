"""Images to patch embeddings: the feature half of PaDiM (section 3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from skpadim._documentation import DocumentedMixin
from skpadim._persistence import VersionedStateMixin
from skpadim.alignment._image_aligner import ImageAligner, warn_of_unaligned
from skpadim.backbones import load_backbone
from skpadim.embedding._batches import iter_batches
from skpadim.embedding._features import features_by_layer, join, reduce
from skpadim.embedding._fingerprint import digest_backbone
from skpadim.embedding._network import iter_maps, load_shared_backbone, ready_network
from skpadim.embedding._parameters import (
    EMBEDDING_CONSTRAINTS,
    MODEL_PARAMETERS,
    check_input_size,
    check_n_features,
    check_tile_size,
    check_unchanged,
)
from skpadim.embedding._window import seen_of, windows_of
from skpadim.gaussian._linalg import blas_threads
from skpadim.images._batches import Images, common_proportions, image_parts
from skpadim.images._read import fit_to_size
from skpadim.images._roi import cells_of, read_roi
from skpadim.images._sizes import sizes_of
from skpadim.images._tags import TakesImagesMixin
from skpadim.images._unreadable import UnreadableImageError, warned_of
from skpadim.machine._devices import available_device, empty, resolve_device
from skpadim.machine._file_memory import let_pages_go
from skpadim.machine._torch_state import each_in_own_torch_state, own_torch_state

# Of images that are worked on together, with tiles; and what the pixels of one take: those of it
# and of images that are read ahead, and its map.
_MAX_BYTES_AT_A_TIME = 2**31
_BYTES_PER_PIXEL = 17


class PatchEmbedder(
    VersionedStateMixin,
    DocumentedMixin,
    TakesImagesMixin,
    TransformerMixin,
    BaseEstimator,
    auto_wrap_output_keys=None,
):
    """Turn images into a grid of patch embeddings with a frozen network.

    Images are resized, cropped and normalised as the network's weights ask; the feature maps of
    the chosen layers are brought to the grid of the first (nearest neighbour) and concatenated;
    `n_features` of their channels are kept. Nothing is learned from the images but where their
    parts lie, with `align`: :meth:`fit` loads the network and draws the features.

    Parameters
    ----------
    backbone : str, Backbone or nn.Module, default="auto"
        The network, by name; see :func:`skpadim.backbones.load_backbone`. "auto" is
        "efficientnet_lite0", whose ImageNet weights are installed with skpadim. ``"timm/<name>"``
        is a network of timm.
    weights : {"imagenet"}, path or None, default="imagenet"
        Weights of the network; a path is that of a state dict, None gives random ones.
    layers : "auto" or sequence of str, default="auto"
        Layers of the network, from fine to coarse. "auto" is ``("layer1", "layer2", "layer3")``,
        and ``("layer2", "layer4")`` of an EfficientNet-Lite.
    n_features : "auto", int or None, default="auto"
        Number of features to keep. "auto" is the paper's: 100 (resnet18 and other networks), 550
        (wide_resnet50_2), all of the filter bank's and of an EfficientNet-Lite's; None keeps all.
    projection : {"random", "semi_orthogonal"}, default="random"
        Keep randomly selected features, as the paper does [1]_, or project on a random
        semi-orthogonal matrix [2]_.
    image_size : int or (height, width), default=256
        Images are resized to this many pixels; an int means a square, whatever the image's shape.
    crop_size : int or (height, width) or None, default=None
        The centre that is kept of the resized image; None keeps it whole; the paper's is 224.
    keep_aspect_ratio : bool, default=False
        Resize the shorter side to `image_size`, a number, and the other so that the proportions of
        the images given to :meth:`fit` are kept. All images must have them, within 2 %.
    align : {"translation", "rigid", "similarity"}, ImageAligner or None, default=None
        Bring parts that have moved to one place, by an :class:`ImageAligner` that is fitted to the
        images given to :meth:`fit`. One that is given is cloned; its `image_size` is this one's.
    roi : array, path, PIL image, list of polygons or None, default=None
        Region of interest: patches that lie outside have no embedding. As of
        :class:`PadimDetector`.
    tile_size : int or (height, width) or None, default=None
        Show the network tiles of this many pixels, one after the other, which overlap by 64 or
        half: for large images. Sizes must be multiples of the coarsest layer's stride then. None
        shows it the image whole.
    batch_size : int, default=32
        Images that go through the network at a time. It bounds the memory, and changes results
        by rounding only.
    device : str or torch.device, default="auto"
        Where the network runs; "auto" is the GPU if there is one.
    precision : {"float32", "bfloat16", "float16"}, default="float32"
        Of the network's arithmetic, by autocast. Embeddings are float32 in any case. bfloat16
        is about twice as fast on GPUs, and faster on CPUs with AVX512-BF16 or AMX; float16 is for
        GPUs. A CPU without instructions for it computes in float32.
    compile : bool, default=False
        Compile the network with :func:`torch.compile`. It takes tens of seconds at first use and
        needs a C++ compiler, and gains some percent of speed afterwards.
    memory : str, path, joblib.Memory or None, default=None
        A folder in which the feature maps of every image are kept, so that an image goes through
        the network once, whatever layers and features are asked for afterwards; see Notes.
    random_state : int, RandomState or None, default=None
        Draws the features and random weights.
    verbose : int, default=0
        Above 0, show the progress on the standard error: a bar on a terminal, and a line every few
        seconds elsewhere.

    Attributes
    ----------
    backbone_ : str
        Name of the network that is used.
    layers_ : tuple of str
        Layers that are used.
    feature_indices_ : ndarray of shape (n_features,), int
        Selected channels among those of all layers in order; only for ``projection="random"``.
    projection_ : ndarray of shape (n_channels, n_features), float32
        Projection matrix; only for ``projection="semi_orthogonal"``.
    n_features_out_ : int
        Length of an embedding.
    image_size_ : tuple of int
        Height and width that images are resized to.
    input_size_ : tuple of int
        Height and width of the network's input, after the crop.
    grid_ : tuple of int
        Height and width of the grid of patches.
    aligner_ : ImageAligner or None
        What images are aligned by.
    roi_ : ndarray of shape `input_size_`, bool, or None
        True where the network's input is inspected; None is everywhere.
    inspected_ : ndarray of shape `grid_`, bool
        Patches that have an embedding: those with a pixel in the region of interest.

    See Also
    --------
    PatchGaussian : Scores the embeddings.
    PadimDetector : Both in one, in bounded memory.

    Notes
    -----
    With `memory`, maps of ``layer1`` to ``layer3`` and of the chosen layers are kept whole: for
    an input of 224 x 224 pixels 1.4 MB an image with resnet18, 5.6 MB with wide_resnet50_2. They
    are found again by the content of the image, the network and its weights, `image_size`,
    `crop_size`, `precision`, the kind of device and the versions of the packages, so nothing
    outdated is ever used. Several processes may share a folder. It may be deleted at any time, or
    bounded with ``joblib.Memory.reduce_size``.

    References
    ----------
    .. [1] Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection
       and Localization", arXiv 2011.08785, section 3.1.
    .. [2] Kim et al., "Semi-Orthogonal Embedding for Efficient Unsupervised Anomaly
       Segmentation", arXiv 2105.14737.

    Examples
    --------
    >>> import numpy as np
    >>> from skpadim import PatchEmbedder
    >>> images = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)
    >>> embedder = PatchEmbedder("filter_bank", n_features=20, image_size=64, crop_size=None)
    >>> embedder.fit_transform(images).shape
    (2, 8, 8, 20)
    """

    _parameter_constraints = EMBEDDING_CONSTRAINTS

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
        self.keep_aspect_ratio = keep_aspect_ratio
        self.align = align
        self.roi = roi
        self.tile_size = tile_size
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.compile = compile
        self.memory = memory
        self.random_state = random_state
        self.verbose = verbose

    @own_torch_state()
    def fit(self, X=None, y=None):
        """Load the network and draw the features; with `align`, fit the aligner to the images.

        Parameters
        ----------
        X : images, default=None
            Checked as a whole, but not read; with `keep_aspect_ratio` their sizes are, and with
            `align` all of them.
        y : ignored

        Returns
        -------
        self : PatchEmbedder
        """
        self._validate_params()
        images = None if X is None else Images(X)
        if self.keep_aspect_ratio and images is None:
            raise ValueError("keep_aspect_ratio=True: fit needs X, whose proportions are kept.")
        if self.align is not None and images is None:
            raise ValueError(f"align={self.align!r}: fit needs X, which the aligner is fitted to.")
        proportions = common_proportions(images) if self.keep_aspect_ratio else None
        resolve_device(self.device)
        size, crop = sizes_of(self.image_size, self.crop_size, proportions)
        random_state = check_random_state(self.random_state)
        seed = int(random_state.randint(2**31))
        load = load_backbone if self.memory is None else load_shared_backbone
        backbone = load(self.backbone, self.weights, self.layers, seed)
        layers = backbone.check_layers(self.layers)
        n_channels = sum(backbone.layers[layer].channels for layer in layers)
        n_features = check_n_features(self.n_features, backbone, layers, n_channels)
        tile, grid = self._check_sizes(size, crop, backbone, layers)
        roi, inspected = self._read_roi(images, size, crop, grid)
        windows = windows_of(crop, tile, roi, inspected, backbone, layers)
        aligner = None if self.align is None else self._new_aligner(size).fit(X)

        self.backbone_ = backbone.name
        self.layers_ = layers
        self._fitted_parameters = {name: getattr(self, name) for name in MODEL_PARAMETERS}
        self.n_features_out_ = n_features
        self.image_size_, self.input_size_, self.grid_ = size, crop, grid
        self._proportions, self.aligner_ = proportions, aligner
        self.roi_, self.inspected_, self._windows = roi, inspected, windows
        for attribute in ("feature_indices_", "projection_", "_network_digest"):
            vars(self).pop(attribute, None)
        if self.memory is None:
            self._network, self._is_cut = backbone.cut(layers), True
        else:  # all that is kept may be computed with it; it is cut when it is pickled
            self._network, self._is_cut = backbone, False
            self._network_digest = digest_backbone(backbone)
        if self.projection == "random":
            self.feature_indices_ = np.sort(random_state.permutation(n_channels)[:n_features])
        else:
            gaussian = random_state.normal(size=(n_channels, n_features))
            with blas_threads(torch.get_num_threads()):
                self.projection_ = np.linalg.qr(gaussian)[0].astype(np.float32)
        self._features = self._features_by_layer()
        return self

    @own_torch_state()
    def transform(self, X):
        """Embed images.

        Parameters
        ----------
        X : images
            Array (n, height, width, 3) or (n, height, width), uint8 or float in [0, 1]; tensor
            (n, 3, height, width); list, array, Series or DataFrame column of paths; list of PIL
            images or arrays, of any sizes; path of a folder.

        Returns
        -------
        embeddings : ndarray of shape (n_samples, height, width, n_features), float32
            With `roi` (n_samples, 1, n_patches, n_features), of the patches inside, row by row:
            those side by side there are not neighbours in the image, so for
            ``sharing="neighbourhood"`` use :class:`PadimDetector`. Or, after
            ``set_output(transform="torch")``, a tensor on the device it was computed on.
        """
        check_is_fitted(self)
        output = getattr(self, "_sklearn_output_config", {}).get("transform", "default")
        images = Images(X)
        if output == "torch":
            embeddings = self.embed_all(images)
        else:
            out = self.new_embeddings(len(images), "cpu")
            embeddings = self.embed_all(images, out=out).numpy()
        warn_of_unaligned(images.unaligned())
        return embeddings

    def fit_transform(self, X, y=None):
        """Fit, then embed the same images (see :meth:`transform`).

        Parameters
        ----------
        X : images
        y : ignored

        Returns
        -------
        embeddings : ndarray or tensor of shape (n_samples, height, width, n_features), float32
        """
        # TransformerMixin's own would pass the result through scikit-learn's set_output.
        return self.fit(X, y).transform(X)

    def get_feature_names_out(self, input_features=None):
        """Name of each feature of an embedding.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : ndarray of shape (n_features,), str objects
            "layer2_17" for channel 17 of that layer (from 0); with
            ``projection="semi_orthogonal"``, which mixes them, "patchembedder0" and so on.
        """
        check_is_fitted(self)
        if self.projection == "semi_orthogonal":
            names = [f"patchembedder{index}" for index in range(self.n_features_out_)]
        else:
            names = [
                f"{layer}_{channel}"
                for layer, features in self._features.items()
                for channel in features.channels
            ]
        return np.array(names, dtype=object)

    def set_output(self, *, transform=None):
        """Choose what :meth:`transform` returns.

        Parameters
        ----------
        transform : {"default", "torch"} or None, default=None
            "default" gives NumPy arrays; "torch" gives tensors that stay on the device, which
            :class:`PatchGaussian` takes as they are; None changes nothing. scikit-learn's
            "pandas" and "polars" cannot hold four-dimensional embeddings and are refused.

        Returns
        -------
        self : PatchEmbedder
        """
        if transform not in (None, "default", "torch"):
            raise ValueError(
                f"transform={transform!r}: embeddings have four dimensions, so the output can be "
                "'default' (NumPy) or 'torch'."
            )
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    @own_torch_state()
    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """Resize and crop as :meth:`transform` does, without normalising.

        Parameters
        ----------
        images : tensor of shape (3, height, width) or (n_samples, 3, height, width)
            uint8, or float32 in [0, 1].

        Returns
        -------
        images : tensor of shape (..., 3, height, width)
        """
        check_is_fitted(self)
        return fit_to_size(images, self.image_size_, self.input_size_)

    def _validate_params(self):
        super()._validate_params()
        if self.tile_size is not None and self.memory is not None:
            raise ValueError("memory keeps no features of tiles: leave memory or tile_size out.")

    def _check_sizes(self, size, crop, backbone, layers):
        """Size of the tiles, None without, and of the grid of patches."""
        if self.tile_size is None:
            check_input_size(size, crop, self.crop_size, backbone, layers)
            return None, tuple(backbone(torch.zeros(1, 3, *crop), layers[:1])[0].shape[2:])
        tile = check_tile_size(self.tile_size, crop, backbone, layers)
        return tile, tuple(side // backbone.layers[layers[0]].stride for side in crop)

    def _new_aligner(self, size):
        """An aligner for images of a size (height, width)."""
        aligner = ImageAligner(self.align) if isinstance(self.align, str) else clone(self.align)
        return aligner.set_params(image_size=size)

    def _read_roi(self, images, size, crop, grid):
        """The region of interest, None without, and which patches of the grid are inspected."""
        if self.roi is None:
            return None, np.ones(grid, dtype=bool)
        sizes = [] if images is None else [images.size_of(index) for index in range(len(images))]
        roi = read_roi(self.roi, sizes, size, crop)
        return roi, cells_of(torch.from_numpy(roi)[None], grid)[0].numpy()

    def new_embeddings(
        self, n_images: int, device: torch.device | str | None = None, *, are_kept: bool = False
    ) -> torch.Tensor:
        """Memory for embeddings (n_images, height, width, n_features), by default on the device.

        Those of tiles that `are_kept` lie in a file, if there are many.
        """
        in_file = are_kept and self.tile_size is not None
        device = "cpu" if in_file else device or self._device()
        shape = self.grid_ if self.inspected_.all() else (1, self.n_positions)
        shape = (n_images, *shape, self.n_features_out_)
        return empty(shape, device=device, in_file=in_file)

    @property
    def images_at_a_time(self) -> int:
        """`batch_size`; with tiles no more than there is room for."""
        if self.tile_size is None:
            return int(self.batch_size)
        n_pixels = self.input_size_[0] * self.input_size_[1]
        n_bytes = 4 * self.n_positions * self.n_features_out_ + _BYTES_PER_PIXEL * n_pixels
        return min(int(self.batch_size), max(1, _MAX_BYTES_AT_A_TIME // n_bytes))

    @property
    def n_positions(self) -> int:
        """Number of patches that have an embedding."""
        return int(self.inspected_.sum())

    def _device(self):
        """Where to compute, once fitted."""
        return resolve_device(available_device(self.device, self))

    def embed_all(
        self,
        images: Images,
        description: str = "Embedding",
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embeddings (n_samples, height, width, n_features) of all images, in one tensor.

        Parameters
        ----------
        images : Images
        description : str, default="Embedding"
            Of the progress bar.
        out : tensor of shape (n_samples, height, width, n_features), default=None
            Where to write them, on any device; by default new memory where they are computed.

        Returns
        -------
        embeddings : tensor of shape (n_samples, height, width, n_features), float32
        """
        device = self._device()
        in_place = out is None or out.device.type == device.type == "cpu"
        out = self.new_embeddings(len(images), device, are_kept=True) if out is None else out
        filled = 0
        for batch in self.iter_embeddings(images, description, out=out if in_place else None):
            if not in_place:
                out[filled : filled + len(batch)] = batch
                filled += len(batch)
        return out

    def iter_embeddings(
        self,
        X,
        description: str = "Embedding",
        out: torch.Tensor | None = None,
        on_error: str = "raise",
    ) -> Iterator[torch.Tensor]:
        """Yield embeddings batch by batch.

        While the network works on a batch, threads decode the ones after it. Of an iterator, a
        batch is embedded as soon as its images have come, and no more are asked for before.

        Parameters
        ----------
        X : images
            As :meth:`transform` takes them, or an iterator (a generator, for instance) that gives
            images one by one.
        description : str, default="Embedding"
            Of the progress bar; "" for none.
        out : tensor of shape (n_rows, height, width, n_features), default=None
            Where they are written, one batch after the other, and from the first row again when
            the next batch does not fit: at least `batch_size` rows, or as many as images. By
            default there is room for one batch.
        on_error : {"raise", "skip"}, default="raise"
            At images that cannot be read: raise an :class:`~skpadim.UnreadableImageError`, or fill
            their embeddings with NaN, with a warning that names them, and go on.

        Yields
        ------
        embeddings : tensor of shape (n_batch, height, width, n_features), float32
            Rows of `out`; to be used, or copied, before the next batch is asked for.
        """
        return warned_of(self.iter_with_errors(X, description, out, on_error))

    @each_in_own_torch_state
    def iter_with_errors(
        self,
        X,
        description: str = "Embedding",
        out: torch.Tensor | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[torch.Tensor, dict[int, UnreadableImageError]]]:
        """As :meth:`iter_embeddings`; in place of warnings, errors by their place in the batch."""
        self._validate_params()
        check_unchanged(self, self._fitted_parameters)
        parts = image_parts(X, self.images_at_a_time, on_error)
        yield from iter_batches(self, parts, self._device(), description, out)

    @own_torch_state()
    def embed(
        self, pixels: torch.Tensor, device: torch.device, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed one batch of pixels that have the network's input size.

        Parameters
        ----------
        pixels : tensor of shape (n_samples, 3, height, width)
            uint8, or float32 in [0, 1].
        device : torch.device
            Where to compute.
        out : tensor of shape (n_samples, grid_height, grid_width, n_features), default=None
            Where to write the result.

        Returns
        -------
        embeddings : tensor of shape (n_samples, grid_height, grid_width, n_features), float32
        """
        embeddings = self.new_embeddings(len(pixels), device) if out is None else out
        for window in self._windows:
            network = self._network_on(device, self.layers_, window, narrow=True)
            for rows, maps in iter_maps(network, seen_of(pixels, window, self.roi_), device):
                join(reduce(maps, self._features), embeddings[rows], window, add=self._adds)
            let_pages_go()
        return embeddings

    def _features_by_layer(self):
        """Share of each layer of the features; made anew after unpickling."""
        n_channels = {layer: self._network.layers[layer].channels for layer in self.layers_}
        if self.projection == "random":
            return features_by_layer(n_channels, indices=self.feature_indices_)
        return features_by_layer(n_channels, matrix=self.projection_)

    @property
    def _adds(self):
        """Whether the features of all layers are added, not put side by side."""
        return self.projection == "semi_orthogonal"

    def _network_on(self, device, layers, window, narrow):
        """The network ready on a device; if `narrow`, the last layer with what is kept of it."""
        return ready_network(
            self._network,
            layers,
            device,
            self.precision,
            compile=self.compile,
            width=window.columns.stop - window.columns.start,
            channels=self._features[layers[-1]].channels if narrow else None,
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = True
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_network")

    @own_torch_state()
    def __getstate__(self):
        state = super().__getstate__()
        state.pop("_features", None)
        if not state.get("_is_cut", True):
            state.update(_network=self._network.cut(self.layers_), _is_cut=True)
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        if "_network" in state:
            self._features = self._features_by_layer()


def network_of(embedder: PatchEmbedder):
    """The network of a fitted embedder, a Backbone."""
    return embedder._network
