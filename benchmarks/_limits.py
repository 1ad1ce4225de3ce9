"""What a machine allows at best: a network's operations and bytes, and work for peaks."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from skpadim.backbones import load_backbone

LAYERS = ("layer1", "layer2", "layer3")


def count_work(backbone: str, size: int, bytes_per_value: int) -> tuple[float, float]:
    """Floating-point operations and bytes that one image needs up to layer3.

    A multiplication and an addition are two operations. The bytes are those that each convolution
    and pooling reads and writes, as if all that is done value by value were joined to it and no
    value stayed in a cache; weights are not counted, they are shared by a batch.
    """
    network = load_backbone(backbone, None).cut(LAYERS)
    values = 0

    def count(_module, inputs, output):
        nonlocal values
        values += inputs[0].numel() + output.numel()

    counted = (torch.nn.Conv2d, torch.nn.MaxPool2d)
    for module in network.modules():
        if isinstance(module, counted):
            module.register_forward_hook(count)
    with torch.no_grad(), FlopCounterMode(display=False) as operations:
        network(torch.zeros(1, 3, size, size), LAYERS)
    return operations.get_total_flops(), values * bytes_per_value


def matrix_product(dtype: torch.dtype, device: str, size: int):
    """A call that multiplies two square matrices, and its number of operations."""
    one, other = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    return _finished(lambda: one @ other, device), 2 * size**3


def copy(device: str, n_bytes: int):
    """A call that copies memory, and the bytes that it reads and writes."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return _finished(lambda: target.copy_(source), device), 2 * n_bytes


def synchronize(device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _finished(work, device):
    def call():
        work()
        synchronize(device)

    return call
