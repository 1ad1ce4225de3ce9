"""Residual blocks of torchvision as their convolutions alone, and of some output channels only."""

from __future__ import annotations

import copy

import torch
from torch import nn

from skpadim.backbones._hooks import is_as_written
from skpadim.backbones._winograd import rectified

# Convolutions of torchvision's blocks, each with a batch norm after it. By the classes' names: to
# import torchvision takes as long as all else.
_CONVOLUTIONS = {"BasicBlock": 2, "Bottleneck": 3}


class FoldedBlock(nn.Module):
    """A residual block whose batch norms are folded into its convolutions.

    Parameters
    ----------
    block : BasicBlock or Bottleneck
        One for which :func:`is_folded_block` holds; its convolutions are shared.
    """

    def __init__(self, block):
        super().__init__()
        names = (f"conv{i + 1}" for i in range(_n_convolutions(block)))
        self.convolutions = nn.ModuleList(getattr(block, name) for name in names)
        self.shortcut = nn.Identity() if block.downsample is None else block.downsample

    def forward(self, images):
        """Map (n, in_channels, h, w) to (n, out_channels, h or h / 2, w or w / 2)."""
        shortcut = self.shortcut(images)
        *convolutions, last = self.convolutions
        for convolution in convolutions:
            images = rectified(convolution, images)
        return rectified(last, images, shortcut)


class _Channels(nn.Module):
    """Some channels of its input."""

    def __init__(self, channels):
        super().__init__()
        self.register_buffer("channels", torch.as_tensor(channels), persistent=False)

    def forward(self, images):
        return images.index_select(1, self.channels)


def is_folded_block(module: nn.Module) -> bool:
    """Whether a module is a residual block of torchvision without batch norms."""
    return (
        _n_convolutions(module) > 0
        and type(module.relu) is nn.ReLU
        and all(
            isinstance(getattr(module, f"bn{i + 1}"), nn.Identity)
            for i in range(_n_convolutions(module))
        )
        and all(map(is_as_written, module.modules()))
    )


def narrow_residual_block(stage: nn.Module, channels) -> nn.Module | None:
    """Copy of a block, or of a stage that ends with one, that computes only some channels.

    Parameters
    ----------
    stage : nn.Module
        A residual block without downsampling and batch norms, or a sequence that ends with one.
    channels : ndarray of int
        The output channels to compute.

    Returns
    -------
    narrow : nn.Module or None
        None if `stage` is neither.
    """
    if isinstance(stage, nn.Sequential) and len(stage) > 0:
        last = narrow_residual_block(stage[-1], channels)
        return None if last is None else nn.Sequential(*stage[:-1], last)
    if not is_folded_block(stage) or stage.downsample is not None or len(channels) == 0:
        return None
    last = getattr(stage, f"conv{_n_convolutions(stage)}")
    if type(last) is not nn.Conv2d or last.groups != 1:
        return None
    narrow = FoldedBlock(copy.deepcopy(stage))
    narrow.convolutions[-1] = _narrow_convolution(narrow.convolutions[-1], channels)
    narrow.shortcut = _Channels(channels)
    return narrow


def _n_convolutions(module):
    """Number of convolutions of a block, 0 of what is none."""
    kind = type(module)
    is_torchvisions = kind.__module__ == "torchvision.models.resnet"
    return _CONVOLUTIONS.get(kind.__name__, 0) if is_torchvisions else 0


def _narrow_convolution(convolution, channels):
    """The convolution, changed to some of its output channels."""
    indices = torch.as_tensor(channels)
    convolution.out_channels = len(indices)
    for name in ("weight", "bias"):
        values = getattr(convolution, name)
        if values is not None:
            setattr(convolution, name, nn.Parameter(values[indices], requires_grad=False))
    return convolution.to(memory_format=torch.channels_last)
