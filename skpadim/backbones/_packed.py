"""Convolutions on the CPU that do what follows them, and whose weights are laid out once.

torch lays the weights of a convolution out anew at each call, as oneDNN wants them. And it writes
the result, then adds the shortcut to it, then applies ReLU, in passes over memory of their own. The
operators that `torch.compile` puts in their place can be called without compiling anything. They
have no public name, so whoever packs a network compares what it gives with what it gave before.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

import torch
from torch import nn
from torchvision.models import ResNet

from skpadim.backbones._residual import NarrowBlock, residual_convolutions


class PackedConv2d(nn.Module):
    """A convolution in oneDNN's layout, with ReLU if asked for.

    Parameters
    ----------
    convolution : Conv2d
        See :func:`can_be_packed`.
    shape : torch.Size
        Of the input that it is laid out for; others are taken too, at some cost.
    relu : bool, default=False
        Apply ReLU to the result.
    """

    def __init__(self, convolution, shape, *, relu=False):
        super().__init__()
        self._geometry = (convolution.padding, convolution.stride, convolution.dilation)
        self._groups = convolution.groups
        self._activation = "relu" if relu else "none"
        self.bias = convolution.bias
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(
            convolution.weight.detach(), *self._geometry, self._groups, shape
        )

    def forward(self, images, shortcut=None):
        """Map (n, in_channels, h, w) to (n, channels, h, w); add `shortcut` before the ReLU."""
        convolve = torch.ops.mkldnn._convolution_pointwise
        weights = (self.weight, self.bias, *self._geometry, self._groups)
        if shortcut is None:
            return convolve(images, *weights, self._activation, [], None)
        return convolve.binary(images, shortcut, *weights, "add", 1.0, self._activation, [], None)


class PackedBlock(nn.Module):
    """A residual block of packed convolutions, its batch norms folded.

    Parameters
    ----------
    convolutions : list of PackedConv2d
        From first to last, with ReLU.
    shortcut : nn.Module or None
        What the block's input goes through before it is added; None leaves it as it is.
    channels : tensor of int or None
        The channels of the shortcut that are added; None adds all.
    """

    def __init__(self, convolutions, shortcut, channels):
        super().__init__()
        self.first, self.last = nn.Sequential(*convolutions[:-1]), convolutions[-1]
        self.shortcut, self.channels = shortcut, channels

    def forward(self, images):
        """Map (n, in_channels, h, w) to (n, channels, h, w)."""
        shortcut = images if self.shortcut is None else self.shortcut(images)
        if self.channels is not None:
            shortcut = shortcut.index_select(1, self.channels)
        return self.last(self.first(images), shortcut)


def can_be_packed(module: nn.Module) -> bool:
    """Whether a module is a convolution that oneDNN computes in float32 on this CPU."""
    return (
        type(module) is nn.Conv2d
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


def pack(
    module: nn.Module,
    keep: Set[str],
    shapes: Mapping[nn.Module, torch.Size],
    name: str = "",
) -> nn.Module:
    """Copy of a module with its convolutions packed; what is not packed is shared.

    Parameters
    ----------
    module : nn.Module
        Its batch norms folded, where they can be.
    keep : set of str
        Full names of submodules whose outputs are asked for.
    shapes : mapping of Conv2d to torch.Size
        Of the input of each convolution that can be packed and runs.
    name : str, default=""
        Full name of `module`.
    """
    if module in shapes:
        return PackedConv2d(module, shapes[module])
    prefix = f"{name}." if name else ""
    if not any(kept.startswith(prefix) for kept in keep):
        block = _pack_block(module, shapes)
        if block is not None:
            return block
    children = {
        child_name: pack(child, keep, shapes, prefix + child_name)
        for child_name, child in module.named_children()
    }
    if keep.isdisjoint(prefix + child for child in ("conv1", "bn1", "relu")):
        children |= _pack_stem(module, shapes)
    return _with_children(module, children)


def _pack_stem(module, shapes):
    """What stands for the first convolution and ReLU of a ResNet; nothing for all else."""
    if type(module) is not ResNet or not isinstance(module.bn1, nn.Identity):
        return {}
    if module.conv1 not in shapes:
        return {}
    convolution = PackedConv2d(module.conv1, shapes[module.conv1], relu=True)
    return {"conv1": convolution, "relu": nn.Identity()}


def _pack_block(module, shapes):
    """Packed copy of a residual block of torchvision, or of its narrow form; None of all else."""
    if isinstance(module, NarrowBlock):
        convolutions = [layer for layer in module.convolutions if isinstance(layer, nn.Conv2d)]
        shortcut, channels = None, module.channels
    else:
        convolutions = residual_convolutions(module)
        shortcut, channels = getattr(module, "downsample", None), None
    if not convolutions or not all(layer in shapes for layer in convolutions):
        return None
    packed = [PackedConv2d(layer, shapes[layer], relu=True) for layer in convolutions]
    return PackedBlock(
        packed, shortcut if shortcut is None else pack(shortcut, set(), shapes), channels
    )


def _with_children(module, children):
    """Copy of a module with other children, that shares its parameters."""
    if all(children[name] is child for name, child in module.named_children()):
        return module
    copied = object.__new__(type(module))
    vars(copied).update(vars(module))
    copied._modules = {**module._modules, **children}
    return copied
