"""torchvision's classification networks as backbones, their stages named `layer1…`."""

from __future__ import annotations

import copy
import math
import os
from functools import lru_cache
from pathlib import Path

import torch
import torchvision
from torch import nn

from skpadim.backbones._backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, papers_n_features
from skpadim.backbones._hooks import forward_hooks, run_to_layers
from skpadim.backbones._module import PROBE_SIZE, ModuleBackbone, emptied, frozen, is_channels_last
from skpadim.backbones._weights import fetch_weights, read_state_dict
from skpadim.machine._torch_state import own_torch_state


def list_networks() -> list[str]:
    """Names of torchvision's classification networks."""
    return torchvision.models.list_models(module=torchvision.models)


class TorchvisionBackbone(ModuleBackbone):
    """A classification network of torchvision; its parameters are :func:`load_backbone`'s.

    Its layers are its stages: ``layer1`` is the last feature map at a quarter of the image's
    resolution, ``layer2`` at an eighth, and so on; of a ResNet, those of these names.
    """

    def __init__(self, name, weights="imagenet", random_state=0):
        stages = find_stages(name)
        network, mean, std = _load_network(name, weights, random_state)
        super().__init__(
            network,
            stages,
            name=name,
            mean=mean,
            std=std,
            n_features=papers_n_features(name),
        )

    def _taken(self, module):
        return module  # built for this

    def _run_probe(self, names, size):
        return _meta_outputs(self.name, tuple(names))

    # A network is pickled as its name and its arrays, not as torch modules: a model file outlives
    # the versions of torch and torchvision that it was written with.

    def __reduce__(self):
        state = {
            name: tensor.numpy(force=True)
            for name, tensor in self.state_dict().items()
            if tensor.numel() > 0
        }
        attributes = {
            name: getattr(self, name)
            for name in ("name", "layers", "mean", "std", "n_features", "_submodules")
        }
        return _restore, (type(self), attributes, self._channels_last, state)


@own_torch_state()
def _restore(cls, attributes, channels_last, state):
    """Build a pickled backbone again, without the weights that it was cut of."""
    backbone = cls.__new__(cls)
    Backbone.__init__(backbone)
    vars(backbone).update(attributes, _channels_last=channels_last)
    module = frozen(_build(attributes["name"], "meta"))
    tensors = module.state_dict(prefix="module.", keep_vars=True)
    cut = {id(tensor): emptied(tensor) for name, tensor in tensors.items() if name not in state}
    backbone.module = copy.deepcopy(module, cut)
    tensors = backbone.state_dict()  # with its metadata, which some networks ask for
    for name, tensor in tensors.items():
        kept = state.get(name)
        empty = tensor.new_empty(0, device="cpu")
        tensors[name] = empty if kept is None else torch.from_numpy(kept.copy())
    backbone.load_state_dict(tensors, assign=True)
    return backbone


def _load_network(name, weights, random_state):
    """Build a network with the weights asked for; also the normalisation that they expect."""
    entries = torchvision.models.get_model_weights(name)
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_state)
            return _build(name), IMAGENET_MEAN, IMAGENET_STD
    if weights == "imagenet" or weights in entries.__members__:
        # The first entry is the one that the literature on PaDiM reports; torchvision's DEFAULT
        # may be a later training recipe.
        entry = next(iter(entries)) if weights == "imagenet" else entries[weights]
        fetch_weights(name, entry)
        network = torchvision.models.get_model(name, weights=entry, progress=False)
        if getattr(network, "transform_input", False):
            # Inception and GoogLeNet turn ImageNet's normalisation into the one they expect.
            network.transform_input = False
            return network, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        preset = entry.transforms()
        mean, std = getattr(preset, "mean", IMAGENET_MEAN), getattr(preset, "std", IMAGENET_STD)
        return network, tuple(mean), tuple(std)
    accepted = f"'imagenet', one of {list(entries.__members__)}"
    if isinstance(weights, (str, os.PathLike)):
        network = _build(name, "meta")
        state_dict = read_state_dict(Path(weights), network.state_dict(), name, accepted)
        network.load_state_dict(state_dict, assign=True)
        return network, IMAGENET_MEAN, IMAGENET_STD
    raise TypeError(
        f"weights={weights!r} must be {accepted}, the path of "
        "a .pth or .safetensors file, or None for random weights."
    )


def _build(name, device="cpu"):
    """Build a network with random weights, or on the meta device with none at all."""
    # GoogLeNet and Inception warn unless told whether to initialise; others take no such option.
    options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    try:
        with torch.device(device):
            return torchvision.models.get_model(name, weights=None, **options)
    except NotImplementedError:  # RegNets compute their widths with tensors, which need values
        return torchvision.models.get_model(name, weights=None, **options).to(device)


@lru_cache(maxsize=64)
def _meta_outputs(name, submodules):
    """Outputs of submodules, which are tensors of shapes alone."""
    network = frozen(_build(name, "meta"))
    return run_to_layers(network, torch.empty(1, 3, *PROBE_SIZE, device="meta"), submodules)


@lru_cache(maxsize=64)
def find_stages(name: str) -> dict[str, str]:
    """Stages of a network, from ``layer1`` (stride 4) on, and the submodules at which they end.

    A stage ends where the next submodule halves the resolution. The network is run on torch's meta
    device, which knows shapes only, so this costs milliseconds. Without stages at strides 4, 8 and
    16 it is a ValueError (vision transformers have one stride).
    """
    last_at_stride = {}

    def record(submodule_name):
        def hook(_module, _args, output):
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                height = output.shape[1 if is_channels_last(output.shape) else 2]
                if height > 1:
                    last_at_stride[round(math.log2(PROBE_SIZE[0] / height))] = submodule_name

        return hook

    try:
        network = _build(name, "meta").eval()
        with forward_hooks((unit, record(path)) for path, unit in _units(network)):
            network(torch.empty(1, 3, *PROBE_SIZE, device="meta"))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"backbone={name!r} takes images of one size only, so it cannot be a backbone "
            f"({error})."
        ) from error
    stages = {
        f"layer{log2_stride - 1}": last_at_stride[log2_stride]
        for log2_stride in range(2, 6)
        if log2_stride in last_at_stride
    }
    if list(stages)[:3] != ["layer1", "layer2", "layer3"]:
        raise ValueError(
            f"backbone={name!r} has no feature maps at a quarter, an eighth and a sixteenth of "
            "the image's resolution; use a network with stages, such as 'resnet18', "
            "'efficientnet_b0', 'convnext_tiny' or 'swin_t'."
        )
    return stages


def _units(module, prefix=""):
    """Submodules that a network is a sequence of, with their names; Sequentials are opened."""
    for name, child in module.named_children():
        # Such prepare the next stage (ConvNeXt, DenseNet), and what they hold belongs to none.
        opens_with_norm = isinstance(child, nn.Sequential) and isinstance(
            next(child.children(), None), (nn.BatchNorm2d, nn.LayerNorm)
        )
        if prefix + name == "classifier":
            continue
        if isinstance(child, nn.Sequential) and not opens_with_norm:
            yield from _units(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child
