"""Residual blocks of torchvision that compute only the output channels that are used."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

# Convolutions of a block, from first to last, and the batch norms after them.
_CONVOLUTIONS = {BasicBlock: 2, Bottleneck: 3}


class NarrowBlock(nn.Module):
    """A residual block without downsampling, its batch norms folded, with some output channels.

    Parameters
    ----------
    block : BasicBlock or Bottleneck
    channels : ndarray of int
        The output channels to compute.
    """

    def __init__(self, block, channels):
        super().__init__()
        names = [f"conv{i + 1}" for i in range(_CONVOLUTIONS[type(block)])]
        *convolutions, last = (copy.deepcopy(getattr(block, name)) for name in names)
        indices = torch.as_tensor(channels)
        with torch.no_grad():
            narrow = nn.Conv2d(
                last.in_channels,
                len(indices),
                last.kernel_size,
                last.stride,
                last.padding,
                last.dilation,
            )
            narrow.weight = nn.Parameter(last.weight[indices], requires_grad=False)
            narrow.bias = nn.Parameter(last.bias[indices], requires_grad=False)
        layers = []
        for convolution in convolutions:
            layers += [convolution, nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers, narrow.to(memory_format=torch.channels_last))
        self.register_buffer("channels", indices, persistent=False)

    def forward(self, images):
        """Map (n, in_channels, h, w) to (n, channels, h, w)."""
        return torch.relu_(self.convolutions(images) + images.index_select(1, self.channels))


def narrow_residual_block(stage: nn.Module, channels) -> nn.Module | None:
    """Copy of a block, or of a stage that ends with one, that computes only some channels.

    Parameters
    ----------
    stage : nn.Module
        A residual block, or a sequence of them.
    channels : ndarray of int

    Returns
    -------
    narrow : nn.Module or None
        None if `stage` is neither.
    """
    if isinstance(stage, nn.Sequential) and len(stage) > 0:
        last = narrow_residual_block(stage[-1], channels)
        return None if last is None else nn.Sequential(*stage[:-1], last)
    if type(stage) not in _CONVOLUTIONS or stage.downsample is not None or len(channels) == 0:
        return None
    n_convolutions = _CONVOLUTIONS[type(stage)]
    norms = [getattr(stage, f"bn{i + 1}") for i in range(n_convolutions)]
    if not all(isinstance(norm, nn.Identity) for norm in norms):
        return None
    return NarrowBlock(stage, channels)
