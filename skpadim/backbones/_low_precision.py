"""Networks whose weights are held in the precision that they are computed in."""

from __future__ import annotations

import copy

import torch
from torch import nn

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._module import SMALL_PROBE_SIZE
from skpadim.backbones._winograd import WinogradConv2d


def with_low_precision_weights(network: Backbone, dtype: torch.dtype) -> Backbone:
    """Copy of a backbone that holds the weights of convolutions and linear layers in `dtype`.

    Autocast would convert them to it for every batch. Winograd's convolutions transform theirs,
    which takes float32. A network that does not run so, as one that switches autocast off for a
    part of itself, is returned as it is.
    """
    converted = network.with_modules(copy.deepcopy(network._modules))
    for module in converted.modules():
        is_converted = isinstance(module, (nn.Conv2d, nn.Linear))
        if is_converted and not isinstance(module, WinogradConv2d):
            module.to(dtype)
    return converted if _runs(converted, dtype) else network


def _runs(network, dtype):
    device = next(network.parameters(), torch.empty(0)).device
    images = torch.zeros(1, 3, *SMALL_PROBE_SIZE, device=device)
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype):
            network(images, tuple(network.layers))
    except Exception:  # of the module's own code
        return False
    return True
