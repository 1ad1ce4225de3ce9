"""3 x 3 convolutions by Winograd's minimal filtering: a quarter of the multiplications.

A tile of 4 x 4 outputs takes a window of 6 x 6 inputs, hence F(4 x 4, 3 x 3). Window, kernel and
tile are each transformed along rows and columns, and between them the convolution is 36 matrix
products over the channels, of 36 multiplications a tile instead of 144 (Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", arXiv 1509.09308, section 4.3).
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from skpadim.backbones._backbone import Backbone

_TILE, _WINDOW = 4, 6
# The points 0, ±a, ±b and infinity, with a² = 1/2 and b² = 2: the transforms' factors then are the
# closest to one, and so is what they do to rounding errors.
_A, _B = 0.5**0.5, 2**0.5
# Kernel to its values at these points; scaled as the other transforms ask for.
_KERNEL_TRANSFORM = torch.tensor(
    [
        [1, 0, 0],
        *([-2 / 3, -2 / 3 * sign * _A, -1 / 3] for sign in (1, -1)),
        *([1 / 6, 1 / 6 * sign * _B, 1 / 3] for sign in (1, -1)),
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
# With fewer channels the transforms cost what the products save.
_MIN_CHANNELS = 128
# Images are taken together as long as their transformed windows stay in the caches, and so many
# that a product has this many rows, or reading the kernels would be most of it.
_MAX_WINDOWS_BYTES = 4 * 2**20
_MIN_ROWS = 128


class WinogradConv2d(nn.Conv2d):
    """A 3 x 3 convolution with stride 1 and padding 1 that multiplies less on a CPU.

    In float32 it differs from the exact convolution by about 2e-6 of the largest output, the plain
    one by 1e-6. In other precisions, on other devices and on maps of less than a window it is the
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
        kernels = torch.einsum(
            "ia,jb,ocab->jico", _KERNEL_TRANSFORM, _KERNEL_TRANSFORM, self.weight.detach().double()
        )
        kernels = kernels.reshape(_WINDOW**2, n_in, n_out).float()
        self.register_buffer("kernels", kernels, persistent=False)

    def forward(self, images):
        """Map (n, in_channels, height, width) to (n, out_channels, height, width)."""
        if images.dtype != torch.float32 or images.device.type != "cpu":
            return super().forward(images)
        if min(images.shape[2:]) < _WINDOW:
            return super().forward(images)
        images = images.permute(0, 2, 3, 1)
        n_images, height, width, n_in = images.shape
        rows, columns = -(-height // _TILE), -(-width // _TILE)
        outputs = torch.empty(n_images, rows, _TILE, columns * _TILE, self.out_channels)
        bytes_of_one = 4 * _WINDOW**2 * rows * columns * max(n_in, self.out_channels)
        size = max(_MAX_WINDOWS_BYTES // bytes_of_one, -(-_MIN_ROWS // (rows * columns)))
        for start in range(0, n_images, size):
            part = slice(start, start + size)
            below, right = rows * _TILE - height + 1, columns * _TILE - width + 1
            padded = F.pad(images[part], (0, 0, 1, right, 1, below))
            self._convolve(padded, outputs[part])
        outputs = outputs.flatten(1, 2)[:, :height, :width]
        return outputs.contiguous().permute(0, 3, 1, 2)

    def _convolve(self, padded, outputs):
        """Convolve padded images (n, 4 rows + 2, 4 columns + 2, channels) into `outputs`."""
        n_images, rows, _, width, n_out = outputs.shape
        columns, n_in = width // _TILE, padded.shape[-1]
        along_rows = torch.empty(_WINDOW, n_images, rows, width + 2, n_in)
        _transform_windows(_every_fourth(padded, 1, rows), along_rows)
        windows = torch.empty(_WINDOW, _WINDOW, n_images, rows, columns, n_in)
        _transform_windows(_every_fourth(along_rows, 3, columns), windows)
        products = torch.bmm(windows.view(_WINDOW**2, -1, n_in), self.kernels)
        products = products.view(_WINDOW, _WINDOW, n_images, rows, columns, n_out)
        along_rows = torch.empty(_WINDOW, n_images, rows, columns, _TILE, n_out)
        _transform_products(products, along_rows.unbind(4))
        along_rows = along_rows.view(_WINDOW, n_images, rows, width, n_out)
        _transform_products(along_rows, outputs.unbind(2))
        if self.bias is not None:
            outputs += self.bias


def _every_fourth(images, axis, n_tiles):
    """The six inputs of all windows along an axis: views that begin at 0 to 5, in steps of 4."""
    index = [slice(None)] * axis
    stop = (n_tiles - 1) * _TILE + 1
    return [images[(*index, slice(i, i + stop, _TILE))] for i in range(_WINDOW)]


def _transform_windows(inputs, outputs):
    """The six inputs of a window to its values at the six points, along the first axis."""
    in0, in1, in2, in3, in4, in5 = inputs
    out0, out1, out2, out3, out4, out5 = outputs.unbind()
    torch.sub(in4, in2, alpha=2.5, out=out0).add_(in0)
    torch.sub(in5, in3, alpha=2.5, out=out5).add_(in1)
    torch.sub(in4, in2, alpha=2, out=out1)
    torch.sub(in3, in1, alpha=2, out=out2)
    _sum_and_difference(out1, out2, alpha=_A)  # (in4 - b² in2) ± a (in3 - b² in1)
    torch.sub(in4, in2, alpha=0.5, out=out3)
    torch.sub(in3, in1, alpha=0.5, out=out4)
    _sum_and_difference(out3, out4, alpha=_B)  # (in4 - a² in2) ± b (in3 - a² in1)


def _transform_products(products, outputs):
    """Values at the six points, which are overwritten, to the four outputs of a tile."""
    at0, sum1, difference1, sum2, difference2, at_infinity = products.unbind()
    out0, out1, out2, out3 = outputs
    _sum_and_difference(sum1, difference1)
    _sum_and_difference(sum2, difference2)
    torch.add(sum1, sum2, out=out0).add_(at0)
    difference1 *= _A
    difference2 *= _B
    torch.add(difference1, difference2, out=out1)
    torch.mul(sum1, 0.5, out=out2).add_(sum2, alpha=2)
    torch.mul(difference1, 0.5, out=out3).add_(difference2, alpha=2).add_(at_infinity)


def _sum_and_difference(first, second, alpha=1):
    """Replace two tensors by ``first ± alpha * second``."""
    first.add_(second, alpha=alpha)
    torch.sub(first, second, alpha=2 * alpha, out=second)


def can_be_winograd(module: nn.Module) -> bool:
    """Whether a module is a convolution that :class:`WinogradConv2d` computes, and faster."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.padding == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) >= _MIN_CHANNELS
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


def with_winograd(network: Backbone) -> Backbone:
    """The backbone, or a copy with Winograd's convolutions where those are faster.

    That was measured on CPUs with AVX2. With AVX-512 the plain convolution is twice as fast, and
    the transforms, which the memory bounds, are not.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return network
    network = network.with_modules(copy.deepcopy(network._modules))
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if can_be_winograd(child):
                setattr(parent, name, WinogradConv2d(child))
    return network
