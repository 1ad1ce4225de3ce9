"""The frozen networks that turn images into feature maps."""

from skpadim.backbones._backbone import Backbone, Layer
from skpadim.backbones._load import list_backbones, load_backbone
from skpadim.backbones._module import ModuleBackbone

__all__ = ["Backbone", "Layer", "ModuleBackbone", "list_backbones", "load_backbone"]
