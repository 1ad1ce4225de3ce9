"""Running a module of any structure up to some of its submodules."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import fx, nn


class _DeepestLayerReached(Exception):
    """Raised out of a forward pass when all that was asked for has been computed."""


def run_to_layers(module: nn.Module, images, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Outputs of the named submodules, as they came; the forward pass ends as soon as all have run.

    `names` are as in ``module.named_modules()``; `images` are a tensor (n_samples, 3, height,
    width) or a ``torch.fx.Proxy`` of one.
    """
    missing = set(names)
    outputs = {}
    caller = threading.get_ident()

    def keep(name):
        def hook(_module, _args, output):
            if threading.get_ident() != caller:
                return  # another thread runs the same module, and has hooks of its own
            missing.discard(name)
            # What runs next may overwrite it.
            outputs[name] = output.clone() if missing and hasattr(output, "clone") else output
            if not missing:
                raise _DeepestLayerReached

        return hook

    # While it is traced, submodules of PyTorch are recorded and not run, nor are their hooks.
    watch = images.tracer.forward_hooks if isinstance(images, fx.Proxy) else forward_hooks
    with watch((module.get_submodule(name), keep(name)) for name in names):
        try:
            module(images)
        except _DeepestLayerReached:
            return outputs
    raise ValueError(f"The forward pass never runs the layers {sorted(missing)}.")


def is_as_written(module: nn.Module) -> bool:
    """Whether a module does what its class does: nobody has hooked or replaced its functions."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or {"forward", "_conv_forward"} & vars(module).keys()
    )


@contextmanager
def forward_hooks(hooks):
    """Register forward hooks for the duration of a with block."""
    handles = [sub.register_forward_hook(hook) for sub, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
