import torch
from torch import nn
from torch.nn import functional as F
from skpadim.backbones._backbone import Backbone, Layer


class FilterBank(Backbone):
    name = "filter_bank"
    mean = (0.0,) * 3
    std = (1.0,) * 3
    n_features = None
    layers = {"layer1": Layer(12, 4), "layer2": Layer(12, 8), "layer3": Layer(12, 16)}

    def forward(self, images, layers):
        return [
            torch.cat([f(images.repeat(1, 2, 1, 1), s) for f in (F.avg_pool2d, F.max_pool2d)], 1)
            for n in layers
            for s in [self.layers[n].stride]
        ]
