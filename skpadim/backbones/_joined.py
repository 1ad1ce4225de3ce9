"""EfficientNet-Lite0 and the filter bank as one backbone: what things are, and fine texture."""

from __future__ import annotations

from skpadim.backbones._backbone import Backbone
from skpadim.backbones._efficientnet_lite import EfficientNetLite
from skpadim.backbones._filter_bank import FilterBank

# The network's features vary some fifteen times as much as the bank's among good images, for which
# the paper's regularisation is right.
_GAIN = 1 / 15
_PREFIX = "filter_bank."


class JoinedBackbone(Backbone):
    """Layers of both; the bank's are called ``filter_bank.layer1`` and so on.

    See :func:`load_backbone` for the parameters, which are the network's.
    """

    name = "efficientnet_lite0+filter_bank"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    default_layers = (
        "layer2",
        "filter_bank.layer1",
        "layer4",
        "filter_bank.layer2",
        "filter_bank.layer3",
    )
    license = EfficientNetLite.license

    def __init__(self, weights="imagenet", random_state=0):
        super().__init__()
        self.network = EfficientNetLite("efficientnet_lite0", weights, random_state)
        self.bank = FilterBank()
        self._list_layers()

    def _list_layers(self):
        banks = {f"{_PREFIX}{name}": layer for name, layer in self.bank.layers.items()}
        layers = {**self.network.layers, **banks}
        self.layers = dict(sorted(layers.items(), key=lambda item: item[1].stride))

    def forward(self, images, layers):
        """Feature maps of some layers (see :meth:`Backbone.forward`)."""
        mine = tuple(name for name in layers if not name.startswith(_PREFIX))
        banks = tuple(name.removeprefix(_PREFIX) for name in layers if name not in mine)
        maps = {}
        if mine:
            mean, std = self.network.mean[0], self.network.std[0]  # of all colours
            found = self.network((images - mean) / std, mine)
            maps |= {name: _GAIN * found[place] for place, name in enumerate(mine)}
        if banks:
            found = self.bank(images, banks)
            maps |= {f"{_PREFIX}{name}": found[place] for place, name in enumerate(banks)}
        return [maps[name] for name in layers]

    def cut(self, layers):
        """Return a copy without weights that the chosen layers do not need."""
        mine = tuple(name for name in layers if not name.startswith(_PREFIX))
        return _join(type(self), self.network.cut(mine or ("layer1",)))

    def __reduce__(self):
        return _join, (type(self), self.network)


def _join(cls, network):
    """The backbone with a network that may be cut."""
    joined = cls.__new__(cls)
    Backbone.__init__(joined)
    joined.network, joined.bank = network, FilterBank()
    joined._list_layers()
    return joined.eval().requires_grad_(False)
