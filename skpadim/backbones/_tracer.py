"""What a backbone computes up to its layers, recorded by `torch.fx`."""

from __future__ import annotations

import copy
import threading
from contextlib import contextmanager
from operator import attrgetter

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.nn import functional as F

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._filter_bank import FilterBank
from skpadim.backbones._hooks import is_as_written

# fx replaces functions of all modules while it records.
_recording = threading.Lock()


def record(backbone: Backbone, layers: tuple[str, ...]) -> fx.GraphModule:
    """A network of images alone that returns a backbone's maps of some layers.

    Its modules are copies, and nothing in it overwrites anything. It raises nearly anything if
    the backbone cannot be recorded; autocast must be as it will be when the network runs.
    """
    tracer = _trace(backbone, layers)
    graph, attributes, memo = tracer.graph, {}, {}
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        attribute = attrgetter(node.target)(tracer.root)
        attributes[node.target] = attribute = copy.deepcopy(attribute, memo)
        for module in attribute.modules() if isinstance(attribute, nn.Module) else ():
            if getattr(module, "inplace", False):
                module.inplace = False
    network = fx.GraphModule(attributes, graph).eval()
    for node in network.graph.nodes:
        if node.target is torch._assert:  # of sizes, which are checked at fit
            network.graph.erase_node(node)
        elif _returns_its_input(network, node):
            node.replace_all_uses_with(node.args[0])
    network.graph.eliminate_dead_code()
    return network


def _returns_its_input(network, node):
    """Whether a node returns what it is given, or its clone, which has no use if all is kept."""
    if node.op != "call_module":
        return node.op == "call_method" and node.target == "clone"
    module = network.get_submodule(node.target)
    return type(module) in (nn.Identity, nn.Dropout) and is_as_written(module) and node.args


def unused_tensors(backbone: Backbone, layers: tuple[str, ...]) -> list[torch.Tensor]:
    """Parameters and buffers that some layers do without; none if that cannot be told."""
    try:
        tracer = _trace(backbone, layers)
    except Exception:  # of the backbone's own code, and the many kinds that torch.fx raises
        return []
    used = set(map(id, tracer.used_tensors()))
    return [t for t in (*backbone.parameters(), *backbone.buffers()) if id(t) not in used]


class Maps(nn.Module):
    """A backbone with the layers that are asked for."""

    def __init__(self, backbone, layers):
        super().__init__()
        self.backbone, self.layers = backbone, layers

    def forward(self, images):
        return self.backbone(images, self.layers)


def _trace(backbone, layers):
    """A tracer that has recorded a backbone, or rather a copy which shares its tensors."""
    tensors = {id(t): t for t in (*backbone.parameters(), *backbone.buffers())}
    root = Maps(copy.deepcopy(backbone, tensors), layers)
    with _recording:
        tracer = _Tracer()
        tracer.trace(root)
    return tracer


class _Value(fx.Proxy):
    """What stands for a tensor while a network is recorded."""

    def __setattr__(self, name, value):
        if name == "data":
            raise TraceError("The network gives a tensor other data.")
        super().__setattr__(name, value)


class _Tracer(fx.Tracer):
    """Records modules of PyTorch as a whole, others by what they do, and nothing in place."""

    # What overwrites a tensor is recorded as what does not; who reads it later reads the result.

    def __init__(self):
        super().__init__()
        self._thread, self._autocast = threading.get_ident(), _autocast_state()
        self._hooks = []
        self._overwritten_by = {}
        self._read = []

    def proxy(self, node):
        return _Value(node, self)

    def is_leaf_module(self, m, module_qualified_name):
        # The filter bank beside a network is recorded as a whole; alone there is nothing to gain.
        is_bank = isinstance(m, FilterBank) and m is not self.root.backbone
        is_whole = super().is_leaf_module(m, module_qualified_name) or is_bank
        return is_whole or not is_as_written(m)

    def call_module(self, m, forward, args, kwargs):
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        output = super().call_module(m, forward, args, kwargs)
        for module, hook in self._hooks:
            if module is m:
                hook(m, args, output)
        return output

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if threading.get_ident() != self._thread:
            return attr_val
        self._read.append(attr_val)
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_node(self, kind, target, args, kwargs, name=None, type_expr=None):
        if _autocast_state() != self._autocast:  # which is not recorded
            raise TraceError("The network switches autocast on or off.")
        args, kwargs = fx.node.map_arg((args, kwargs), self._now)
        overwrites = bool(kwargs.get("inplace"))
        if overwrites:
            kwargs = {**kwargs, "inplace": False}
        elif kind == "call_module":
            overwrites = getattr(self.root.get_submodule(target), "inplace", False)
        elif kind in ("call_function", "call_method"):
            written = target if kind == "call_method" else getattr(target, "__name__", "")
            is_pythons = getattr(target, "__module__", None) == "_operator"  # as and_ is
            if written.endswith("_") and not written.endswith("__") and not is_pythons:
                overwrites, target = True, _out_of_place(kind, written[:-1])
        if kwargs.get("out") is not None or (overwrites and args[0].op == "get_attr"):
            raise TraceError(f"{target} writes to a tensor that is kept.")
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        if overwrites:
            self._overwritten_by[args[0]] = node
        return node

    def _now(self, node):
        """What a tensor has become."""
        while node in self._overwritten_by:
            node = self._overwritten_by[node]
        return node

    @contextmanager
    def forward_hooks(self, hooks):
        """As the function of this name, for submodules whether they are recorded or run."""
        stack = self.module_stack.copy()
        self._hooks = list(hooks)
        try:
            yield
        finally:
            self._hooks = []
            self.module_stack = stack  # a hook may have ended modules early

    def used_tensors(self):
        """Parameters and buffers that have been read, or belong to modules recorded as a whole."""
        yield from self._read
        for node in self.graph.nodes:
            if node.op == "call_module":
                module = self.root.get_submodule(node.target)
                yield from (*module.parameters(), *module.buffers())
            elif node.op == "get_attr":
                yield attrgetter(node.target)(self.root)


def _out_of_place(kind, name):
    """The function or method that does the same without overwriting."""
    places = (torch.Tensor,) if kind == "call_method" else (torch, F)
    for place in places:
        if callable(getattr(place, name, None)):
            return name if kind == "call_method" else getattr(place, name)
    raise TraceError(f"{name}_ has no counterpart that overwrites nothing.")


def _autocast_state():
    return [torch.is_autocast_enabled(device_type) for device_type in ("cpu", "cuda")]
