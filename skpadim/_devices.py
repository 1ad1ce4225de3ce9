"""Where tensors are computed: the `device` parameter."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def resolve_device(device: str | torch.device, *, fall_back: bool = False) -> torch.device:
    """Turn the `device` parameter into a device that is there.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` is the GPU if torch sees one (CUDA or ROCm), else the CPU.
    fall_back : bool, default=False
        Use the CPU, with a warning, where the device asked for is missing: a model that was
        fitted on a GPU also scores on a machine without one.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If the device is unknown, or missing and `fall_back` is False.
    """
    if device == "auto":
        return _numbered(torch.device("cuda")) if torch.cuda.is_available() else torch.device("cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not a device that torch knows: use 'auto', 'cpu', 'cuda' or "
            "'cuda:1', for instance."
        ) from error
    problem = _why_missing(resolved)
    if problem is None:
        return _numbered(resolved)
    if not fall_back:
        raise ValueError(f"device={device!r}: {problem} Use device='cpu' or device='auto'.")
    warnings.warn(f"device={device!r}: {problem} The CPU is used instead.", stacklevel=3)
    return torch.device("cpu")


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Let convolutions in float32 keep all its digits on a GPU too.

    By default torch rounds their inputs to TensorFloat-32, of three digits. They are left to it
    only where the user has allowed as much for products of matrices.
    """
    if device.type != "cuda":
        yield
        return
    try:
        before = torch.backends.cudnn.allow_tf32
        is_allowed = torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # the user has set what is finer than these can say
        is_allowed = True
    if is_allowed:
        yield
        return
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _numbered(device: torch.device) -> torch.device:
    """The device as tensors name theirs, so that the two can be compared."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def warn_if_emulated(device: torch.device, precision: str) -> None:
    """Warn of a precision in which a CPU is many times slower than in float32."""
    if device.type != "cpu" or precision == "float32" or _is_supported(precision):
        return
    warnings.warn(
        f"precision={precision!r}: this CPU emulates it, which takes many times as long as "
        "precision='float32'. It is for GPUs; 'bfloat16' also for CPUs with AVX512-BF16 or AMX.",
        stacklevel=3,
    )


def _is_supported(precision: str) -> bool:
    name = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    try:
        return getattr(torch.ops.mkldnn, name[precision])()
    except (AttributeError, RuntimeError):  # a torch that cannot tell
        return True


def _why_missing(device: torch.device) -> str | None:
    """Say what is missing for `device`, or None if it can be used."""
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "torch sees no CUDA GPU on this machine."
        if device.index is not None and device.index >= torch.cuda.device_count():
            return f"torch sees {torch.cuda.device_count()} GPU(s), numbered from 0."
        return None
    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises many kinds, by device type and build
        return f"torch cannot use it on this machine ({type(error).__name__})."
    return None
