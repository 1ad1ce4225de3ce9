"""Winograd's convolution, compiled for this CPU by Numba.

Six windows at a time are transformed, multiplied with the kernels and transformed to outputs, for
which a core's own cache has room; the threads take the next six until none is left. What must be
in vector registers is written as vector instructions, a register of channels at a time, the loops
around it as Numba's Python. Every output is computed in the same way whatever else is computed with
it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from llvmlite.binding import get_host_cpu_features
from numba import carray, njit, types
from numba.extending import intrinsic
from torch.nn.functional import pad

from skpadim.backbones.winograd import _transforms as transforms
from skpadim.backbones.winograd import _vector_code as code
from skpadim.backbones.winograd._machine_code import compile_loop
from skpadim.backbones.winograd._torch_threads import run_on_threads
from skpadim.backbones.winograd._transforms import (
    POINTS,
    WINDOW,
    transform_kernels,
    transform_products,
    transform_window,
)
from skpadim.backbones.winograd._vector_code import LANES, NUMBERS, next_count, numbers_at

# Windows taken at a time, and output channels of a product: its 12 sums, of the 16 or 32 vector
# registers, are as many as keep the units busy that multiply and add.
BLOCK, PANEL = 6, 2 * LANES
# Of pairs of pixels, two rows of two pixels of three channels: what lies together in memory, and
# the pixels to the right of them that are loaded with them and not used.
_PAIR = 6
_BEHIND_PAIR = -(-(LANES - _PAIR) // 3)


def kernels_as_read(weight: torch.Tensor, stride: int) -> torch.Tensor:
    """Kernels at the 6 x 6 points as they are read: (36, n_panels, n_terms, PANEL), float32.

    `weight` is as :func:`transform_kernels` takes it. The last panel of output channels is filled
    up with zeros.
    """
    kernels = transform_kernels(weight, stride).flatten(0, 1).transpose(1, 2)
    kernels = pad(kernels, (0, -len(weight) % PANEL)).unflatten(-1, (-1, PANEL))
    return kernels.transpose(1, 2).float().contiguous()


def convolve(
    images: torch.Tensor,
    kernels: torch.Tensor,
    bias: torch.Tensor,
    n_out: int,
    *,
    stride: int = 1,
    rectify: bool = False,
    added: torch.Tensor | None = None,
) -> torch.Tensor:
    """Convolve (n, height, width, n_in) to (n, out_height, out_width, n_out), with zeros around.

    `images` are contiguous, float32 or bfloat16, and outputs of their dtype. `kernels`, of
    :func:`kernels_as_read`, are 3 x 3 with stride 1, where `n_in` is LANES or more, and 7 x 7 with
    stride 2, where it is 3. `bias` is (PANEL * n_panels,), float32: `n_out` does not count what
    fills up the last panel. `added`, contiguous and like the outputs, is added with stride 1; then,
    if `rectify`, outputs below zero become zero.
    """
    n_images, height, width, n_in = images.shape
    n_panels, n_terms, n_threads = *kernels.shape[1:3], torch.get_num_threads()
    if stride == 1:
        tile, before, n_values = 4, 1, n_in
    else:
        tile, before, n_values = 3, 4, _PAIR + LANES
    out_height, out_width = (height - 1) // stride + 1, (width - 1) // stride + 1
    n_windows = n_images * -(-out_height // tile) * -(-out_width // tile)
    n_parts = 1
    while -(-n_windows // BLOCK) * n_parts < 2 * n_threads and n_panels % (2 * n_parts) == 0:
        n_parts *= 2  # of few windows, the threads share the output channels too
    outputs = images.new_empty(n_images, out_height, out_width, n_out)
    # For a block's values and products, and a window or a tile.
    n_part = n_panels // n_parts * PANEL
    n_copied = max((WINDOW * stride) ** 2 * n_in + LANES, tile**2 * n_part)
    scratch_size = POINTS * BLOCK * (n_values + n_part) + n_copied
    scratch = kernels.new_empty(n_threads, scratch_size)
    counters = np.zeros(2, np.int64)
    addresses = [tensor.data_ptr() for tensor in (images, kernels, bias, outputs, scratch)]
    addresses += [0 if added is None else added.data_ptr(), counters.ctypes.data]
    sizes = (n_images, height, width, n_in, out_height, out_width, n_out, n_panels, n_parts)
    geometry = (images.element_size(), stride, before, tile, n_values, n_terms)
    task = np.array(
        (*addresses, *sizes, *geometry, scratch_size, 0 if rectify else -np.inf, 0),
        _task(images.dtype),
    )
    run_on_threads(compiled(images.dtype), task, n_threads)
    return outputs


@cache
def compiled(dtype: torch.dtype):
    """The compiled loop for images of a dtype."""
    # In bfloat16 AMX, units that multiply matrices, is faster than any vector instructions.
    has_amx = get_host_cpu_features().get("amx-bf16")
    if dtype not in NUMBERS or (dtype == torch.bfloat16 and has_amx):
        raise NotImplementedError(f"none for {dtype}")
    return compile_loop(_convolve_blocks, _task(dtype), [code, transforms])


@cache
def _task(dtype):
    """What the compiled loop is told."""
    names = (
        *("images", "kernels", "bias", "outputs", "scratch", "added", "counters"),  # addresses
        *("n_images", "height", "width", "n_in"),
        *("out_height", "out_width", "n_out", "n_panels", "n_parts"),
        "item",  # bytes of a number of the images
        *("stride", "before", "tile"),  # `before` is how many pixels a window starts early
        # Values of a window at a point: of its channels, with stride 2 those of two rows of pixels
        # and what is loaded behind them.
        *("n_values", "n_terms"),
        "scratch_size",  # numbers for each thread
    )
    fields = [(name, np.int64) for name in names]
    # The last is there for its type.
    return np.dtype([*fields, ("lowest", np.float32), ("number", NUMBERS[dtype])])


_INT64 = types.int64
# Numba names a function after its arguments, and a record of fields by a number that it has in this
# process. Machine code that other processes have kept could so be joined with other functions of
# the same name: there must be none beside the loop itself, which has a name of its own.
_inlined = njit(inline="always")


@intrinsic
def _to_points(_context, number, source, row, pixel, target, point):
    """Transform channels of a window; its values are written in steps of `point`."""

    def write(context, builder, _signature, arguments):
        _, source, row, pixel, target, point = arguments
        rows = []
        for i in range(WINDOW):
            start = code.step(builder, source, i, row)
            addresses = (code.step(builder, start, j, pixel) for j in range(WINDOW))
            rows.append(transform_window(*(code.load(builder, a, number) for a in addresses)))
        for j, column in enumerate(zip(*rows, strict=True)):
            for i, value in enumerate(transform_window(*column)):
                code.store(value, code.step(builder, target, WINDOW * i + j, point))
        return context.get_dummy_value()

    return types.void(number, *[_INT64] * 5), write


def _tile_writer(tile, *, is_added_to):
    """Function that transforms channels of products, in steps of `point`, to a tile."""

    @intrinsic
    def to_tile(_context, number, lowest, source, point, bias, added, target, row, pixel):
        def write(context, builder, _signature, arguments):
            _, lowest, source, point, bias, added, target, row, pixel = arguments
            rows = []
            for i in range(WINDOW):
                points = (WINDOW * i + j for j in range(WINDOW))
                addresses = (code.step(builder, source, k, point) for k in points)
                rows.append(transform_products(tile, *(code.load(builder, a) for a in addresses)))
            bias, lowest = code.load(builder, bias), code.repeated(builder, lowest)
            for j, column in enumerate(zip(*rows, strict=True)):
                for i, value in enumerate(transform_products(tile, *column)):
                    value += bias

                    def at(start, i=i, j=j):
                        return code.step(builder, code.step(builder, start, j, pixel), i, row)

                    if is_added_to:
                        value += code.load(builder, at(added), number)
                    code.store(value.at_least(lowest), at(target), number)
            return context.get_dummy_value()

        return types.void(number, lowest, *[_INT64] * 7), write

    return to_tile


_to_3x3 = _tile_writer(3, is_added_to=False)
_to_4x4 = _tile_writer(4, is_added_to=False)
_add_to_4x4 = _tile_writer(4, is_added_to=True)


@intrinsic
def _multiply(_context, values, window, panel, n_terms, products, row):
    """Multiply the values of a block's windows at a point with a panel of kernels."""

    def write(context, builder, _signature, arguments):
        values, window, panel, n_terms, products, row = arguments
        lanes = range(0, PANEL, LANES)
        windows = [values]
        for _ in range(1, BLOCK):
            windows.append(code.step(builder, windows[-1], 1, window))

        def factors(term):
            weights = code.step(builder, panel, term, 4 * PANEL)
            columns = [code.load(builder, code.step(builder, weights, k, 4)) for k in lanes]
            for start in windows:
                value = code.load_repeated(builder, code.step(builder, start, term, 4))
                yield from ((value, column) for column in columns)

        n_sums = BLOCK * len(lanes)
        sums = iter(code.sums_of_products(builder, n_terms, n_sums, factors))
        for i in range(BLOCK):
            start = code.step(builder, products, i, row)
            for k in lanes:
                code.store(next(sums), code.step(builder, start, k, 4))
        return context.get_dummy_value()

    return types.void(*[_INT64] * 6), write


