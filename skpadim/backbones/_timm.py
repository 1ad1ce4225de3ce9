"""timm's networks as backbones: stages of hierarchical ones, blocks of plain transformers."""

from __future__ import annotations

import copy
import inspect
import math
import os
from contextlib import suppress
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import huggingface_hub
import timm
import torch
from torch import nn

from skpadim.backbones._backbone import Backbone, Layer, papers_n_features
from skpadim.backbones._module import frozen, nearest_multiples
from skpadim.backbones._weights import (
    WeightsUnavailableError,
    fail_again,
    read_state_dict,
    remember_failure,
)
from skpadim.files._download import DownloadError, check_answered
from skpadim.machine._torch_state import own_torch_state

PREFIX = "timm/"


class TimmBackbone(Backbone):
    """A network of timm, ``timm/<name>``; its parameters are :func:`load_backbone`'s.

    Of a network with stages (convolutional, Swin, MaxViT) ``layer1`` is the last feature map at a
    quarter of the image's resolution, ``layer2`` at an eighth, and so on. A network of one
    resolution (ViT) offers each of its blocks, ``blocks.0`` and so on, and the blocks at a
    quarter, half and three quarters of its depth as ``layer1`` to ``layer3``. Their outputs come
    without class and register tokens, and without a normalisation.
    """

    def __init__(self, name, weights="imagenet", random_state=0):
        super().__init__()
        self.name = name
        _check_name(name)
        self.layers, self._indices = find_layers(name)
        # Where a layer comes from, for the fingerprints of feature caches.
        self._submodules = {layer: f"output {index}" for layer, index in self._indices.items()}
        config = timm.get_pretrained_cfg(_timm_name(name))
        self.mean, self.std = tuple(config.mean), tuple(config.std)
        self.n_features = papers_n_features(_timm_name(name).split(".")[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_state)
            self.module = frozen(_load_network(name, weights))
        self.license = config.license if weights == "imagenet" else None

    def forward(self, images, layers):
        """Feature maps of some layers (see :meth:`Backbone.forward`)."""
        indices = sorted({self._indices[layer] for layer in layers})
        maps = dict(zip(indices, _intermediates(self.module, images, indices), strict=True))
        return [maps[self._indices[layer]] for layer in layers]

    def cut(self, layers):
        """Return a copy without the stages or blocks that the chosen layers do not need."""
        shorter = copy.deepcopy(self)
        shorter.layers = {layer: self.layers[layer] for layer in layers}
        shorter._indices = {layer: self._indices[layer] for layer in layers}
        shorter._submodules = {layer: self._submodules[layer] for layer in layers}
        _prune(shorter.module, shorter._indices.values())
        return shorter

    def sizes_near(self, size, layers):
        """Sizes that the network takes (see :meth:`Backbone.sizes_near`), found by trying."""
        indices = tuple(sorted({self._indices[layer] for layer in layers}))

        def is_taken(candidate):
            return not isinstance(_shapes(self.name, indices, candidate), str)

        if is_taken(size):
            return [size]
        own = _own_size(self.name)
        stride = self.layers[layers[-1]].stride
        for steps in ((stride, stride), own):
            if near := list(filter(is_taken, nearest_multiples(size, steps))):
                return near
        return [own]

    # A network is pickled as its name and its arrays, as torchvision's are.

    def __reduce__(self):
        arrays = {name: t.numpy(force=True) for name, t in _tensors(self.module).items()}
        kept = ("_parameters", "_buffers", "_modules")
        attributes = {name: value for name, value in vars(self).items() if name not in kept}
        return _restore, (type(self), attributes, arrays, timm.__version__)


@own_torch_state()
def _restore(cls, attributes, arrays, version):
    """Build a pickled backbone again, without the weights that it was cut of."""
    backbone = cls.__new__(cls)
    Backbone.__init__(backbone)
    vars(backbone).update(attributes)
    module = frozen(_build(backbone.name, _probe_device(backbone.name)))
    if set(_tensors(module)) != set(arrays):
        _prune(module, backbone._indices.values())
    if different := set(_tensors(module)) ^ set(arrays):
        raise ValueError(
            f"This model was saved with timm {version}, and timm {timm.__version__} builds another "
            f"{backbone.name} ({len(different)} tensors differ, such as {min(different)!r}): "
            f"install timm=={version}, or fit the model again."
        )
    for name, array in arrays.items():
        owner, _, attribute = name.rpartition(".")
        owner, tensor = module.get_submodule(owner), torch.from_numpy(array.copy())
        if attribute in owner._parameters:
            owner._parameters[attribute] = nn.Parameter(tensor, requires_grad=False)
        else:
            owner._buffers[attribute] = tensor
    backbone.module = module
    return backbone


def _tensors(module):
    """Parameters and buffers by name; buffers too that no state dict has."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


@lru_cache(maxsize=64)
def find_layers(name: str) -> tuple[dict[str, Layer], dict[str, int]]:
    """The layers of a network, from fine to coarse, and which of its outputs they are.

    The network is run for the shapes of its outputs. Without one stride for all, or stages at
    strides 4, 8 and 16, it is a ValueError.
    """
    height, width = _own_size(name)
    shapes = _shapes(name, None, (height, width))
    if isinstance(shapes, str):
        raise ValueError(
            f"backbone={name!r} cannot be a backbone: timm {timm.__version__} gives no feature "
            f"maps of it ({shapes}). {_ADVICE}"
        )
    outputs = [Layer(channels, round(height / rows)) for channels, rows, _ in shapes]
    strides = sorted({layer.stride for layer in outputs})
    n_blocks = len(outputs)
    if len(strides) == 1 and n_blocks > 1:
        at = {max(0, round(n_blocks * k / 4) - 1): f"layer{k}" for k in (3, 2, 1)}
        indices = {}
        for index in range(n_blocks):
            indices[f"blocks.{index}"] = index
            if index in at:
                indices[at[index]] = index
    else:
        # Of sizes that 32 does not divide the maps are rounded.
        outputs = [Layer(n, 2 ** round(math.log2(stride))) for n, stride in outputs]
        at_stride = {layer.stride: index for index, layer in enumerate(outputs)}
        stages = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
        indices = {name: at_stride[at] for name, at in stages.items() if at in at_stride}
    if not {"layer1", "layer2", "layer3"} <= indices.keys():
        raise ValueError(
            f"backbone={name!r} has feature maps of strides {strides}, not of 4, 8 and 16, nor of "
            f"one stride. {_ADVICE}"
        )
    return {layer: outputs[index] for layer, index in indices.items()}, indices


_ADVICE = (
    "Use a network with stages or a vision transformer, such as 'timm/resnet18', "
    "'timm/convnext_tiny' or 'timm/vit_small_patch14_dinov2'; or wrap it in "
    "skpadim.backbones.ModuleBackbone, which takes any submodules as layers."
)


@lru_cache(maxsize=256)
def _shapes(name, indices, size):
    """Shapes (channels, height, width) of outputs for images of a size, or why there are none."""
    try:
        images = torch.zeros(1, 3, *size, device=_probe_device(name))
        maps = _intermediates(_probe_network(name), images, indices)
    except Exception as error:  # of the networks' own code, which raises all kinds
        return _first_line(error)
    if not maps or any(output.ndim != 4 or output.shape[2] == 0 for output in maps):
        return "their shapes are not (n_samples, channels, height, width)"
    return [tuple(output.shape[1:]) for output in maps]


def _intermediates(module, images, indices):
    """Outputs of a network that it counts itself, no deeper than the last."""
    return module.forward_intermediates(
        images,
        indices=None if indices is None else list(indices),
        stop_early=True,
        output_fmt="NCHW",
        intermediates_only=True,
    )


def _prune(module, indices):
    """Remove what comes after the last of some outputs."""
    with suppress(AssertionError):  # timm before 1.0.25 may refuse to remove the pooling, at last
        module.prune_intermediate_layers(sorted(set(indices)), prune_norm=True, prune_head=True)


@lru_cache(maxsize=64)
def _probe_device(name):
    """Torch's meta device, which knows shapes only; or the CPU for a network that needs more."""
    try:
        images = torch.empty(1, 3, *_own_size(name), device="meta")
        _intermediates(frozen(_build(name, "meta")), images, None)
    except Exception:  # of the networks' own code, which raises all kinds
        return "cpu"
    return "meta"


@lru_cache(maxsize=2)
def _probe_network(name):
    return frozen(_build(name, _probe_device(name)))


@lru_cache(maxsize=64)
def _options(name):
    """What makes a network take images of several sizes, if its class has such options."""
    known = set()
    for cls in type(_create(name, "meta")).__mro__:
        parameters = inspect.signature(cls.__init__).parameters
        known |= parameters.keys()
        if "kwargs" not in parameters:  # which would be handed on to the next class
            break
    wanted = {"dynamic_img_size": True, "strict_img_size": False}
    return {option: value for option, value in wanted.items() if option in known}


def _build(name, device="cpu", **parameters):
    """Build a network, without a classifier, for images of several sizes."""
    return _create(name, device, **_options(name), **parameters)


def _create(name, device, **parameters):
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device(device):
                return timm.create_model(_timm_name(name), num_classes=0, **parameters)
        except (RuntimeError, NotImplementedError):  # it computes with the values of tensors
            if device == "cpu":
                raise
        return timm.create_model(_timm_name(name), num_classes=0, **parameters).to(device)


def _own_size(name):
    """Height and width of the images that a network was made for."""
    return tuple(timm.get_pretrained_cfg(_timm_name(name)).input_size[1:])


def _timm_name(name):
    return name.removeprefix(PREFIX)


def _check_name(name):
    """Raise unless timm has a network of this name, and such weights if they are named too."""
    architecture, _, tag = _timm_name(name).partition(".")
    if timm.is_model(architecture):
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        if not tag or _timm_name(name) in known:
            return
    else:
        known = timm.list_models()
    close = get_close_matches(_timm_name(name), known, n=3)
    hint = f"; did you mean {' or '.join(repr(PREFIX + match) for match in close)}?"
    raise ValueError(
        f"backbone={name!r} is unknown to timm {timm.__version__}{hint if close else '.'} "
        "timm.list_models() lists its networks, and timm.list_models(pretrained=True) its weights."
    )


def _load_network(name, weights):
    """Build a network with the weights asked for."""
    if weights is None:
        return _build(name)
    if weights == "imagenet":
        return _load_pretrained(name)
    if isinstance(weights, (str, os.PathLike)):
        network = _build(name)
        classifiers = network.pretrained_cfg.get("classifier") or ()
        classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
        network.load_state_dict(
            read_state_dict(Path(weights), network.state_dict(), name, "'imagenet'", classifiers)
        )
        return network
    raise TypeError(
        f"weights={weights!r} must be 'imagenet' (timm's pretrained weights of {name}), the path "
        "of a .pth or .safetensors file, or None for random weights."
    )


def _load_pretrained(name):
    """Build a network with timm's own weights: of the cache, with no look at the hub, or new."""
    config = timm.get_pretrained_cfg(_timm_name(name))
    if not config.has_weights:
        raise WeightsUnavailableError(
            f"timm has no weights for {name}. Choose a name of timm.list_models(pretrained=True), "
            "give a file of weights as weights=..., or use weights=None for random ones."
        )
    fail_again(name)
    hub = huggingface_hub.constants.ENDPOINT
    source = f"{hub}/{config.hf_hub_id}" if config.hf_hub_id else config.url
    try:
        if config.hf_hub_id:
            for file in (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin"):
                path = file and huggingface_hub.try_to_load_from_cache(config.hf_hub_id, file)
                if isinstance(path, str):
                    overlay = {"file": path}
                    return _build(name, pretrained=True, pretrained_cfg_overlay=overlay)
            if huggingface_hub.constants.HF_HUB_OFFLINE:
                raise DownloadError("they are not in the cache, and HF_HUB_OFFLINE is set.")
        check_answered(source)  # or huggingface_hub would retry for a minute
        return _build(name, pretrained=True)
    except Exception as error:  # of several packages, and of the networks' own code
        reason = f"{type(error).__name__}: {_first_line(error).rstrip('.')}."
        if isinstance(error, DownloadError):
            reason = str(error)
        message = (
            f"timm's weights of {name} cannot be had: {reason} Ways out: on a machine with network "
            f"fetch model.safetensors from {source} (where a licence may have to be accepted "
            "first), and give its path as weights=...; use backbone='filter_bank', which needs no "
            "weights; or use weights=None for random ones."
        )
        raise remember_failure(name, message) from error


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
