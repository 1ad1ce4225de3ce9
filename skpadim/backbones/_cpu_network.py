"""A network made faster on a CPU: Winograd's convolutions, which rectify and add as they write."""

from __future__ import annotations

import copy

import torch
from torch import nn

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._hooks import are_close, handed_over, is_as_written, run_in_a_row
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
    layers = tuple(network.layers)
    with torch.no_grad():
        # Two, for what depends on the images. They have values such as normalised ones have.
        probes = [4 * torch.rand(1, 3, *SMALL_PROBE_SIZE, generator=_seeded(i)) - 2 for i in (0, 1)]
        try:
            expected = [network(images, layers) for images in probes]
        except Exception:  # of the module's own code, which may take images of one size only
            return network
        for is_joined in (True, False):
            try:
                fast = network.with_modules(copy.deepcopy(network._modules))
                if is_joined:
                    _join(fast, lambda fast=fast: fast(probes[0], layers), expected[0])
                _replace(fast, can_be_winograd, WinogradConv2d)
                got = [fast(images, layers) for images in probes]
            except Exception:
                continue
            if all(are_close(*maps) for maps in zip(got, expected, strict=True)):
                return fast
    return network


def _join(network, run, expected):
    """Let convolutions do, in place, what is done to their outputs next."""
    _replace(network, is_folded_block, FoldedBlock)
    for block in list(network.modules()):
        if isinstance(block, FoldedBlock):
            _replace(block.convolutions, can_be_winograd, _rectifying)

    def is_alone(pair):
        """Whether nobody but the second sees what the first returns."""
        with handed_over([pair]):
            return are_close(run(), expected)

    pairs = filter(is_alone, run_in_a_row(network, run, can_be_winograd, _is_rectification))
    for convolution, rectification in list(pairs):
        _replace(network, lambda m, c=convolution: m is c, _rectifying)
        _replace(network, lambda m, r=rectification: m is r, lambda _: nn.Identity())


def _is_rectification(module):
    return type(module) is nn.ReLU and is_as_written(module)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


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
