"""Winograd's 3 x 3 convolution, compiled for this CPU by Numba.

Six windows at a time are transformed, multiplied with the kernels and transformed to outputs, for
which a core's own cache has room; the threads take the next six until none is left. What must be
in vector registers is written as vector instructions, eight channels at a time, the loops around it
as Numba's Python. Every output is computed in the same way whatever else is computed with it.

To import this module takes Numba, and some seconds the first time: the machine code is kept.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from llvmlite.binding import get_host_cpu_features, get_host_cpu_name
from numba import carray, cfunc, config, from_dtype, njit, types
from numba.extending import intrinsic
from torch.nn.functional import pad

from skpadim.backbones import _vector_code as code
from skpadim.backbones._torch_threads import thread_runner
from skpadim.backbones._vector_code import LANES

if config.DISABLE_JIT:
    raise ImportError("Numba is told to compile nothing, by NUMBA_DISABLE_JIT.")

TILE, WINDOW = 4, 6
POINTS = WINDOW**2
# Windows taken at a time, and output channels of a product: the sums of 6 x 16 products fill 12 of
# AVX2's 16 vector registers.
BLOCK, PANEL = 6, 16

# The points 0, ±a, ±b and infinity, with a² = 1/2 and b² = 2: the transforms' factors then are the
# closest to one, and so is what they do to rounding errors.
_A, _B = 0.5**0.5, 2**0.5
# Kernel to its values at these points; scaled as the other transforms ask for.
_KERNEL_TRANSFORM = torch.tensor(
    [
        [1, 0, 0],
        *([-2 / 3, -2 / 3 * sign * _A, -1 / 3] for sign in (1, -1)),
        *([1 / 6, 1 / 6 * sign * _B, 1 / 3] for sign in (1, -1)),
        [0, 0, 1],
    ],
    dtype=torch.float64,
)

_run_on_threads = thread_runner()


def transform_kernels(weight: torch.Tensor) -> torch.Tensor:
    """Values of the kernels at the 6 x 6 points, in the order in which they are read.

    Parameters
    ----------
    weight : tensor of shape (n_out, n_in, 3, 3)

    Returns
    -------
    kernels : tensor of shape (36, n_panels, n_in, 16), float32
        The last panel of output channels is filled up with zeros.
    """
    weight = weight.detach().double()
    kernels = torch.einsum("ia,jb,ocab->ijco", _KERNEL_TRANSFORM, _KERNEL_TRANSFORM, weight)
    kernels = pad(kernels.flatten(0, 1), (0, -len(weight) % PANEL)).unflatten(-1, (-1, PANEL))
    return kernels.transpose(1, 2).float().contiguous()


def transform_window(x0, x1, x2, x3, x4, x5):
    """Six inputs of a window to its values at the six points."""
    even_a, odd_a = x4 - 2 * x2, _A * (x3 - 2 * x1)  # x4 - b² x2, a (x3 - b² x1)
    even_b, odd_b = x4 - 0.5 * x2, _B * (x3 - 0.5 * x1)  # x4 - a² x2, b (x3 - a² x1)
    return (
        x4 - 2.5 * x2 + x0,
        even_a + odd_a,
        even_a - odd_a,
        even_b + odd_b,
        even_b - odd_b,
        x5 - 2.5 * x3 + x1,
    )


def transform_products(at_0, at_a, at_minus_a, at_b, at_minus_b, at_infinity):
    """Products at the six points to the four outputs of a tile."""
    even_a, odd_a = at_a + at_minus_a, _A * (at_a - at_minus_a)
    even_b, odd_b = at_b + at_minus_b, _B * (at_b - at_minus_b)
    return (
        at_0 + even_a + even_b,
        odd_a + odd_b,
        0.5 * even_a + 2 * even_b,
        0.5 * odd_a + 2 * odd_b + at_infinity,
    )


def convolve(
    images: torch.Tensor, kernels: torch.Tensor, bias: torch.Tensor, n_out: int
) -> torch.Tensor:
    """Convolve with stride 1 and zeros around the images.

    Parameters
    ----------
    images : tensor of shape (n_images, height, width, n_in), float32
        Contiguous; `n_in` is a multiple of 8.
    kernels : tensor of shape (36, n_panels, n_in, 16), float32
        Of :func:`transform_kernels`.
    bias : tensor of shape (16 * n_panels,), float32
    n_out : int
        How many output channels there are without those that fill up the last panel.

    Returns
    -------
    outputs : tensor of shape (n_images, height, width, n_out), float32
    """
    n_images, height, width, n_in = images.shape
    n_panels, n_threads = kernels.shape[1], torch.get_num_threads()
    n_windows = n_images * -(-height // TILE) * -(-width // TILE)
    n_parts = 1
    while -(-n_windows // BLOCK) * n_parts < 2 * n_threads and n_panels % (2 * n_parts) == 0:
        n_parts *= 2  # of few windows, the threads share the output channels too
    here = {"dtype": torch.float32, "device": "cpu"}  # whatever torch's defaults are
    outputs = torch.empty(n_images, height, width, n_out, **here)
    # For a block's values and products, and a window or a tile.
    n_part = n_panels // n_parts * PANEL
    scratch_size = POINTS * (BLOCK * (n_in + n_part) + max(n_in, n_part))
    scratch = torch.empty(n_threads, scratch_size, **here)
    counters = np.zeros(2, np.int64)
    addresses = [tensor.data_ptr() for tensor in (images, kernels, bias, outputs, scratch)]
    sizes = (n_images, height, width, n_in, n_out, n_panels, n_parts, scratch_size)
    task = np.array((*addresses, counters.ctypes.data, *sizes), _TASK)
    _run_on_threads(_compiled.address, task.ctypes.data, n_threads, 0)
    return outputs


_TASK = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("images", "kernels", "bias", "outputs", "scratch", "counters"),  # addresses
            *("n_images", "height", "width", "n_in", "n_out", "n_panels", "n_parts"),
            "scratch_size",  # numbers for each thread
        )
    ]
)
_INT64 = types.int64


@intrinsic
def _to_points(_context, source, row, pixel, target, point):
    """Transform eight channels of a window; its values are written in steps of `point`."""

    def write(context, builder, _signature, arguments):
        source, row, pixel, target, point = arguments
        rows = []
        for i in range(WINDOW):
            start = code.step(builder, source, i, row)
            addresses = (code.step(builder, start, j, pixel) for j in range(WINDOW))
            rows.append(transform_window(*(code.load(builder, a) for a in addresses)))
        for j, column in enumerate(zip(*rows, strict=True)):
            for i, value in enumerate(transform_window(*column)):
                code.store(value, code.step(builder, target, WINDOW * i + j, point))
        return context.get_dummy_value()

    return types.void(*[_INT64] * 5), write


@intrinsic
def _to_tile(_context, source, point, bias, target, row, pixel):
    """Transform eight channels of products, which lie in steps of `point`, to a tile."""

    def write(context, builder, _signature, arguments):
        source, point, bias, target, row, pixel = arguments
        rows = []
        for i in range(WINDOW):
            addresses = (code.step(builder, source, WINDOW * i + j, point) for j in range(WINDOW))
            rows.append(transform_products(*(code.load(builder, a) for a in addresses)))
        bias = code.load(builder, bias)
        for j, column in enumerate(zip(*rows, strict=True)):
            start = code.step(builder, target, j, pixel)
            for i, value in enumerate(transform_products(*column)):
                code.store(value + bias, code.step(builder, start, i, row))
        return context.get_dummy_value()

    return types.void(*[_INT64] * 6), write


@intrinsic
def _multiply(_context, values, panel, n_in, products, row):
    """Multiply the values of a block at a point with a panel of kernels."""

    def write(context, builder, _signature, arguments):
        values, panel, n_in, products, row = arguments
        lanes = range(0, PANEL, LANES)
        windows = [values]
        for _ in range(1, BLOCK):
            windows.append(code.step(builder, windows[-1], n_in, 4))

        def factors(channel):
            weights = code.step(builder, panel, channel, 4 * PANEL)
            columns = [code.load(builder, code.step(builder, weights, k, 4)) for k in lanes]
            for window in windows:
                value = code.load_repeated(builder, code.step(builder, window, channel, 4))
                yield from ((value, column) for column in columns)

        n_sums = BLOCK * len(lanes)
        sums = iter(code.sums_of_products(builder, n_in, n_sums, factors))
        for i in range(BLOCK):
            start = code.step(builder, products, i, row)
            for k in lanes:
                code.store(next(sums), code.step(builder, start, k, 4))
        return context.get_dummy_value()

    return types.void(*[_INT64] * 5), write


@intrinsic
def _next(_context, counter):
    """Count up a counter that the threads share; its value before."""

    def write(_context, builder, _signature, arguments):
        return code.add_to_counter(builder, *arguments)

    return _INT64(_INT64), write


@intrinsic
def _floats(_context, address):
    """Pointer to float32 numbers."""

    def write(context, builder, signature, arguments):
        return builder.inttoptr(*arguments, context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(_INT64), write


@njit
def _transform_windows(task, start, stop, values, scratch):
    height, width, n_in = task.height, task.width, task.n_in
    n_rows, n_columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    pixel = 4 * n_in
    for k in range(start, stop):
        image = task.images + (k // (n_rows * n_columns)) * height * width * pixel
        top, left = k // n_columns % n_rows * TILE - 1, k % n_columns * TILE - 1
        if min(top, left) >= 0 and top + WINDOW <= height and left + WINDOW <= width:
            source, row = image + (top * width + left) * pixel, width * pixel
        else:
            _copy_inside(image, height, width, n_in, top, left, scratch)
            source, row = scratch, WINDOW * pixel
        target = values + (k - start) * pixel
        for channel in range(0, n_in, LANES):
            offset = 4 * channel
            _to_points(source + offset, row, pixel, target + offset, BLOCK * pixel)


@njit
def _copy_inside(image, height, width, n_in, top, left, window):
    """Copy a window that lies partly outside the image, with zeros there."""
    source, target = _floats(image), _floats(window)
    for i in range(WINDOW):
        for j in range(WINDOW):
            first = (i * WINDOW + j) * n_in
            if 0 <= top + i < height and 0 <= left + j < width:
                pixel = ((top + i) * width + left + j) * n_in
                for channel in range(n_in):
                    target[first + channel] = source[pixel + channel]
            else:
                for channel in range(n_in):
                    target[first + channel] = 0


@njit
def _multiply_all(task, part, values, products):
    """Multiply a block's values with a part of the panels, at all points."""
    n_in = task.n_in
    n_panels = task.n_panels // task.n_parts
    row = 4 * PANEL * n_panels
    for point in range(POINTS):
        at_point = values + 4 * point * BLOCK * n_in
        for i in range(n_panels):
            panel = point * task.n_panels + part * n_panels + i
            kernels = task.kernels + 4 * panel * n_in * PANEL
            target = products + point * BLOCK * row + 4 * PANEL * i
            _multiply(at_point, kernels, n_in, target, row)


