"""Which of torch's settings hold while skpadim computes, whatever the caller's are?

Float32 by default, on the CPU, with all its digits, no autocast, no gradients, no inference mode,
and subnormal numbers kept: a model then scores the same wherever it was fitted. Left as they are:
the number of threads; on a GPU what :func:`torch.set_float32_matmul_precision` allows; and
deterministic algorithms, which change no result on a CPU, and on a GPU are what the user wants.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps

import torch


@contextmanager
def own_torch_state() -> Iterator[None]:
    """Within the block, or a function that this decorates, skpadim's settings hold.

    Most are those of this Python thread. Of the whole process, where the caller has changed them,
    are the default dtype and the precision of float32 on a CPU.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for device in ("cpu", "cuda", "mps", "xpu"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if _SMALLEST * 1.0 == 0:
            torch.set_flush_denormal(False)
            stack.callback(torch.set_flush_denormal, True)
        stack.enter_context(_process_settings)
        yield


def each_in_own_torch_state(generate: Callable) -> Callable:
    """Decorate a generator, which then runs with skpadim's settings; between items none holds."""

    @wraps(generate)
    def iterate(*arguments, **parameters):
        generator = generate(*arguments, **parameters)
        try:
            while True:
                with own_torch_state():
                    try:
                        item = next(generator)
                    except StopIteration:
                        return
                yield item
        finally:
            with own_torch_state():
                generator.close()

    return iterate


# Times one it is itself, unless the processor takes subnormal numbers for zero.
_SMALLEST = 5e-324


class _ProcessSettings:
    """Settings of the whole process, from when the first thread enters until the last has left."""

    def __init__(self):
        self._lock, self._n_within, self._undo = threading.Lock(), 0, ExitStack()

    def __enter__(self):
        with self._lock:
            self._n_within += 1
            if torch.get_default_dtype() != torch.float32:
                self._undo.callback(torch.set_default_dtype, torch.get_default_dtype())
                torch.set_default_dtype(torch.float32)
            self._use_all_digits()

    def __exit__(self, *_):
        with self._lock:
            self._n_within -= 1
            if self._n_within == 0:
                self._undo.close()

    def _use_all_digits(self):
        """Let float32 on a CPU not be rounded to bfloat16, as some CPUs can."""
        if hasattr(torch.backends.mkldnn, "matmul"):
            for operation in (torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv):
                before = operation.fp32_precision
                if before not in ("ieee", "none"):
                    operation.fp32_precision = "ieee"
                    self._undo.callback(_restore_precision, operation, before)
        elif torch.get_float32_matmul_precision() != "highest" and not torch.cuda.is_available():
            # Of earlier versions of torch, which have one setting for CPUs and GPUs.
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            self._undo.callback(torch.set_float32_matmul_precision, before)


_process_settings = _ProcessSettings()


def _restore_precision(operation, before):
    operation.fp32_precision = "none"  # as that of all operations is
    if operation.fp32_precision != before:
        operation.fp32_precision = before
