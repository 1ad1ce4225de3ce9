"""3 x 3 convolutions by Winograd's minimal filtering: a quarter of the multiplications.

A tile of 4 x 4 outputs takes a window of 6 x 6 inputs, hence F(4 x 4, 3 x 3). Window, kernel and
tile are each transformed along rows and columns, and between them the convolution is 36 matrix
products over the channels, of 36 multiplications a tile instead of 144 (Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.3).
"""

from __future__ import annotations

import copy
import warnings
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from skpadim.backbones._backbone import Backbone

# With fewer channels the transforms cost what the products save.
_MIN_CHANNELS = 16


class WinogradConv2d(nn.Conv2d):
    """A 3 x 3 convolution with stride 1 and padding 1 that multiplies less on a CPU.

    In float32 it differs from the exact convolution by about 2e-6 of the largest output, the plain
    one by 1e-6. In other precisions, on other devices and where gradients are asked for it is the
    plain one.

    Parameters
    ----------
    convolution : nn.Conv2d
        One for which :func:`can_be_winograd` holds; its weights are shared.
    """

    def __init__(self, convolution):
        n_in, n_out = convolution.in_channels, convolution.out_channels
        super().__init__(n_in, n_out, 3, padding=1, device="meta")
        self.weight, self.bias = convolution.weight, convolution.bias
        kernels = _kernel().transform_kernels(self.weight)
        bias = torch.zeros(n_out) if self.bias is None else self.bias.detach().float()
        bias = F.pad(bias, (0, -n_out % kernels.shape[-1]))
        self.register_buffer("kernels", kernels, persistent=False)
        self.register_buffer("padded_bias", bias, persistent=False)

    def forward(self, images):
        """Map (n, in_channels, height, width) to (n, out_channels, height, width)."""
        if images.dtype != torch.float32 or images.device.type != "cpu":
            return super().forward(images)
        if torch.is_grad_enabled() and (images.requires_grad or self.weight.requires_grad):
            return super().forward(images)
        images = images.permute(0, 2, 3, 1).contiguous()
        outputs = _kernel().convolve(images, self.kernels, self.padded_bias, self.out_channels)
        return outputs.permute(0, 3, 1, 2)


def can_be_winograd(module: nn.Module) -> bool:
    """Whether a module is a convolution that :class:`WinogradConv2d` computes, and faster."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.padding == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and module.in_channels % 8 == 0
        and min(module.in_channels, module.out_channels) >= _MIN_CHANNELS
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def with_winograd(network: Backbone) -> Backbone:
    """The backbone, or a copy with Winograd's convolutions if they can be compiled for this CPU."""
    if not any(map(can_be_winograd, network.modules())) or _kernel() is None:
        return network
    network = network.with_modules(copy.deepcopy(network._modules))
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if can_be_winograd(child):
                setattr(parent, name, WinogradConv2d(child))
    return network


@cache
def _kernel():
    """The compiled convolution, or None where there is none: it is for CPUs with AVX2."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    try:
        from skpadim.backbones import _winograd_kernel
    except ImportError:  # no Numba, or none for this system
        return None
    except Exception as error:
        warnings.warn(
            f"Numba cannot compile fast convolutions ({type(error).__name__}: {error}); torch's "
            "are used, which give the same results more slowly.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return _winograd_kernel
