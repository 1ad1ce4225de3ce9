"""Where tensors are computed, the `device` parameter; and memory for large ones."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from skpadim.machine._file_memory import empty_in_file

# The device that each estimator's user was told is missing.
_told: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
# Where torch's own tensors begin: at a multiple of a line of the caches.
_ALIGNMENT = 64
_LEAST_BYTES_IN_FILE = 64 * 2**20


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the `device` parameter into a device that is there, or raise a ValueError.

    ``"auto"`` is the GPU if torch sees one (CUDA or ROCm), else the CPU.
    """
    if device == "auto":
        return _numbered(torch.device("cuda")) if torch.cuda.is_available() else torch.device("cpu")
    problem = _why_missing(_known(device))
    if problem is None:
        return _numbered(torch.device(device))
    is_cpu_build = torch.version.cuda is None and torch.version.hip is None
    other = " This torch is built without support for GPUs." if is_cpu_build else ""
    raise ValueError(f"device={device!r}: {problem} Use device='cpu' or device='auto'.{other}")


def available_device(device: str | torch.device, estimator: object) -> str | torch.device:
    """The `device` parameter of a fitted estimator, or the CPU where that device is missing.

    So a model that was fitted on a GPU also scores on a machine without one, with a warning the
    first time. A device that torch does not know is a ValueError.
    """
    problem = None if device == "auto" else _why_missing(_known(device))
    if problem is None:
        return device
    if _told.get(estimator) != str(device):
        _told[estimator] = str(device)
        warnings.warn(
            f"device={device!r}: {problem} The CPU is used instead; set_params(device='auto') "
            "uses what there is, without this warning.",
            stacklevel=3,
        )
    return "cpu"


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


def _known(device: str | torch.device) -> torch.device:
    """The device as torch knows it, there or not."""
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device={device!r} is not a device that torch knows: use 'auto', 'cpu', 'cuda' or "
            "'cuda:1', for instance."
        ) from error


def _numbered(device: torch.device) -> torch.device:
    """The device as tensors name theirs, so that the two can be compared."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def arithmetic_of(precision: str, device: torch.device) -> torch.dtype:
    """What a network is computed in: float32 on a CPU that has no instructions for `precision`.

    It would compute in float32 in any case, and convert before and after each operation.
    """
    if device.type == "cpu" and not _is_supported(precision):
        return torch.float32
    return getattr(torch, precision)


def _is_supported(precision: str) -> bool:
    """Whether torch has products of matrices and convolutions in a precision for this CPU."""
    name = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    if precision not in name:
        return True
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
    if device.type == "meta":
        return "tensors have no values there."
    try:
        torch.zeros(1, device=device)
    except Exception as error:  # torch raises many kinds, by device type and build
        return f"torch cannot use it on this machine ({type(error).__name__})."
    return None


def empty(
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    in_file: bool = False,
) -> torch.Tensor:
    """As :func:`torch.empty`, in memory that is quick to write for the first time.

    On a CPU a large tensor may be `in_file`, see `_file_memory`.

    The system clears each page of new memory when it is first written. NumPy asks Linux for pages
    of 2 MiB, torch takes those of 4 KiB, which are quicker to clear one by one but far more.
    """
    if torch.device(device).type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    n_bytes = math.prod(shape) * dtype.itemsize
    if in_file and n_bytes > _LEAST_BYTES_IN_FILE:
        return empty_in_file(tuple(shape), dtype)
    memory = np.empty(n_bytes + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[start : start + n_bytes]).view(dtype).view(*shape)
