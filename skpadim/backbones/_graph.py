"""A network made ready for many images: only what is asked for, in few and fast steps.

`torch.fx` records what a backbone computes up to its layers. In that graph batch norms are folded
into convolutions, convolutions add and rectify as they write, by Winograd's method on a CPU, and
channels that nobody uses are left out. A network that cannot be recorded runs as it is written.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
from contextlib import nullcontext
from operator import attrgetter

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._hooks import is_as_written
from skpadim.backbones._tracer import Maps, record
from skpadim.backbones.winograd import WinogradConv2d, can_be_winograd, has_winograd

_ADDITIONS = (operator.add, torch.add, "add")
_RECTIFICATIONS = (torch.relu, F.relu, "relu")
# Modules that write to new memory, whatever they are given.
_WRITERS = (_ConvNd, _NormBase, nn.Linear, nn.LayerNorm, nn.GroupNorm)
_CHECKED_SIZE = (96, 128)  # the smallest that every network of torchvision takes, or near it


def make_ready(
    backbone: Backbone,
    layers: tuple[str, ...],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    channels=None,
    compile: bool = False,
) -> nn.Module:
    """A module that maps normalised images to the backbone's maps of some layers, fast.

    `backbone`, on the CPU and in float32, is not changed; the module will run on `device` in
    `dtype`, by autocast. Of the last layer it returns `channels` (ndarray of int) alone, or all if
    nothing can be saved by that. `compile` is for :func:`torch.compile`.
    """
    uses_winograd = device.type == "cpu" and not compile and has_winograd(dtype)
    try:
        network = _optimised(backbone, layers, device, dtype, channels, uses_winograd)
    except Exception:  # of the backbone's own code, and the many kinds that torch.fx raises
        network = Maps(copy.deepcopy(backbone), layers)
    network = network.to(device)
    return _Compiled(network, backbone.name) if compile else network


def _optimised(backbone, layers, device, dtype, channels, uses_winograd):
    """What :func:`make_ready` returns of a network that can be recorded, still on the CPU."""
    with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
        network = record(backbone, layers)
    _fold_batch_norms(network)
    _join(network)
    if channels is not None and len(channels) > 0:
        _narrow(network, channels)
    network.to(memory_format=torch.channels_last)
    _put_convolutions(network, uses_winograd)
    _write_in_place(network)
    network.delete_all_unused_submodules()
    network.recompile()
    _check(network, backbone, layers, channels)
    if dtype != torch.float32:
        _convert_weights(network, dtype)
    return network


class _Compiled(nn.Module):
    """A compiled network, which says what to do where there is no compiler."""

    def __init__(self, network, name):
        super().__init__()
        self.network, self.name = torch.compile(network), name

    def forward(self, images):
        from torch._dynamo.exc import BackendCompilerFailed

        try:
            return self.network(images)
        except BackendCompilerFailed as error:
            raise RuntimeError(
                f"compile=True: torch could not compile {self.name} ({error}). It needs a C++ "
                "compiler (on a GPU, Triton): install one, or set compile=False."
            ) from error


class RectifiedConv2d(nn.Conv2d):
    """A convolution, then an addition if there is one, then ReLU, all in the memory of the first.

    `limit` is 6 for ReLU6. Weights and other attributes are shared with the `convolution` that it
    is made of.
    """

    def __init__(self, convolution, limit=math.inf):
        nn.Module.__init__(self)
        vars(self).update(vars(convolution))
        self.limit = limit
        self.takes_one_step = limit < math.inf and _clips_in_one_step(convolution)

    def forward(self, images, added=None):
        """Map images as the convolution does; `added` is added to its outputs."""
        is_cast = images.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if self.takes_one_step and images.device.type == "cpu" and not is_cast and added is None:
            shape = self.padding, self.stride, self.dilation, self.groups
            limits = "hardtanh", [0.0, self.limit], ""
            convolve = torch.ops.mkldnn._convolution_pointwise
            return convolve(images, self.weight, self.bias, *shape, *limits)
        outputs = super().forward(images)
        if added is not None:
            is_alike = added.shape == outputs.shape and added.dtype == outputs.dtype
            outputs = outputs.add_(added) if is_alike else outputs + added
        return outputs.relu_() if self.limit == math.inf else outputs.clamp_(0, self.limit)


def _clips_in_one_step(convolution):
    """Whether oneDNN can clip the outputs of a convolution as it writes them, NaN aside."""
    tensors = [tensor for tensor in (convolution.weight, convolution.bias) if tensor is not None]
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")  # torch's own, for its compiler
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors)
    )


def _called(network, node):
    """The module that a node calls with one tensor, if it does what its class does."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = network.get_submodule(node.target)
    return module if is_as_written(module) and len(node.args) == 1 and not node.kwargs else None


def _convolution(network, node):
    """The plain convolution that a node calls, if one node alone sees what it returns."""
    module = _called(network, node)
    is_plain = type(module) is nn.Conv2d and "limit" not in node.meta
    return module if is_plain and len(node.users) == 1 else None


def _put(network, node, module):
    """Let a node call another module."""
    network.add_module(node.name, module)
    node.target = node.name


def _fold_batch_norms(network):
    for node in list(network.graph.nodes):
        norm = _called(network, node)
        if node.target is F.batch_norm:  # as timm's norms are recorded
            norm = _batch_norm_of_function(network, node)
        if type(norm) is nn.BatchNorm2d and not norm.training and norm.running_mean is not None:
            convolution = _convolution(network, node.args[0])
            if convolution is not None:
                _put(network, node.args[0], fuse_conv_bn_eval(convolution, norm))
                node.replace_all_uses_with(node.args[0])
                network.graph.erase_node(node)
    network.graph.eliminate_dead_code()  # what a function was given


