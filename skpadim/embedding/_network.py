"""A network on a device, ready to run: the one place that keeps what was loaded and made ready."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from skpadim.backbones import load_backbone
from skpadim.backbones._backbone import Backbone
from skpadim.backbones._filter_bank import FilterBank
from skpadim.backbones._graph import make_ready
from skpadim.images._read import to_float
from skpadim.machine._devices import arithmetic_of, full_float32

# On a CPU the network takes a batch in parts of this many images, whose maps stay in the caches.
CPU_PART = 4

# The network that was loaded last of those that a search shares, by its parameters; and for each
# network what was made ready of it last, by all that this depends on.
_shared: dict[tuple, Backbone] = {}
_ready: WeakKeyDictionary[Backbone, tuple[tuple, ReadyNetwork]] = WeakKeyDictionary()


class ReadyNetwork(NamedTuple):
    """A module from normalised images to maps, and what normalises the rows of an image."""

    module: nn.Module
    mean: torch.Tensor
    std: torch.Tensor
    dtype: torch.dtype  # what it is to run in, by autocast


def load_shared_backbone(backbone, weights, layers, random_state) -> Backbone:
    """As :func:`load_backbone`, but a network of torchvision is kept for the next call.

    So a search loads a network, and makes it ready, once in each process, though each of its fits
    has an embedder of its own. The one kept is the last; it must not be changed by the caller.
    """
    if not isinstance(backbone, str):
        return load_backbone(backbone, weights, layers, random_state)
    key = (backbone, weights, random_state if weights is None else None)
    if isinstance(weights, (str, os.PathLike)) and os.path.isfile(weights):
        status = os.stat(weights)
        key += (os.path.realpath(weights), status.st_mtime_ns, status.st_size)
    network = _shared.get(key)
    if network is None:
        network = load_backbone(backbone, weights, layers, random_state)
        if not isinstance(network, FilterBank):
            _shared.clear()
            _shared[key] = network
    return network


def ready_network(
    backbone: Backbone,
    layers: tuple[str, ...],
    device: torch.device,
    precision: str,
    *,
    compile: bool,
    width: int,
    channels: np.ndarray | None = None,
) -> ReadyNetwork:
    """The backbone made ready for images of a width, by :func:`make_ready`; kept for reuse."""
    is_of = None if channels is None else channels.tobytes()
    key = (layers, device, precision, compile, width, is_of)
    kept, ready = _ready.get(backbone, (None, None))
    if kept != key:
        dtype = arithmetic_of(precision, device)
        module = make_ready(backbone, layers, device, dtype, channels=channels, compile=compile)
        mean, std = (
            torch.tensor(values, device=device).repeat(width)
            for values in (backbone.mean, backbone.std)
        )
        ready = ReadyNetwork(module, mean, std, dtype)
        _ready[backbone] = key, ready
    return ready


def iter_maps(
    network: ReadyNetwork, pixels: torch.Tensor, device: torch.device
) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """Yield a slice of the images, and their maps (n, height, width, channels), one per layer."""
    size = CPU_PART if device.type == "cpu" else len(pixels)
    for start in range(0, len(pixels), size):
        rows = slice(start, start + size)
        images = _normalise(pixels[rows].to(device), network.mean, network.std)
        with (
            full_float32(device)
            if network.dtype == torch.float32
            else torch.autocast(device.type, network.dtype)
        ):
            maps = network.module(images)
        yield rows, [layer_maps.permute(0, 2, 3, 1) for layer_maps in maps]


def _normalise(pixels, mean, std):
    """Pixels as the network takes them, channels last; mean and std are those of a row's values."""
    # By rows, because torch is slow at loops over three channels.
    rows = to_float(pixels.permute(0, 2, 3, 1).flatten(2)).sub(mean).div_(std)
    return rows.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
