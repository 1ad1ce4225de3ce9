"""Run Winograd's compiled loop on memory that lies between pages that nobody may touch.

A loop that reads or writes a number too many ends the process; one that uses what it has read in
vain, all of it NaN, gives wrong results. Says where the pages adjoined, as it has seen to them.
"""

import ctypes
import math
import mmap
from itertools import product

import torch
from torch.nn.functional import conv2d

from skpadim.backbones.winograd import _loop
from skpadim.backbones.winograd._vector_code import LANES

PAGE = mmap.PAGESIZE
ADJOINING = None  # "before" or "behind"
_protect = ctypes.CDLL(None, use_errno=True).mprotect
_protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def empty(*shape, dtype=torch.float32):
    """A tensor of NaN that adjoins a page that is closed."""
    shape = shape[0] if isinstance(shape[0], (tuple, torch.Size)) else shape
    n_bytes = math.prod(shape) * dtype.itemsize
    n_pages = max(1, math.ceil(n_bytes / PAGE))
    memory = mmap.mmap(-1, (n_pages + 2) * PAGE)
    memory.write(b"\xff" * len(memory))
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, n_pages + 1):
        assert _protect(start + page * PAGE, PAGE, 0) == 0
    offset = PAGE if ADJOINING == "before" else (n_pages + 1) * PAGE - n_bytes
    return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape), offset=offset).view(shape)


def guarded(tensor):
    return empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


def check(got, expected, tolerance):
    error = (got.double() - expected.double()).abs().max()
    assert error <= tolerance * expected.abs().max(), error


def run_winograd(dtype, n_in, n_out, size, stride, is_added_to):
    kernel = 3 if stride == 1 else 7
    weight = torch.randn(n_out, n_in, kernel, kernel)
    images = torch.randn(3, n_in, *size).to(dtype)
    expected = conv2d(images.double(), weight.double(), stride=stride, padding=kernel // 2)
    added = torch.randn(expected.shape).to(dtype) if is_added_to else None
    kernels = guarded(_loop.kernels_as_read(weight, stride))
    outputs = _loop.convolve(
        guarded(images.permute(0, 2, 3, 1)),
        kernels,
        guarded(torch.zeros(kernels.shape[1] * kernels.shape[3])),
        n_out,
        stride=stride,
        added=guarded(added.permute(0, 2, 3, 1)) if is_added_to else None,
    )
    expected = expected + added.double() if is_added_to else expected
    check(outputs.permute(0, 3, 1, 2), expected, 1e-2 if dtype == torch.bfloat16 else 2e-5)


def main():
    global ADJOINING
    torch.manual_seed(0)
    torch.set_num_threads(1)  # whose scratch memory ends where the threads' all ends
    torch.Tensor.new_empty = lambda like, *shape: empty(*shape, dtype=like.dtype)
    torch.Tensor.new_zeros = lambda like, *shape: empty(*shape, dtype=like.dtype).zero_()
    dtypes, sizes = (torch.float32, torch.bfloat16), ((1, 1), (13, 18), (14, 14))
    if _loop.get_host_cpu_features().get("amx-bf16"):
        dtypes = (torch.float32,)
    for ADJOINING in ("before", "behind"):
        for dtype, size, n_out in product(dtypes, sizes, (1, 33, 4 * LANES)):
            run_winograd(dtype, 3, n_out, size, stride=2, is_added_to=False)
            for n_in, is_added_to in product((LANES, LANES + 1, 24, 40, 3 * LANES), (True, False)):
                run_winograd(dtype, n_in, n_out, size, stride=1, is_added_to=is_added_to)
        print(ADJOINING, flush=True)
    print(LANES)


main()
