"""What a machine allows at best: operations and bytes of a network, and measured peaks."""

from __future__ import annotations

import time

import numpy as np
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


def peak_operations(dtype: torch.dtype, device: str, size: int) -> float:
    """Operations/s of the product of two square matrices."""
    one, other = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / _best_seconds(lambda: one @ other, device)


def peak_bytes(device: str, n_bytes: int) -> float:
    """Bytes/s of a copy, counting what is read and what is written."""
    source = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    return 2 * n_bytes / _best_seconds(lambda: target.copy_(source), device)


def synchronize(device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _best_seconds(work, device, runs=10):
    """The best of some runs: a limit is what the machine can do when nothing is in the way."""
    seconds = []
    for _ in range(runs):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return float(np.min(seconds))
