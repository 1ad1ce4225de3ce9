"""Write vector instructions for functions that Numba compiles.

What is computed is written as an ordinary expression of :class:`Vector` objects; evaluating it
writes the instructions. Addresses are integers, in bytes.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir

# Numbers in a vector register of AVX2.
LANES = 8

_FLOAT, _INTEGER, _INDEX = ir.FloatType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
# A product and the sum it goes into may become one instruction.
_FLAGS = ("contract",)


class Vector:
    """Eight float32 numbers in a register, in code that `builder` writes."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def __add__(self, other):
        return Vector(self.builder, self.builder.fadd(self.value, other.value, flags=_FLAGS))

    def __sub__(self, other):
        return Vector(self.builder, self.builder.fsub(self.value, other.value, flags=_FLAGS))

    def __mul__(self, other):
        return Vector(self.builder, self.builder.fmul(self.value, other.value, flags=_FLAGS))

    def __rmul__(self, factor):
        return Vector(self.builder, _same(factor)) * self


def load(builder, address) -> Vector:
    """Eight numbers that follow each other in memory."""
    pointer = builder.inttoptr(address, _VECTOR.as_pointer())
    return Vector(builder, builder.load(pointer, align=4))


def load_repeated(builder, address) -> Vector:
    """Eight times the number at an address."""
    number = builder.load(builder.inttoptr(address, _FLOAT.as_pointer()), align=4)
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INDEX, 0))
    everywhere = ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES)
    return Vector(builder, builder.shuffle_vector(first, undefined, everywhere))


def store(vector: Vector, address) -> None:
    """Write eight numbers to memory."""
    builder = vector.builder
    pointer = builder.inttoptr(address, _VECTOR.as_pointer())
    builder.store(vector.value, pointer, align=4)


def step(builder, address, count, size):
    """Address that lies `count` steps of `size` bytes ahead; either may be a Python int."""
    count, size = (_INTEGER(n) if isinstance(n, int) else n for n in (count, size))
    return builder.add(address, builder.mul(count, size))


def sums_of_products(builder, n_terms, n_sums, terms) -> list[Vector]:
    """Sums over a loop that is run `n_terms` times, at least once, all of them in registers.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
    n_terms : integer value
    n_sums : int
    terms : function
        ``terms(i)`` writes the code for term i of each sum and returns pairs of factors.
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
        total.add_incoming(_same(0), before)
        total.add_incoming(new.value, loop)
    builder.cbranch(builder.icmp_signed("<", following, n_terms), loop, after)
    builder.position_at_end(after)
    return larger


def add_to_counter(builder, address):
    """Count up by one what other threads count up too; the value before."""
    counter = builder.inttoptr(address, _INTEGER.as_pointer())
    return builder.atomic_rmw("add", counter, _INTEGER(1), "monotonic")


def _same(number):
    return ir.Constant(_VECTOR, [float(np.float32(number))] * LANES)
