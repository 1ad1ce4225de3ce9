"""Networks whose weights are held in the precision that they are computed in."""

from __future__ import annotations

import copy

import torch
from torch import nn

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._winograd import WinogradConv2d


def with_low_precision_weights(network: Backbone, dtype: torch.dtype) -> Backbone:
    """Copy of a backbone that holds the weights of convolutions and linear layers in `dtype`.

    Autocast would convert them to it for every batch. Winograd's convolutions transform theirs,
    which takes float32.
    """
    network = network.with_modules(copy.deepcopy(network._modules))
    for module in network.modules():
        is_converted = isinstance(module, (nn.Conv2d, nn.Linear))
        if is_converted and not isinstance(module, WinogradConv2d):
            module.to(dtype)
    return network