def _batch_norm_of_function(network, node):
    """The module that does what a call of :func:`F.batch_norm` does; None if it updates tensors."""
    arguments = inspect.signature(F.batch_norm).bind(*node.args, **node.kwargs)
    arguments.apply_defaults()
    _, *tensors, training, _, eps = arguments.args
    if training or not all(isinstance(t, fx.Node) and t.op == "get_attr" for t in tensors):
        return None
    mean, variance, weight, bias = (attrgetter(tensor.target)(network) for tensor in tensors)
    norm = nn.BatchNorm2d(len(mean), eps=eps).eval()
    norm.running_mean, norm.running_var, norm.weight, norm.bias = mean, variance, weight, bias
    return norm


def _join(network):
    """Let convolutions do the additions and rectifications that follow them."""
    for node in list(network.graph.nodes):
        limit = _limit_of_relu(network, node)
        if limit is None:
            continue
        (before,) = node.all_input_nodes
        operands = (before,)
        if _is_addition(before) and len(before.users) == 1:
            operands = before.args
        joinable = [operand for operand in operands if _convolution(network, operand) is not None]
        if not joinable:
            continue
        convolution = max(joinable, key=lambda n: can_be_winograd(_convolution(network, n)))
        added = [operand for operand in operands if operand is not convolution]
        with network.graph.inserting_before(node):
            joined = network.graph.call_module(
                convolution.target, (convolution.args[0], *added), {}
            )
        joined.meta["limit"] = limit
        node.replace_all_uses_with(joined)
        for gone in (node, *([before] if before is not convolution else []), convolution):
            network.graph.erase_node(gone)


def _limit_of_relu(network, node):
    """The highest value that a rectification lets through; None for any other node."""
    if node.target in _RECTIFICATIONS:
        return math.inf
    return {nn.ReLU: math.inf, nn.ReLU6: 6.0}.get(type(_called(network, node)))


def _is_addition(node):
    """Whether a node adds two values, and no multiple of them."""
    n_values = len(node.all_input_nodes)
    return node.target in _ADDITIONS and n_values == len(node.args) == 2 and not node.kwargs


def _narrow(network, channels):
    """Compute only some channels of the last map, if a convolution of its own returns it."""
    *_, output = network.graph.nodes
    *others, last = output.args[0]
    convolution = network.get_submodule(last.target) if last.op == "call_module" else None
    if (
        type(convolution) is not nn.Conv2d
        or convolution.groups != 1
        or not is_as_written(convolution)
        or len(last.users) > 1
        or last in others
    ):
        return
    channels = torch.as_tensor(channels)
    convolution = copy.copy(convolution)
    convolution._parameters = {
        name: values if values is None else nn.Parameter(values[channels], requires_grad=False)
        for name, values in convolution._parameters.items()
    }
    convolution.out_channels = len(channels)
    _put(network, last, convolution)
    if len(last.args) == 2:
        network.register_buffer("channels", channels)
        with network.graph.inserting_before(last):
            indices = network.graph.get_attr("channels")
            selected = network.graph.call_method("index_select", (last.args[1], 1, indices))
        last.args = (last.args[0], selected)


def _put_convolutions(network, uses_winograd):
    """Put those in place that rectify, or multiply less."""
    made = {}
    for node in network.graph.nodes:
        convolution = network.get_submodule(node.target) if node.op == "call_module" else None
        if type(convolution) is not nn.Conv2d:
            continue
        limit = node.meta.get("limit")
        key = convolution, limit
        if key not in made:
            if uses_winograd and limit in (None, math.inf) and can_be_winograd(convolution):
                made[key] = WinogradConv2d(convolution, rectifies=limit is not None)
            elif limit is not None:
                made[key] = RectifiedConv2d(convolution, limit)
        if key in made:
            _put(network, node, made[key])


def _write_in_place(network):
    """Let activations overwrite what nobody else reads."""
    for node in network.graph.nodes:
        module = _called(network, node)
        before = node.args[0] if hasattr(module, "inplace") else None
        if before is None or len(before.users) > 1:
            continue
        if _is_addition(before) or isinstance(_called(network, before), _WRITERS):
            module = copy.copy(module)
            module.inplace = True
            _put(network, node, module)


def _convert_weights(network, dtype):
    """Hold weights in the precision that autocast would convert them to for every batch."""
    # But for Winograd's convolutions, which transform theirs in float32.
    for node in network.graph.nodes:
        if node.op == "call_module":
            module = network.get_submodule(node.target)
            if type(module) in (nn.Conv2d, RectifiedConv2d, nn.Linear) and is_as_written(module):
                module.to(dtype)


def _check(network, backbone, layers, channels):
    """Raise unless a network computes a backbone's maps, but for rounding."""
    # What depends on the values of images cannot be recorded; but a module may tell what records it
    # from a tensor, or reach a tensor that it overwrites under another name.
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
    size = backbone.sizes_near(_CHECKED_SIZE, layers)[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (backbone.mean, backbone.std))
    images = (torch.rand(1, 3, *size, **options) - mean) / std
    with torch.no_grad():
        maps, expected = network(images.clone()), list(backbone(images, layers))
    if maps[-1].shape != expected[-1].shape:
        expected[-1] = expected[-1][:, torch.as_tensor(channels)]
    for layer, got, wanted in zip(layers, maps, expected, strict=True):
        torch.testing.assert_close(
            got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()), msg=layer
        )
