"""Any `torch.nn.Module` with named submodules as a backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from skpadim._torch_state import own_torch_state
from skpadim.backbones._backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, Layer
from skpadim.backbones._hooks import run_to_layers
from skpadim.backbones._tracer import unused_tensors

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
        (n_samples, channels, height, width), or (n_samples, height, width, channels). A dict
        gives them names of your own: ``{"layer1": "features.3"}``.
    name : str, default=None
        How messages call it; by default the module's class name.
    mean, std : tuple of three floats, default=ImageNet's
        What the network expects: images in [0, 1] have `mean` subtracted and are divided by `std`.
    n_features : int, default=None
        What ``n_features="auto"`` selects; None keeps all features of the chosen layers.

    Examples
    --------
    >>> from torch import nn
    >>> from skpadim.backbones import ModuleBackbone
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
    >>> backbone = ModuleBackbone(network, layers={"fine": "1", "coarse": "2"})
    >>> backbone.layers
    {'fine': Layer(channels=8, stride=4), 'coarse': Layer(channels=16, stride=8)}
    """

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
    ):
        super().__init__()
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
        return [
            outputs[self._submodules[name]].permute(0, 3, 1, 2)
            if name in self._channels_last
            else outputs[self._submodules[name]]
            for name in layers
        ]

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
        try:
            outputs = self._run_probe(submodules.values())
        except RuntimeError as error:
            raise ValueError(
                f"{self.name} does not run on images of {PROBE_SIZE[0]} x {PROBE_SIZE[1]} pixels, "
                f"as a backbone must: {error}"
            ) from error
        self._channels_last = set()
        found = {}
        for name, submodule in submodules.items():
            output = outputs[submodule]
            if not isinstance(output, torch.Tensor) or output.ndim != 4:
                shape = tuple(getattr(output, "shape", ())) or type(output).__name__
                raise ValueError(
                    f"Layer {name!r} of {self.name} does not return a feature map "
                    f"(n_samples, channels, height, width): found {shape}."
                )
            if is_channels_last(output.shape):
                self._channels_last.add(name)
                output = output.permute(0, 3, 1, 2)
            found[name] = Layer(output.shape[1], _stride(output.shape[2]))
        # From fine to coarse; layers of equal stride in the order in which they run.
        run_order = list(outputs)
        names = sorted(found, key=lambda n: (found[n].stride, run_order.index(submodules[n])))
        self.layers = {name: found[name] for name in names}
        self._submodules = {name: submodules[name] for name in names}

    def _run_probe(self, names):
        """Outputs of submodules for an image of the probe's size; their shapes are looked at."""
        generator = torch.Generator().manual_seed(0)
        options = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
        images = torch.rand(1, 3, *PROBE_SIZE, **options)
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


def _stride(map_height):
    return max(1, round(PROBE_SIZE[0] / map_height))
