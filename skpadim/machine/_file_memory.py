"""Arrays too large for memory, in temporary files that the system maps into it.

A file has no name, and its space is given back with the last array on it. What has been read or
written of it stays in memory as long as there is room, and on Linux is let go here before it
passes a limit, so that a process stays as small as it says.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
import torch

# Pages of files that a process may hold: also those of its libraries.
_MAX_RESIDENT_BYTES = 3 * 2**29

_mapped = weakref.WeakKeyDictionary()  # where an array begins and ends, by its map


def empty_in_file(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """As :func:`torch.empty`, in a file of the folder for temporary files."""
    n_bytes = math.prod(shape) * dtype.itemsize
    with tempfile.TemporaryFile(prefix="skpadim-") as file:
        try:
            if hasattr(os, "posix_fallocate"):  # a full disk must be told now, not at a write
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                file.truncate(n_bytes)
        except OSError as error:
            raise OSError(
                error.errno,
                f"A model of this size keeps {n_bytes / 1e9:.1f} GB in temporary files in "
                f"{tempfile.gettempdir()}, where there is no room ({error.strerror}). Set the "
                "environment variable TMPDIR to a folder that has it, or make the model smaller: "
                "n_features, coarser layers, sharing='image', or a region of interest (roi)",
            ) from error
        array = np.memmap(file, dtype=np.uint8, mode="r+", shape=(n_bytes,))
    note_map(array)
    return torch.from_numpy(array).view(dtype).view(*shape)


def note_map(array: np.ndarray) -> None:
    """Take note of an array that is mapped from a file, if it is one."""
    if getattr(array, "_mmap", None) is not None:
        _mapped[array._mmap] = array.ctypes.data, array.ctypes.data + array.nbytes


def is_in_file(tensor: torch.Tensor) -> bool:
    """Whether a tensor, or what it is a view of, lies in a file that is known here."""
    if tensor.device.type != "cpu" or not _mapped:
        return False
    place = tensor.untyped_storage().data_ptr()
    return any(start <= place < end for start, end in map(_mapped.get, _maps()))


def _maps():
    """All maps that are there; other threads may add some meanwhile."""
    return [mapping for ref in _mapped.keyrefs() if (mapping := ref()) is not None]


def in_turn(blocks: list[slice]) -> Iterator[slice]:
    """Blocks of positions, and after each a look whether pages of files should go."""
    for block in blocks:
        yield block
        let_pages_go()


def let_pages_go() -> None:
    """Let the pages of arrays in files go, if there are too many; what is in them is not lost."""
    if not _mapped or not hasattr(mmap, "MADV_DONTNEED"):
        return
    try:
        with open("/proc/self/statm") as file:
            resident = int(file.read().split()[2]) * mmap.PAGESIZE
    except OSError:  # not Linux
        return
    if resident > _MAX_RESIDENT_BYTES:
        for mapping in _maps():
            mapping.madvise(mmap.MADV_DONTNEED)
