"""
A network of your own
=====================

Any :class:`torch.nn.Module` can make the features: one that you trained on pictures of
your own, say. Whatever it is, compare it with one that has random weights.
"""

# %%
# A small network
# ---------------
# Three stages of convolutions. Here it is not trained; in earnest you would load
# weights with ``network.load_state_dict``.

import matplotlib.pyplot as plt
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from skpadim import PadimDetector
from skpadim.backbones import ModuleBackbone
from skpadim.datasets import make_defects
from skpadim.plotting import AnomalyMapDisplay, ProCurveDisplay


def stage(n_in, n_out):
    """Half of the height and width, more channels."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=2, padding=1),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


torch.manual_seed(0)
network = nn.Sequential(stage(3, 24), stage(24, 48), stage(48, 64))

# %%
# As a backbone
# -------------
# Layers are named as in ``network.named_modules()``, where those of a ``Sequential``
# are numbers, and given names of your choice, from fine to coarse. ``mean`` and ``std``
# say what the network expects. Channels and strides are found by running it.

backbone = ModuleBackbone(
    network,
    {"first": "0", "second": "1", "third": "2"},
    name="small network",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)
for name, layer in backbone.layers.items():
    print(f"{name:7} {layer.channels} channels, every {layer.stride} pixels")

# %%
# Which layers?
# -------------
# ``regularization="auto"`` suits features of any scale, and those of a network without
# training are small. The filter bank, which comes with skpadim, is there to compare.

train = make_defects(60, 0, part="capsule", image_size=96, random_state=0)
new = make_defects(
    30, 30, part="capsule", difficulty=0.2, image_size=96, random_state=1
)
candidates = {
    "first + second": (backbone, ("first", "second")),
    "second + third": (backbone, ("second", "third")),
    "third": (backbone, ("third",)),
    "filter bank": ("filter_bank", "auto"),
}
figure, axis = plt.subplots(layout="constrained")
detectors = {}
for name, (network, layers) in candidates.items():
    detector = PadimDetector(
        network,
        layers=layers,
        image_size=96,
        regularization="auto",
        random_state=0,
    ).fit(train.data)
    auroc = roc_auc_score(new.target, detector.score_samples(new.data))
    print(f"{name:15} image AUROC {auroc:.3f}")
    ProCurveDisplay.from_estimator(
        detector, new.data, new.masks, name=name, ax=axis
    )
    detectors[name] = detector

# %%
# Random convolutions see edges and colours, and on these parts they rank as well as the
# filter bank. They are the mark that a network with training has to beat.

AnomalyMapDisplay.from_estimator(
    detectors["second + third"], new.data, new.target, new.masks, max_images=8
)
plt.show()
# sphinx_gallery_thumbnail_number = 2
