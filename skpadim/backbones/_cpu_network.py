"""A network made faster on a CPU: Winograd's convolutions, which rectify and add as they write."""

from __future__ import annotations

import copy

import torch
from torch import nn

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._hooks import run_in_a_row
from skpadim.backbones._module import SMALL_PROBE_SIZE
from skpadim.backbones._residual import FoldedBlock, is_folded_block
from skpadim.backbones._winograd import WinogradConv2d, can_be_winograd, has_winograd


def with_winograd(network: Backbone, dtype: torch.dtype = torch.float32) -> Backbone:
    """The backbone, or a copy with Winograd's convolutions if they can be compiled for this CPU.

    Should a copy not give the same maps, less is replaced, and at last nothing: a module may count
    on its convolutions being the very objects that it has made, or use their outputs twice.

    Parameters
    ----------
    network : Backbone
        In float32.
    dtype : torch.dtype, default=torch.float32
        What the network will run in, by autocast.
    """
    if not any(map(can_be_winograd, network.modules())) or not has_winograd(dtype):
        return network
    images = torch.rand(1, 3, *SMALL_PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    layers = tuple(network.layers)
    with torch.no_grad():
        expected = network(images, layers)
        for is_joined in (True, False):
            try:
                fast = network.with_modules(copy.deepcopy(network._modules))
                if is_joined:
                    _join(fast, images, layers)
                _replace(fast, can_be_winograd, WinogradConv2d)
                if _are_close(fast(images, layers), expected):
                    return fast
            except Exception:  # of the module's own code
                continue
    return network


def _join(network, images, layers):
    """Let convolutions do, in place, what is done to their outputs next."""
    _replace(network, is_folded_block, FoldedBlock)
    for block in network.modules():
        if isinstance(block, FoldedBlock):
            _replace(block.convolutions, can_be_winograd, _rectifying)
    pairs = run_in_a_row(
        network, lambda: network(images, layers), can_be_winograd, lambda m: type(m) is nn.ReLU
    )
    convolutions = {convolution for convolution, _ in pairs}
    rectifications = {rectification for _, rectification in pairs}
    _replace(network, convolutions.__contains__, _rectifying)
    _replace(network, rectifications.__contains__, lambda _: nn.Identity())


def _rectifying(convolution):
    return WinogradConv2d(convolution, rectifies=True)


def _replace(network, is_replaced, make):
    """Put others in the place of some submodules, one for each whatever the number of its names."""
    replaced = {}
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child is not None and is_replaced(child):
                if child not in replaced:
                    replaced[child] = make(child)
                parent._modules[name] = replaced[child]


def _are_close(maps, expected):
    return all(
        torch.allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.std()))
        for got, wanted in zip(maps, expected, strict=True)
    )
