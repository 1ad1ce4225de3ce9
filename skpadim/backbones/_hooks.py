"""Running a module up to some of its submodules, cutting it there, and folding batch norms.

One mechanism serves torchvision's networks and a user's own modules: hooks see which submodules
run, in which order and on what, so nothing needs to be known of the network's class.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _DeepestLayerReached(Exception):
    """Raised out of a forward pass when all that was asked for has been computed."""


def run_to_layers(module: nn.Module, images, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Outputs of the named submodules; the forward pass ends as soon as all have run.

    Parameters
    ----------
    module : nn.Module
    images : tensor of shape (n_samples, 3, height, width)
    names : iterable of str
        As in ``module.named_modules()``.

    Returns
    -------
    outputs : dict of str to tensor
        In the order in which they were computed.
    """
    missing = set(names)
    outputs = {}
    caller = threading.get_ident()

    def keep(name):
        def hook(_module, _args, output):
            if threading.get_ident() != caller:
                return  # another thread runs the same module, and has hooks of its own
            outputs[name] = output
            missing.discard(name)
            if not missing:
                raise _DeepestLayerReached

        return hook

    with forward_hooks((module.get_submodule(name), keep(name)) for name in names):
        try:
            module(images)
        except _DeepestLayerReached:
            return outputs
    raise ValueError(f"The forward pass never runs the layers {sorted(missing)}.")


def cut_after(module: nn.Module, images, names: Iterable[str]) -> nn.Module:
    """Replace, in place, the submodules that are not needed to compute the named ones."""
    entered: set[nn.Module] = set()
    completed: set[nn.Module] = set()
    every = dict(module.named_modules())
    before = ((sub, lambda sub, *_: entered.add(sub)) for sub in every.values())
    after = ((sub, lambda sub, *_: completed.add(sub)) for sub in every.values())
    with forward_hooks(before, before=True), forward_hooks(after):
        run_to_layers(module, images, names)
    replaced = []
    for name, sub in every.items():
        parent = every.get(name.rpartition(".")[0])
        # A parent that has completed without running the submodule may still use its weights.
        # Containers such as ModuleList never run themselves: what they hold decides.
        if name and parent not in completed and not any(s in entered for s in sub.modules()):
            replaced.append((name, sub))
            replace_submodule(module, name, nn.Identity())
    try:
        run_to_layers(module, images, names)
    except Exception:  # the module needs what it does not run: leave it whole
        for name, sub in replaced:
            replace_submodule(module, name, sub)
    return module


def fold_batch_norms(module: nn.Module, images, names: Iterable[str]) -> nn.Module:
    """Copy of a module in which batch norms are folded into the convolutions before them.

    A batch norm is folded if its input is the very tensor that a convolution has just returned,
    and if both run once. Should the copy not give the same outputs on `images` (a module may use
    a convolution's output twice), the module is returned unfolded.
    """
    folded = copy.deepcopy(module)
    name_of = {sub: name for name, sub in folded.named_modules()}
    expected = {}
    pairs = run_in_a_row(
        folded,
        lambda: expected.update(run_to_layers(folded, images, names)),
        lambda sub: type(sub) is nn.Conv2d,
        lambda sub: isinstance(sub, _BATCH_NORMS) and sub.running_mean is not None,
    )
    for convolution, norm in pairs:
        replace_submodule(folded, name_of[convolution], fuse_conv_bn_eval(convolution, norm))
        replace_submodule(folded, name_of[norm], nn.Identity())
    got = run_to_layers(folded, images, names)
    same = are_close(got.values(), (expected[name] for name in got))
    return folded if same else module


def run_in_a_row(module: nn.Module, run, is_first, is_second) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of submodules of which the second takes the very tensor that the first has returned.

    Parameters
    ----------
    module : nn.Module
    run : function
        Runs the module, without arguments.
    is_first, is_second : function
        Which submodules may be the first, and the second, of a pair.

    Returns
    -------
    pairs : list of tuple of two submodules
        Of those that run once.
    """
    runs: dict[nn.Module, int] = {}
    returned: dict[int, tuple[nn.Module, torch.Tensor, int]] = {}
    pairs: list[tuple[nn.Module, nn.Module]] = []

    def after_first(first, _args, output):
        runs[first] = runs.get(first, 0) + 1
        # The reference keeps the id from reuse, the version tells whether it is overwritten.
        returned[id(output)] = (first, output, output._version)

    def before_second(second, args):
        runs[second] = runs.get(second, 0) + 1
        known = returned.get(id(args[0])) if args else None
        if known is not None and known[1]._version == known[2]:
            pairs.append((known[0], second))

    submodules = list(module.modules())
    firsts = ((sub, after_first) for sub in submodules if is_first(sub))
    seconds = ((sub, before_second) for sub in submodules if is_second(sub))
    with forward_hooks(firsts), forward_hooks(seconds, before=True):
        run()
    return [pair for pair in pairs if runs[pair[0]] == runs[pair[1]] == 1]


def are_close(maps: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> bool:
    """Whether maps are what they should be, but for rounding."""
    return all(
        got.shape == wanted.shape
        and torch.allclose(got, wanted, rtol=1e-3, atol=1e-4 * float(wanted.std()))
        for got, wanted in zip(maps, expected, strict=True)
    )


def is_as_written(module: nn.Module) -> bool:
    """Whether a module does what its class does: nobody has hooked or replaced its functions."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or {"forward", "_conv_forward"} & vars(module).keys()
    )


@contextmanager
def handed_over(pairs: Iterable[tuple[nn.Module, nn.Module]]):
    """Let only the second module of each pair see what the first returns; others get NaN.

    Of a network that gives the same within the block nothing else takes part in a pair.
    """
    returned = {}

    def hide(_first, _args, output):
        hidden = torch.full_like(output, torch.nan)
        returned[id(hidden)] = (hidden, output)  # the reference keeps the id from reuse
        return hidden

    def find(_second, args):
        return returned.get(id(args[0]), (None, args[0]))[1] if args else None

    pairs = list(pairs)
    with (
        forward_hooks((first, hide) for first, _ in pairs),
        forward_hooks(((second, find) for _, second in pairs), before=True),
    ):
        yield


def without_in_place(module: nn.Module) -> None:
    """Let no submodule overwrite what it is given: it may be the output of a layer before it."""
    for sub in module.modules():
        if getattr(sub, "inplace", False):
            sub.inplace, sub.was_in_place = False, True


def restore_in_place(module: nn.Module, images, names: Iterable[str]) -> None:
    """Undo :func:`without_in_place` where neither `images` nor a named output is overwritten.

    What else the network computes, its author has seen to. All of them are restored, or none.
    """
    marked = [sub for sub in module.modules() if hasattr(sub, "was_in_place")]
    expected = run_to_layers(module, images, names)
    written = []

    def note(_module, _args, output):
        written.append((output, output._version))

    for sub in marked:
        sub.inplace = True
    version = images._version
    with forward_hooks((module.get_submodule(name), note) for name in names):
        got = run_to_layers(module, images, names)
    is_whole = images._version == version and all(
        output._version == version for output, version in written
    )
    if not is_whole or not all(torch.equal(got[name], expected[name]) for name in got):
        for sub in marked:
            sub.inplace = False


def replace_submodule(module: nn.Module, name: str, new: nn.Module) -> None:
    """Put another module in the place of a submodule, given its full name."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


@contextmanager
def forward_hooks(hooks, *, before=False):
    """Register forward (pre-)hooks for the duration of a with block."""
    handles = [
        sub.register_forward_pre_hook(hook) if before else sub.register_forward_hook(hook)
        for sub, hook in hooks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
