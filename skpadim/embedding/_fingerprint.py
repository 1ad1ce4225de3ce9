"""A fingerprint of a backbone: equal only where it computes the same features."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import uuid
from collections.abc import Mapping, Set
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import nn

from skpadim.backbones._backbone import Backbone

# Of these packages the version says what a class does; of others, its source.
_VERSIONED_PACKAGES = ("torch", "torchvision", "timm", "skpadim")
# Which of a network's layers are on offer, not what they compute.
_CHOICE_OF_LAYERS = (
    "layers",
    "_submodules",
    "_channels_last",
    "_token_layers",
    "_indices",
    "n_features",
    "license",
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)

_digests: WeakKeyDictionary[Backbone, str] = WeakKeyDictionary()


def digest_backbone(backbone: Backbone) -> str:
    """Hexadecimal fingerprint of a backbone's classes, attributes, parameters and buffers.

    The choice of layers plays no part. Of classes that come from none of the packages above
    the source is looked at, but not what they call outside of themselves. What cannot be told
    makes the fingerprint a unique one. It is remembered, so the backbone must not change after.
    """
    if backbone not in _digests:
        digest = hashlib.sha256()
        for name, module in backbone.named_modules():
            attributes = dict(vars(module))
            for torch_state in ("_parameters", "_buffers", "_modules"):
                attributes.pop(torch_state)
            if module is backbone:
                for choice in _CHOICE_OF_LAYERS:
                    attributes.pop(choice, None)
            digest.update(repr((name, _describe_class(type(module)))).encode())
            _add(digest, attributes)
        _add(digest, dict(backbone.named_parameters()))
        _add(digest, dict(backbone.named_buffers()))
        _digests[backbone] = digest.hexdigest()
    return _digests[backbone]


def layer_source(backbone: Backbone, layer: str) -> str:
    """Where in the network a layer's maps come from."""
    return getattr(backbone, "_submodules", {}).get(layer, layer)


def _describe_class(cls):
    """Names of a class and of its bases, with the source of those that have no version."""
    described = []
    for base in cls.__mro__:
        if base in (object, nn.Module):
            continue
        described.append(f"{base.__module__}.{base.__qualname__}")
        if base.__module__.partition(".")[0] not in _VERSIONED_PACKAGES:
            try:
                described.append(inspect.getsource(base))
            except (OSError, TypeError):  # typed in at a prompt
                described.append(
                    [_describe_code(f.__code__) for f in vars(base).values() if _is_function(f)]
                )
    return described


def _add(digest, value):
    """Add a value to a digest, in a form that is the same in every process."""
    if isinstance(value, _PLAIN):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, (torch.Tensor, np.ndarray)):
        array = value.detach().cpu() if isinstance(value, torch.Tensor) else torch.tensor(value)
        digest.update(f"{array.dtype} {tuple(array.shape)};".encode())
        digest.update(array.contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)};".encode())
        for key, item in value.items():
            _add(digest, key)
            _add(digest, item)
    elif isinstance(value, (list, tuple)):
        digest.update(f"sequence {len(value)};".encode())
        for item in value:
            _add(digest, item)
    elif isinstance(value, Set):
        digest.update(f"set {sorted(map(repr, value))};".encode())
    elif isinstance(value, type):
        digest.update(repr(_describe_class(value)).encode())
    elif _is_function(value):
        closure = [cell.cell_contents for cell in value.__closure__ or ()]
        digest.update(f"{value.__module__} {_describe_code(value.__code__)};".encode())
        _add(digest, [closure, value.__defaults__, value.__kwdefaults__])
    elif isinstance(value, MethodType):
        _add(digest, value.__func__)
    elif isinstance(value, BuiltinFunctionType):
        digest.update(f"{value.__module__} {value.__qualname__};".encode())
    else:
        try:
            described = pickle.dumps(value)
        except Exception:  # pickling raises nearly anything
            described = uuid.uuid4().bytes
        digest.update(described)


def _is_function(value):
    return isinstance(value, FunctionType)


def _describe_code(code):
    """What a function's code does, without where it stands."""
    constants = [
        _describe_code(constant) if isinstance(constant, CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    return code.co_code.hex(), code.co_names, constants
