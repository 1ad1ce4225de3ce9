"""The interface that every backbone keeps: named layers, and a forward pass that ends early."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Layer(NamedTuple):
    """What is known of a layer before anything is computed.

    Attributes
    ----------
    channels : int
        Number of feature maps.
    stride : int
        Pixels of the input from one cell of the maps to the next.
    """

    channels: int
    stride: int


class Backbone(nn.Module, ABC):
    """A frozen network that turns images into feature maps.

    Attributes
    ----------
    name : str
        How messages and :attr:`PadimDetector.backbone_` call it.
    layers : dict of str to Layer
        The layers on offer, from fine to coarse.
    mean, std : tuple of three floats
        Images in [0, 1] have `mean` subtracted and are divided by `std`, channel by channel.
    n_features : int or None
        What ``n_features="auto"`` selects; None keeps all features of the chosen layers.
    default_layers : tuple of str
        What ``layers="auto"`` chooses.
    license : str or None
        Of the weights, as an SPDX identifier or a name; None if it is not known.
    """

    name: str
    layers: dict[str, Layer]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    n_features: int | None = None
    default_layers: tuple[str, ...] = ("layer1", "layer2", "layer3")
    license: str | None = None

    @abstractmethod
    def forward(self, images: torch.Tensor, layers: tuple[str, ...]) -> list[torch.Tensor]:
        """Feature maps of some layers; nothing deeper than the deepest of them is computed.

        Parameters
        ----------
        images : tensor of shape (n_samples, 3, height, width), float32
            Normalised RGB images.
        layers : tuple of str
            Names of layers, from fine to coarse.

        Returns
        -------
        maps : list of tensors of shape (n_samples, channels, map_height, map_width)
            One for each name.
        """

    def cut(self, layers: tuple[str, ...]) -> Backbone:
        """Return a backbone that need not hold more than the chosen layers take."""
        return self

    def __deepcopy__(self, memo):  # not by way of a pickle
        copied = memo[id(self)] = type(self).__new__(type(self))
        vars(copied).update(copy.deepcopy(vars(self), memo))
        return copied

    def sizes_near(self, size: tuple[int, int], layers: tuple[str, ...]) -> list[tuple[int, int]]:
        """Sizes (height, width) of images that some layers can be computed of, nearest to a size.

        Of a size that is taken, the list is that size alone. This class takes all.
        """
        return [size]

    def check_layers(self, layers) -> tuple[str, ...]:
        """Turn the `layers` parameter into a tuple of names.

        Parameters
        ----------
        layers : "auto" or str or sequence of str
            "auto" is :attr:`default_layers`.

        Raises
        ------
        ValueError
            If a layer is unknown or comes twice, or if they do not go from fine to coarse.
        """
        available = f"{self.name} has, from fine to coarse, {', '.join(map(repr, self.layers))}"
        if isinstance(layers, str) and layers == "auto":
            layers = self.default_layers
        names = (layers,) if isinstance(layers, str) else tuple(layers)
        if not names:
            raise ValueError(f"layers is empty; name at least one: {available}.")
        for name in names:
            if name not in self.layers:
                raise ValueError(f"layers has the unknown layer {name!r}; {available}.")
        order = sorted(set(names), key=list(self.layers).index)
        if list(names) != order:
            raise ValueError(
                f"layers={names!r} must go from fine to coarse, each layer once: use "
                f"{tuple(order)!r}."
            )
        return names


def papers_n_features(name):
    """How many features the paper selects at random of a network, resnet18's 100 of others."""
    return 550 if name in ("wide_resnet50_2", "wide_resnet101_2") else 100
