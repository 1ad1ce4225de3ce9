"""Any `torch.nn.Module` with named submodules as a backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from numbers import Integral

import torch
from torch import nn

from skpadim.backbones._backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, Layer
from skpadim.backbones._hooks import run_to_layers
from skpadim.backbones._tracer import unused_tensors
from skpadim.machine._torch_state import own_torch_state

# Of different height and width, so that rows, columns and channels can be told apart.
PROBE_SIZE = (224, 288)


class ModuleBackbone(Backbone):
    """A network of your own, whose submodules are the layers.

    Parameters
    ----------
    module : nn.Module
        Takes images (n_samples, 3, height, width) of any size. It is copied and set to
        evaluation mode.
    layers : sequence of str or dict of str to str, default=("layer1", "layer2", "layer3")
        Names of submodules, as in ``module.named_modules()``; each must return one tensor
        (n_samples, channels, height, width), or (n_samples, height, width, channels), or, if
        `patch_size` is given, (n_samples, n_tokens, channels). A dict gives them names of your
        own: ``{"layer1": "features.3"}``.
    name : str, default=None
        How messages call it; by default the module's class name.
    mean, std : tuple of three floats, default=ImageNet's
        What the network expects: images in [0, 1] have `mean` subtracted and are divided by `std`.
    n_features : int, default=None
        What ``n_features="auto"`` selects; None keeps all features of the chosen layers.
    patch_size : int or (height, width), default=None
        Of a vision transformer, the pixels from one patch to the next, so that the grid of its
        tokens is known for images of any size. Images must have multiples of it.
    n_prefix_tokens : int, default=0
        Tokens before those of the patches (class, registers), which are left out.

    Examples
    --------
    >>> from torch import nn
    >>> from skpadim.backbones import ModuleBackbone
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
    >>> backbone = ModuleBackbone(network, layers={"fine": "1", "coarse": "2"})
    >>> backbone.layers
    {'fine': Layer(channels=8, stride=4), 'coarse': Layer(channels=16, stride=8)}
    """

    patch_size: tuple[int, int] | None = None
    n_prefix_tokens: int = 0
    _token_layers: frozenset[str] = frozenset()

    @own_torch_state()
    def __init__(
        self,
        module,
        layers=("layer1", "layer2", "layer3"),
        *,
        name=None,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        n_features=None,
        patch_size=None,
        n_prefix_tokens=0,
    ):
        super().__init__()
        if patch_size is not None:
            is_one = isinstance(patch_size, Integral)
            self.patch_size = (patch_size, patch_size) if is_one else tuple(patch_size)
            if len(self.patch_size) != 2 or min(self.patch_size) < 1:
                raise ValueError(
                    f"patch_size={patch_size!r} must be a number of pixels, or a pair of them."
                )
        self.n_prefix_tokens = n_prefix_tokens
        self.name = name or type(module).__name__
        self.mean, self.std, self.n_features = tuple(mean), tuple(std), n_features
        self.module = frozen(self._taken(module))
        submodules = dict(layers) if isinstance(layers, Mapping) else {n: n for n in layers}
        self._check_submodules(submodules)
        self._probe(submodules)

    def forward(self, images, layers):
        """Feature maps of some layers (see :meth:`Backbone.forward`)."""
        # The module may overwrite what it is given.
        names = [self._submodules[name] for name in layers]
        outputs = run_to_layers(self.module, images.clone(), names)
        return [self._as_maps(name, outputs[self._submodules[name]], images) for name in layers]

    def _as_maps(self, name, output, images):
        """What a layer has returned, with the channels second."""
        if name in self._token_layers:
            grid = [images.shape[2 + axis] // self.patch_size[axis] for axis in (0, 1)]
            output = output[:, self.n_prefix_tokens :].unflatten(1, grid)
        elif name not in self._channels_last:
            return output
        return output.permute(0, 3, 1, 2)

    def sizes_near(self, size, layers):
        """Sizes that the network takes (see :meth:`Backbone.sizes_near`): multiples of a patch."""
        return [size] if self.patch_size is None else nearest_multiples(size, self.patch_size)

    def cut(self, layers):
        """Return a copy without weights that the chosen layers do not need."""
        # What is in place of a tensor is copied with the rest.
        shorter = copy.deepcopy(self, {id(t): emptied(t) for t in unused_tensors(self, layers)})
        shorter._submodules = {name: self._submodules[name] for name in layers}
        shorter.layers = {name: self.layers[name] for name in layers}
        return shorter

    def _taken(self, module):
        """The module to keep: a copy, as the caller may go on with theirs."""
        return copy.deepcopy(module).cpu()

    def _check_submodules(self, submodules):
        known = {name for name, _ in self.module.named_modules() if name}
        unknown = [name for name in submodules.values() if name not in known]
        if unknown or not submodules:
            children = [name for name, _ in self.module.named_children()]
            raise ValueError(
                f"layers: {self.name} has no submodule {', '.join(map(repr, unknown))}. Name "
                f"some of its submodules from fine to coarse, for instance among {children} "
                "(its named_modules() lists them all)."
            )

    def _probe(self, submodules):
        """Find channels, stride and layout of each layer by running the network once."""
        height, width = self.sizes_near(PROBE_SIZE, tuple(submodules))[0]
        images = torch.empty(1, 3, height, width)
        try:
            outputs = self._run_probe(submodules.values(), (height, width))
        except (RuntimeError, AssertionError) as error:
            advice = " A vision transformer may need patch_size." if self.patch_size is None else ""
            raise ValueError(
                f"{self.name} does not run on images of {height} x {width} pixels, as a backbone "
                f"must ({str(error).rstrip('.')}).{advice}"
            ) from error
        self._channels_last, self._token_layers = set(), set()
        found = {}
        for name, submodule in submodules.items():
            output = outputs[submodule]
            n_dimensions = output.ndim if isinstance(output, torch.Tensor) else 0
            if n_dimensions == 3:
                self._check_tokens(name, tuple(output.shape), (height, width))
                self._token_layers.add(name)
            elif n_dimensions != 4:
                shape = tuple(getattr(output, "shape", ())) or type(output).__name__
                raise ValueError(
                    f"Layer {name!r} of {self.name} does not return a feature map "
                    f"(n_samples, channels, height, width): found {shape}."
                )
            elif is_channels_last(output.shape):
                self._channels_last.add(name)
            maps = self._as_maps(name, output, images)
            found[name] = Layer(maps.shape[1], max(1, round(height / maps.shape[2])))
        # From fine to coarse; layers of equal stride in the order in which they run.
        run_order = list(outputs)
        names = sorted(found, key=lambda n: (found[n].stride, run_order.index(submodules[n])))
        self.layers = {name: found[name] for name in names}
        self._submodules = {name: submodules[name] for name in names}

    def _check_tokens(self, name, shape, size):
        """See that the tokens of a layer are those of the stated patches."""
        found = f"Layer {name!r} of {self.name} returns {shape[1]} tokens"
        if self.patch_size is None:
            raise ValueError(
                f"{found}, shape {shape}, and not a feature map (n_samples, channels, height, "
                "width). Say where they lie: ModuleBackbone(module, layers, patch_size=..., "
                "n_prefix_tokens=...), the pixels from one patch to the next and the number of "
                "class and register tokens before those of the patches."
            )
        rows, columns = (side // step for side, step in zip(size, self.patch_size, strict=True))
        n_others = shape[1] - rows * columns
        if n_others != self.n_prefix_tokens:
            advice = (
                f"Use n_prefix_tokens={n_others} if the others are class and register tokens, or "
                "another patch_size."
                if n_others >= 0
                else "Use a larger patch_size."
            )
            raise ValueError(
                f"{found} for an image of {size[0]} x {size[1]} pixels, but patch_size="
                f"{self.patch_size} makes {rows} x {columns} patches, and n_prefix_tokens is "
                f"{self.n_prefix_tokens}. {advice}"
            )

    def _run_probe(self, names, size):
        """Outputs of submodules for an image of a size; their shapes are looked at."""
        generator = torch.Generator().manual_seed(0)
        options = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
        images = torch.rand(1, 3, *size, **options)
        with torch.no_grad():
            return run_to_layers(self.module, images, names)


def frozen(module):
    """The module, set to evaluation mode and without gradients."""
    return module.eval().requires_grad_(False)


def emptied(tensor):
    """A tensor of the same kind that takes no memory."""
    empty = tensor.detach().new_empty(0)
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(empty, requires_grad=False) if is_parameter else empty


def is_channels_last(shape):
    """Whether rows and columns of a map of probe images are its axes 1 and 2 (transformers)."""
    aspect = PROBE_SIZE[1] / PROBE_SIZE[0]
    if_first, if_last = abs(shape[3] / shape[2] - aspect), abs(shape[2] / shape[1] - aspect)
    return if_last < min(if_first, 0.2)


def nearest_multiples(size, steps):
    """Pairs of multiples of two steps nearest to a size: the size itself, or below and above."""
    sides = list(zip(size, steps, strict=True))
    below = tuple(max(1, side // step) * step for side, step in sides)
    above = tuple(-(-side // step) * step for side, step in sides)
    return list(dict.fromkeys((below, above)))
