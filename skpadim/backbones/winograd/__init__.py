"""Winograd's convolution: for speed alone. Nobody need read it to know how skpadim works.

On a CPU with AVX2 it computes what ``torch.nn.Conv2d`` does, to rounding, in a third to a half of
the time, which makes a resnet18 nearly twice as fast. :class:`WinogradConv2d` takes a convolution's
place where a network is made ready; where Numba or such a CPU is missing, torch convolves.

Who works on it begins with `_convolution`, the module, and `_transforms`, the method; `_loop` is
what is compiled, in vector instructions (`_vector_code`), kept (`_machine_code`) and run on the
threads that torch has (`_torch_threads`).
"""

from skpadim.backbones.winograd._convolution import WinogradConv2d, can_be_winograd, has_winograd

__all__ = ["WinogradConv2d", "can_be_winograd", "has_winograd"]
