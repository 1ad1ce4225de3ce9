"""A tensor whose rows the processes of a machine fill together, without sending them."""

from __future__ import annotations

import math
import mmap
import os
from contextlib import suppress

import torch

from skpadim._large_tensors import empty

# Linux's MADV_POPULATE_WRITE.
_POPULATE_WRITE = 23


class SharedRows:
    """A float32 tensor that workers write rows of, in memory that they and this process map.

    Sent to another process it arrives without the tensor, and finds the memory by its process. A
    context: up to its end others find it. The tensor stays. Nothing of it has a name in a file
    system, so nothing is left over whatever becomes of the processes.

    Parameters
    ----------
    shape : tuple of int
    in_common : bool, default=True
        False for a tensor that only threads of this process can write. So it is, too, where the
        system has no such memory (elsewhere than on Linux).

    Attributes
    ----------
    tensor : tensor or None
        All rows; None in other processes.
    """

    def __init__(self, shape: tuple[int, ...], in_common: bool = True):
        self.shape = tuple(shape)
        self.tensor = self._path = self._identity = None
        self._descriptor = _new_memory(self._bytes_before(shape[0])) if in_common else None
        if self._descriptor is not None:
            with suppress(OSError):  # of a system without /proc, or that lets nobody look there
                self._identity = _identity(self._descriptor)
                self._path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
                self.tensor = self._map()
        if self.tensor is None:
            self.__exit__()
            self._path = None
            self.tensor = empty(shape)

    def rows(self, start: int, stop: int) -> torch.Tensor | None:
        """Rows to write; None in a process that has no access to them, or no memory left."""
        if self.tensor is None:
            tensor = self._map(start, stop)
            return None if tensor is None else tensor[start:stop]
        if self._descriptor is not None:
            try:
                self._allocate(self._descriptor, start, stop)
            except OSError:
                return None
        return self.tensor[start:stop]

    def _map(self, start=0, stop=0):
        """The tensor, with memory for some of its rows."""
        if self._path is None:
            return None
        with suppress(OSError), open(self._path, "r+b") as file:
            # On another machine, or in a container, the path may lead to something else.
            if _identity(file.fileno()) == self._identity:
                self._allocate(file.fileno(), start, stop)
                memory = mmap.mmap(file.fileno(), self._bytes_before(self.shape[0]))
                self._enter_pages(memory, start, stop)
                return torch.frombuffer(memory, dtype=torch.float32).view(self.shape)
        return None

    def _allocate(self, descriptor, start, stop):
        """Take memory for rows, or fail: what writes to a map without memory is killed.

        By those that write the rows, since the system clears the memory first.
        """
        if stop > start:
            first, last = self._bytes_before(start), self._bytes_before(stop)
            os.posix_fallocate(descriptor, first, last - first)

    def _enter_pages(self, memory, start, stop):
        """Let rows that will be written be in the map at once, and not page by page."""
        if stop > start:
            first = self._bytes_before(start) // mmap.PAGESIZE * mmap.PAGESIZE
            with suppress(OSError):  # of a Linux before 5.14, where it costs some time
                memory.madvise(_POPULATE_WRITE, first, self._bytes_before(stop) - first)

    def _bytes_before(self, row):
        return 4 * row * math.prod(self.shape[1:])

    def __getstate__(self):
        return {**vars(self), "tensor": None, "_descriptor": None}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _new_memory(n_bytes):
    """Descriptor of memory of that size, which is yet to be allocated, or None."""
    if not hasattr(os, "memfd_create"):
        return None
    with suppress(OSError):
        descriptor = os.memfd_create("skpadim")
        try:
            os.ftruncate(descriptor, n_bytes)
            os.posix_fallocate(descriptor, 0, 1)  # see whether it can be
            return descriptor
        except OSError:
            os.close(descriptor)
    return None


def _identity(descriptor):
    """Tells an open file from any other, of other machines too."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        machine = file.read()
    status = os.fstat(descriptor)
    return machine, status.st_dev, status.st_ino, status.st_size
