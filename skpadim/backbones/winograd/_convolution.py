"""Convolutions by Winograd's minimal filtering: a quarter of the multiplications.

A tile of 4 x 4 outputs of a 3 x 3 convolution takes a window of 6 x 6 inputs, hence
F(4 x 4, 3 x 3). Window, kernel and tile are each transformed along rows and columns, and between
them the convolution is 36 matrix products over the channels, of 36 multiplications a tile instead
of 144 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv 1509.09308,
section 4.3). The 7 x 7 convolution with stride 2 that many networks begin with is one of 4 x 4 on
pairs of pixels, F(3 x 3, 4 x 4).
"""

from __future__ import annotations

import copy
import warnings
from functools import cache
from importlib import import_module

import torch
from torch import nn

from skpadim.backbones._hooks import is_as_written

# With fewer channels the transforms cost what the products save. A register never holds more.
_MIN_CHANNELS = 16


class WinogradConv2d(nn.Conv2d):
    """A convolution that multiplies less on a CPU, and rectifies what it writes if it is told to.

    It is for inference in float32, of ordinary tensors; under autocast to bfloat16 its inputs and
    outputs are bfloat16, what is between them is not. What is not that, such as other precisions,
    devices, or gradients, is convolved plainly, and so is what has fewer input channels than a
    register holds, or kernels of another size. It differs from the exact convolution by about 2e-6
    of the largest output, the plain one by 1e-6; an infinite input makes all outputs of its tiles
    NaN. Attributes are shared with `convolution`; the transformed kernels take four times the
    memory of its weights.
    """

    def __init__(self, convolution, rectifies=False):
        nn.Module.__init__(self)
        for name, value in vars(convolution).items():
            self.__dict__[name] = copy.copy(value) if isinstance(value, dict) else value
        self.rectifies = rectifies
        self._transformed = None

    def forward(self, images, added=None):
        """Map (n, in_channels, height, width) to (n, out_channels, out_height, out_width).

        `added`, of the outputs' shape, is added to them before they are rectified.
        """
        dtype = _autocast_dtype() or images.dtype
        if not self._is_plain_inference(images, added, dtype):
            outputs = super().forward(images)
            if added is not None:
                outputs = outputs + added
            return outputs.relu() if self.rectifies else outputs
        outputs = compiled_loop(dtype).convolve(
            images.to(dtype).permute(0, 2, 3, 1).contiguous(),
            *self._kernels_and_bias(),
            self.out_channels,
            stride=self.stride[0],
            rectify=self.rectifies,
            added=None if added is None else added.to(dtype).permute(0, 2, 3, 1).contiguous(),
        )
        return outputs.permute(0, 3, 1, 2)

    def _is_plain_inference(self, images, added, dtype):
        parameters = [tensor for tensor in (self.weight, self.bias) if tensor is not None]
        return (
            all(_is_readable(tensor, torch.float32) for tensor in parameters)
            and (_is_readable(images, torch.float32) or _is_readable(images, dtype))
            and (dtype == torch.float32 or _autocast_dtype() == dtype)
            and images.ndim == 4
            and images.shape[1] == self.in_channels
            and images.numel() > 0
            and (added is None or self._can_add(added, images, dtype))
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and compiled_loop(dtype) is not None
            and _is_for_loop(self, compiled_loop(dtype).LANES)
            and _has_its_shapes(self)
        )

    def _can_add(self, added, images, dtype):
        stride = self.stride[0]
        size = ((length - 1) // stride + 1 for length in images.shape[2:])
        return (
            stride == 1
            and added.shape == (len(images), self.out_channels, *size)
            and (_is_readable(added, torch.float32) or _is_readable(added, dtype))
        )

    def _kernels_and_bias(self):
        """What the compiled convolution takes; made anew when the parameters have changed."""
        parameters = self.weight, self.bias
        known = [_identity(tensor) for tensor in parameters]
        transformed = self._transformed  # once: another thread may replace it
        if transformed is None or transformed[0] != known:
            kernels = compiled_loop().kernels_as_read(self.weight, self.stride[0])
            bias = self.weight.new_zeros(kernels.shape[1] * kernels.shape[3])
            if self.bias is not None:
                bias[: self.out_channels] = self.bias.detach()
            # Their memory too: as long as it is held, no others lie there.
            memory = [None if t is None else t.detach() for t in parameters]
            self._transformed = transformed = known, memory, kernels, bias
        return transformed[2:]

    def __getstate__(self):
        return {**self.__dict__, "_transformed": None}


def can_be_winograd(module: nn.Module) -> bool:
    """Whether a module is a convolution that :class:`WinogradConv2d` computes, and faster."""
    return (
        type(module) is nn.Conv2d
        and _is_for_loop(module, _MIN_CHANNELS)
        and module.out_channels >= _MIN_CHANNELS
        and is_as_written(module)
    )


def has_winograd(dtype: torch.dtype) -> bool:
    """Whether this machine has the compiled convolution for images of a dtype."""
    return compiled_loop(dtype) is not None


def _is_for_loop(convolution, min_channels):
    """Whether the loop computes this: 3 x 3 of so many channels, or 7 x 7 pixels with stride 2."""
    geometry = convolution.kernel_size, convolution.stride, convolution.padding
    if geometry == ((3, 3), (1, 1), (1, 1)):
        is_of_channels = convolution.in_channels >= min_channels
    else:
        is_first_of_a_network = geometry == ((7, 7), (2, 2), (3, 3))
        is_of_channels = is_first_of_a_network and convolution.in_channels == 3
    return (
        is_of_channels
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
    )


def _has_its_shapes(convolution):
    """Whether the parameters, which anybody may replace, are as large as the attributes say."""
    n_out, n_in, bias = convolution.out_channels, convolution.in_channels, convolution.bias
    is_whole = convolution.weight.shape == (n_out, n_in, *convolution.kernel_size)
    return is_whole and (bias is None or bias.shape == (n_out,))


def _identity(tensor):
    """Where a tensor lies, and how often it has been changed."""
    if tensor is None:
        return None
    return tensor.data_ptr(), tensor.stride(), None if tensor.is_inference() else tensor._version


def _autocast_dtype():
    """What convolutions are computed in by autocast, or None."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


def _is_readable(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a loop may take a tensor's numbers from its memory: it is what it seems to be."""
    return (
        tensor.dtype == dtype
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and not tensor.is_neg()
        and not (torch.is_grad_enabled() and tensor.requires_grad)
        and _has_memory(tensor)
    )


def _has_memory(tensor):
    try:
        return tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:  # one of a transformed function, such as torch.func.vmap's
        return False


@cache
def compiled_loop(dtype=torch.float32):
    """The module of the compiled convolution, or None where there is none for such numbers."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):  # it takes AVX2
        return None
    try:
        from skpadim.backbones.winograd._machine_code import vector_width

        vector_width()  # whose error is the developer's, and not excused as a compiler's is below
    except ImportError:
        return None
    try:
        loop = import_module("skpadim.backbones.winograd._loop")
        loop.compiled(dtype)
    except (ImportError, NotImplementedError):  # no Numba, none for this system, or this dtype
        return None
    except Exception as error:
        warnings.warn(
            f"Numba cannot compile fast loops ({type(error).__name__}: {error}); torch's operations"
            " are used, which give the same results more slowly.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return loop
