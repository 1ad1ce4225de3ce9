"""Write vector instructions, and read memory by its address, in loops that Numba compiles.

What is computed is written as an ordinary expression of :class:`Vector` objects; evaluating it
writes the instructions. Addresses are integers, in bytes.
"""

from __future__ import annotations

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from skpadim.backbones.winograd._machine_code import vector_width

LANES = vector_width()

# What stands for numbers in memory in Numba's code, which knows no bfloat16.
NUMBERS = {torch.float32: np.float32, torch.bfloat16: np.uint16}

_FLOAT, _INTEGER, _INDEX = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR, _BITS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INDEX, LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)
# A product and the sum it goes into may become one instruction.
_FLAGS = ("contract",)


class Vector:
    """Numbers in a register, float32, in code that `builder` writes."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def __add__(self, other):
        return Vector(self.builder, self.builder.fadd(self.value, other.value, flags=_FLAGS))

    def __sub__(self, other):
        return Vector(self.builder, self.builder.fsub(self.value, other.value, flags=_FLAGS))

    def __mul__(self, other):
        return Vector(self.builder, self.builder.fmul(self.value, other.value, flags=_FLAGS))

    def __rmul__(self, factor):
        return Vector(self.builder, _constant(_VECTOR, float(np.float32(factor)))) * self

    def at_least(self, lowest) -> Vector:
        """The numbers, or `lowest` where it is larger; NaN stays."""
        is_less = self.builder.fcmp_ordered("<", self.value, lowest.value)
        return Vector(self.builder, self.builder.select(is_less, lowest.value, self.value))


def load(builder, address, number=types.float32) -> Vector:
    """Numbers that follow each other in memory, of a type that Numba has for them."""
    if number != types.uint16:
        return Vector(builder, builder.load(_pointer(builder, address, _VECTOR), align=4))
    halves = builder.load(_pointer(builder, address, _HALVES), align=2)
    bits = builder.shl(builder.zext(halves, _BITS), _constant(_BITS, 16))
    return Vector(builder, builder.bitcast(bits, _VECTOR))


def load_repeated(builder, address) -> Vector:
    """The number at an address, in all places."""
    return repeated(builder, builder.load(_pointer(builder, address, _FLOAT), align=4))


def repeated(builder, number) -> Vector:
    """A number in all places."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INDEX, 0))
    return Vector(builder, builder.shuffle_vector(first, undefined, _constant(_BITS, 0)))


def store(vector: Vector, address, number=types.float32) -> None:
    """Write numbers to memory, bfloat16 rounded to the nearest, of two to the even."""
    builder = vector.builder
    if number != types.uint16:
        builder.store(vector.value, _pointer(builder, address, _VECTOR), align=4)
        return
    bits = builder.bitcast(vector.value, _BITS)
    last = builder.and_(builder.lshr(bits, _constant(_BITS, 16)), _constant(_BITS, 1))
    rounded = builder.add(builder.add(bits, _constant(_BITS, 0x7FFF)), last)
    is_nan = builder.fcmp_unordered("uno", vector.value, vector.value)
    rounded = builder.select(is_nan, _constant(_BITS, 0x7FC00000), rounded)
    halves = builder.trunc(builder.lshr(rounded, _constant(_BITS, 16)), _HALVES)
    builder.store(halves, _pointer(builder, address, _HALVES), align=2)


def step(builder, address, count, size):
    """Address that lies `count` steps of `size` bytes ahead; either may be a Python int."""
    count, size = (_INTEGER(n) if isinstance(n, int) else n for n in (count, size))
    return builder.add(address, builder.mul(count, size))


def sums_of_products(builder, n_terms, n_sums, terms) -> list[Vector]:
    """Sums over a loop that is run `n_terms` times, at least once, all of them in registers.

    ``terms(i)`` writes the code for term i of each sum and returns pairs of factors; `n_terms` is
    an integer value of that code.
    """
    before = builder.block
    loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(_INTEGER)
    sums = [builder.phi(_VECTOR) for _ in range(n_sums)]
    pairs = terms(i)
    larger = [a * b + Vector(builder, s) for (a, b), s in zip(pairs, sums, strict=True)]
    following = builder.add(i, _INTEGER(1))
    i.add_incoming(_INTEGER(0), before)
    i.add_incoming(following, loop)
    for total, new in zip(sums, larger, strict=True):
        total.add_incoming(_constant(_VECTOR, 0.0), before)
        total.add_incoming(new.value, loop)
    builder.cbranch(builder.icmp_signed("<", following, n_terms), loop, after)
    builder.position_at_end(after)
    return larger


@intrinsic
def next_count(_context, address):
    """Count up by one what other threads count up too; the value before."""

    def write(_context, builder, _signature, arguments):
        counter = _pointer(builder, *arguments, _INTEGER)
        return builder.atomic_rmw("add", counter, _INTEGER(1), "monotonic")

    return types.int64(types.int64), write


@intrinsic
def numbers_at(_context, number, address):
    """Pointer to numbers of the type of `number`."""

    def write(context, builder, signature, arguments):
        return builder.inttoptr(arguments[1], context.get_value_type(signature.return_type))

    return types.CPointer(number)(number, types.int64), write


def _pointer(builder, address, kind):
    return builder.inttoptr(address, kind.as_pointer())


def _constant(kind, number):
    return ir.Constant(kind, [number] * kind.count)
