"""Batches on their way to a GPU: copied while it computes with those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import torch

from skpadim.images._read import to_float

# One that is being filled, one that is being copied, and one to spare.
_N_BUFFERS = 3
# Batches that the device was told to use and may not have used yet. Without an end to them, all
# images could lie in its memory.
_N_WAITING = 2


def copied_ahead(
    batches: Iterable[torch.Tensor | Sequence[torch.Tensor]], device: torch.device
) -> Iterator[torch.Tensor]:
    """Copy batches of pixels to a GPU, each while the one before is computed with.

    Batches in main memory, (n_batch, 3, height, width) or sequences of (3, height, width), uint8 or
    float32, to tensors that are ready for the device's current stream; uint8 only if all are.
    """
    copies = _Copies(device)
    coming = None
    for batch in batches:
        following = copies.send(batch)
        if coming is not None:
            yield copies.receive(*coming)
            copies.let_few_wait()
        coming = following
    if coming is not None:
        yield copies.receive(*coming)


class _Copies:
    """Copies on a stream of their own, from page-locked memory that is used in turn."""

    def __init__(self, device):
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.buffers = deque((None, torch.cuda.Event()) for _ in range(_N_BUFFERS))
        self.uses = deque()

    def send(self, batch):
        """Begin to copy a batch; returns it, and the event of its arrival."""
        memory, copied = self.buffers.popleft()
        copied.synchronize()  # what it was filled with before has been copied
        memory = filled(memory, batch, pin_memory=self.device.type == "cuda")
        rows = memory[: len(batch)]
        with torch.cuda.stream(self.stream):
            on_device = torch.empty_like(rows, device=self.device, pin_memory=False)
            on_device.copy_(rows, non_blocking=True)
            copied.record()
        self.buffers.append((memory, copied))
        return on_device, copied

    def receive(self, on_device, copied):
        """Let the current stream wait for a batch, and see that its memory is not reused early."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        on_device.record_stream(current)
        return on_device.permute(0, 3, 1, 2)

    def let_few_wait(self):
        """Note that the device was told to use a batch; wait until it has used earlier ones."""
        used = torch.cuda.Event()
        used.record(torch.cuda.current_stream(self.device))
        self.uses.append(used)
        if len(self.uses) > _N_WAITING:
            self.uses.popleft().synchronize()


def filled(
    memory: torch.Tensor | None,
    batch: torch.Tensor | Sequence[torch.Tensor],
    *,
    pin_memory: bool = False,
) -> torch.Tensor:
    """Memory (n_rows, height, width, 3) with a batch in its first rows; new if it does not fit."""
    if not isinstance(batch, torch.Tensor) and any(i.dtype != torch.uint8 for i in batch):
        batch = [to_float(image) for image in batch]
    first = batch[0]
    shape = (*first.shape[1:], first.shape[0])
    is_fitting = memory is not None and memory.dtype == first.dtype and memory.shape[1:] == shape
    if not is_fitting or len(memory) < len(batch):
        memory = torch.empty((len(batch), *shape), dtype=first.dtype, pin_memory=pin_memory)
    rows = memory[: len(batch)]
    if isinstance(batch, torch.Tensor):
        rows.copy_(batch.permute(0, 2, 3, 1))
    else:
        torch.stack([image.permute(1, 2, 0) for image in batch], out=rows)
    return memory