@njit
def _write_tiles(task, part, start, stop, products, scratch):
    height, width, n_out = task.height, task.width, task.n_out
    n_rows, n_columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    n_part = task.n_panels // task.n_parts * PANEL
    first = part * n_part
    bias = task.bias + 4 * first
    n_used = min(n_part, n_out - first)
    for k in range(start, stop):
        source = products + 4 * (k - start) * n_part
        image = task.outputs + 4 * (k // (n_rows * n_columns)) * height * width * n_out
        top, left = k // n_columns % n_rows * TILE, k % n_columns * TILE
        is_whole = top + TILE <= height and left + TILE <= width and n_used == n_part
        if is_whole:
            target = image + 4 * ((top * width + left) * n_out + first)
            row, pixel = 4 * width * n_out, 4 * n_out
        else:
            target, row, pixel = scratch, 4 * TILE * n_part, 4 * n_part
        for channel in range(0, n_part, LANES):
            offset = 4 * channel
            point = 4 * BLOCK * n_part
            _to_tile(source + offset, point, bias + offset, target + offset, row, pixel)
        if not is_whole:
            _copy_used(scratch, n_part, n_used, image + 4 * first, height, width, n_out, top, left)


@njit
def _copy_used(tile, n_part, n_used, image, height, width, n_out, top, left):
    """Copy what lies inside the image of a tile, and the channels that are not mere filling."""
    source, target = _floats(tile), _floats(image)
    for i in range(min(TILE, height - top)):
        for j in range(min(TILE, width - left)):
            pixel = ((top + i) * width + left + j) * n_out
            for channel in range(n_used):
                target[pixel + channel] = source[(i * TILE + j) * n_part + channel]


def _convolve_blocks(pointer):
    """Convolve as long as there are blocks of windows; what each thread does."""
    task = carray(pointer, 1)[0]
    n_tiles = ((task.height + TILE - 1) // TILE) * ((task.width + TILE - 1) // TILE)
    n_windows = task.n_images * n_tiles
    n_blocks = (n_windows + BLOCK - 1) // BLOCK
    n_part = task.n_panels // task.n_parts * PANEL
    scratch = task.scratch + 4 * task.scratch_size * _next(task.counters)
    products = scratch + 4 * POINTS * BLOCK * task.n_in
    window = products + 4 * POINTS * BLOCK * n_part
    while True:
        block, part = divmod(_next(task.counters + 8), task.n_parts)
        if block >= n_blocks:
            break
        start, stop = block * BLOCK, min((block + 1) * BLOCK, n_windows)
        _transform_windows(task, start, stop, scratch, window)
        # Where windows are fewer than a block, those of an earlier one go along unused.
        _multiply_all(task, part, scratch, products)
        _write_tiles(task, part, start, stop, products, window)


def _compile(function):
    """Compile for this CPU, or take the machine code that Numba has kept.

    Numba knows it by the function's name, file and CPU. Into the name goes what else it depends on,
    and the CPU too: unlike ones that share a folder then write files of their own.
    """
    digest = hashlib.sha256(Path(code.__file__).read_bytes())
    digest.update(f"{get_host_cpu_name()} {get_host_cpu_features().flatten()}".encode())
    function.__qualname__ += "_" + digest.hexdigest()[:16]
    signature = types.void(types.CPointer(from_dtype(_TASK)))
    try:
        return cfunc(signature, cache=True)(function)
    except Exception:  # no folder to keep it in, a full disk, or what was kept is damaged
        return cfunc(signature)(function)


_compiled = _compile(_convolve_blocks)
