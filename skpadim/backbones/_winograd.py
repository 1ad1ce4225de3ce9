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

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._module import SMALL_PROBE_SIZE

# With fewer channels the transforms cost what the products save.
_MIN_CHANNELS = 16


class WinogradConv2d(nn.Conv2d):
    """A 3 x 3 convolution with stride 1 and padding 1 that multiplies less on a CPU.

    It is for inference in float32, of ordinary tensors. What is not that, such as other precisions,
    devices, or gradients, is convolved plainly. It differs from the exact convolution by about 2e-6
    of the largest output, the plain one by 1e-6; an infinite input makes all outputs of its tiles
    NaN. The transformed kernels take four times the memory of the weights.

    Parameters
    ----------
    convolution : nn.Conv2d
        One for which :func:`can_be_winograd` holds; its weights and other attributes are shared.
    """

    def __init__(self, convolution):
        nn.Module.__init__(self)
        for name, value in vars(convolution).items():
            self.__dict__[name] = copy.copy(value) if isinstance(value, dict) else value
        self._transformed = None

    def forward(self, images):
        """Map (n, in_channels, height, width) to (n, out_channels, height, width)."""
        if not self._is_plain_inference(images):
            return super().forward(images)
        images = images.permute(0, 2, 3, 1).contiguous()
        outputs = _kernel().convolve(images, *self._kernels_and_bias(), self.out_channels)
        return outputs.permute(0, 3, 1, 2)

    def _is_plain_inference(self, images):
        tensors = [tensor for tensor in (images, self.weight, self.bias) if tensor is not None]
        return (
            all(_is_float32_on_cpu(tensor) for tensor in tensors)
            and type(images) is torch.Tensor
            and images.ndim == 4
            and images.shape[1] == self.in_channels
            and images.numel() > 0
            and not images.is_neg()
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()
            and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
            and _kernel() is not None
        )

    def _kernels_and_bias(self):
        """What the compiled convolution takes; made anew when the parameters have changed."""
        parameters = self.weight, self.bias
        known = [(id(tensor), _version(tensor)) for tensor in parameters]
        transformed = self._transformed  # once: another thread may replace it
        if transformed is None or transformed[0] != known:
            kernels = _kernel().transform_kernels(self.weight)
            bias = self.weight.new_zeros(kernels.shape[1] * kernels.shape[3])
            if self.bias is not None:
                bias[: self.out_channels] = self.bias.detach()
            # The parameters too: as long as they are held, no others have their ids.
            self._transformed = transformed = known, parameters, kernels, bias
        return transformed[2:]

    def __getstate__(self):
        return {**self.__dict__, "_transformed": None}


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
        and not {"forward", "_conv_forward"} & vars(module).keys()  # its author computes it
    )


def with_winograd(network: Backbone) -> Backbone:
    """The backbone, or a copy with Winograd's convolutions if they can be compiled for this CPU.

    Should the copy not give the same maps, the backbone itself is returned: a module may count on
    its convolutions being the very objects that it has made.
    """
    if not any(map(can_be_winograd, network.modules())) or _kernel() is None:
        return network
    fast = network.with_modules(copy.deepcopy(network._modules))
    replaced = {}  # one for each convolution, whatever the number of its names
    for parent in list(fast.modules()):
        for name, child in parent._modules.items():
            if child is not None and can_be_winograd(child):
                if child not in replaced:
                    replaced[child] = WinogradConv2d(child)
                parent._modules[name] = replaced[child]
    return fast if _maps_are_the_same(fast, network) else network


def _maps_are_the_same(network, expected):
    images = torch.rand(1, 3, *SMALL_PROBE_SIZE, generator=torch.Generator().manual_seed(0))
    layers = tuple(expected.layers)
    with torch.no_grad():
        expected_maps = expected(images, layers)
        try:
            maps = network(images, layers)
        except Exception:  # of the module's own code
            return False
    return all(
        torch.allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.std()))
        for got, wanted in zip(maps, expected_maps, strict=True)
    )


def _version(tensor):
    """Counts the changes of a tensor."""
    return None if tensor is None or tensor.is_inference() else tensor._version


def _is_float32_on_cpu(tensor):
    is_dense = tensor.layout == torch.strided
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu" and is_dense


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