@_inlined
def _transform_windows(task, start, stop, values, scratch):
    n_rows = (task.out_height + task.tile - 1) // task.tile
    n_columns = (task.out_width + task.tile - 1) // task.tile
    size, step = WINDOW * task.stride, task.tile * task.stride
    behind = _BEHIND_PAIR if task.stride == 2 else 0
    pixel = task.item * task.n_in
    for k in range(start, stop):
        image = task.images + (k // (n_rows * n_columns)) * task.height * task.width * pixel
        top = k // n_columns % n_rows * step - task.before
        left = k % n_columns * step - task.before
        is_inside = (
            min(top, left) >= 0 and top + size <= task.height and left + size + behind <= task.width
        )
        if is_inside:
            source, line = image + (top * task.width + left) * pixel, task.width * pixel
        else:
            _copy_inside(task, image, top, left, size, scratch)
            source, line = scratch, size * pixel
        target = values + 4 * (k - start) * task.n_values
        point = 4 * BLOCK * task.n_values
        row, column = task.stride * line, task.stride * pixel
        if task.stride == 2:
            _to_points(task.number, source, row, column, target, point)
            _to_points(task.number, source + line, row, column, target + 4 * _PAIR, point)
            continue
        for i in range(0, task.n_in, LANES):
            # The last register ends with the last channel: it may begin among those before.
            first = min(i, task.n_in - LANES)
            at = source + task.item * first
            _to_points(task.number, at, row, column, target + 4 * first, point)


@_inlined
def _copy_inside(task, image, top, left, size, window):
    """Copy a window that lies partly outside the image, with zeros there."""
    source, target = numbers_at(task.number, image), numbers_at(task.number, window)
    for i in range(size):
        for j in range(size):
            first = (i * size + j) * task.n_in
            if 0 <= top + i < task.height and 0 <= left + j < task.width:
                pixel = ((top + i) * task.width + left + j) * task.n_in
                for channel in range(task.n_in):
                    target[first + channel] = source[pixel + channel]
            else:
                for channel in range(task.n_in):
                    target[first + channel] = 0


@_inlined
def _multiply_all(task, part, values, products):
    """Multiply a block's values with a part of the panels, at all points."""
    n_panels = task.n_panels // task.n_parts
    window, row = 4 * task.n_values, 4 * PANEL * n_panels
    for point in range(POINTS):
        at_point = values + point * BLOCK * window
        for i in range(n_panels):
            panel = point * task.n_panels + part * n_panels + i
            kernels = task.kernels + 4 * panel * task.n_terms * PANEL
            target = products + point * BLOCK * row + 4 * PANEL * i
            _multiply(at_point, window, kernels, task.n_terms, target, row)


@_inlined
def _write_tiles(task, part, start, stop, products, scratch):
    height, width, n_out, tile = task.out_height, task.out_width, task.n_out, task.tile
    n_rows, n_columns = (height + tile - 1) // tile, (width + tile - 1) // tile
    n_part = task.n_panels // task.n_parts * PANEL
    first = part * n_part
    n_used = min(n_part, n_out - first)
    for k in range(start, stop):
        image, top, left = k // (n_rows * n_columns), k // n_columns % n_rows, k % n_columns
        top, left = tile * top, tile * left
        offset = task.item * (((image * height + top) * width + left) * n_out + first)
        is_whole = top + tile <= height and left + tile <= width and n_used == n_part
        used = min(tile, height - top), min(tile, width - left), n_used
        if is_whole:
            target, added = task.outputs + offset, task.added + offset
            row, pixel = task.item * width * n_out, task.item * n_out
        else:
            target = added = scratch
            row, pixel = task.item * tile * n_part, task.item * n_part
            if task.added:
                _copy(task, task.added + offset, width, n_out, scratch, tile, n_part, used)
        for channel in range(0, n_part, LANES):
            source, point = products + 4 * ((k - start) * n_part + channel), 4 * BLOCK * n_part
            bias, at = task.bias + 4 * (first + channel), task.item * channel
            to = target + at
            if tile == 3:
                _to_3x3(task.number, task.lowest, source, point, bias, added, to, row, pixel)
            elif task.added:
                _add_to_4x4(
                    task.number, task.lowest, source, point, bias, added + at, to, row, pixel
                )
            else:
                _to_4x4(task.number, task.lowest, source, point, bias, added, to, row, pixel)
        if not is_whole:
            _copy(task, scratch, tile, n_part, task.outputs + offset, width, n_out, used)


@_inlined
def _copy(task, source, source_width, n_source, target, target_width, n_target, used):
    """Copy the rows, columns and channels of a tile that are used: the others are mere filling."""
    n_rows, n_columns, n_channels = used
    numbers, copies = numbers_at(task.number, source), numbers_at(task.number, target)
    for i in range(n_rows):
        for j in range(n_columns):
            pixel = (i * source_width + j) * n_source
            copy = (i * target_width + j) * n_target
            for channel in range(n_channels):
                copies[copy + channel] = numbers[pixel + channel]


def _convolve_blocks(pointer):
    """Convolve as long as there are blocks of windows; what each thread does."""
    task = carray(pointer, 1)[0]
    n_rows = (task.out_height + task.tile - 1) // task.tile
    n_columns = (task.out_width + task.tile - 1) // task.tile
    n_windows = task.n_images * n_rows * n_columns
    n_blocks = (n_windows + BLOCK - 1) // BLOCK
    n_part = task.n_panels // task.n_parts * PANEL
    scratch = task.scratch + 4 * task.scratch_size * next_count(task.counters)
    products = scratch + 4 * POINTS * BLOCK * task.n_values
    window = products + 4 * POINTS * BLOCK * n_part
    while True:
        block, part = divmod(next_count(task.counters + 8), task.n_parts)
        if block >= n_blocks:
            break
        start, stop = block * BLOCK, min((block + 1) * BLOCK, n_windows)
        _transform_windows(task, start, stop, scratch, window)
        # Where windows are fewer than a block, those of an earlier one go along unused.
        _multiply_all(task, part, scratch, products)
        _write_tiles(task, part, start, stop, products, window)
