"""Rows of neighbouring elements: copied and cleared.

All arrays are flat, and each is followed by the number of the element that a row begins with. Rows
are short here, a pixel's channels or a few pixels': so what a call costs counts.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn.kernels.compiled import serial
from minifcn.kernels.vector import INT64, LLVM_FLOAT, VECTOR_BYTES, Emitter, pointer

#: elements of a short copy
FOUR = 4


@intrinsic
def copy(typing, target, to, source, start, count):  # type: ignore[no-untyped-def]
    """target[to : to + count] = source[start : start + count] by memcpy; they may not overlap."""
    if target.dtype != source.dtype:
        return None
    size = target.dtype.bitwidth // 8
    signature = types.void(target, types.int64, source, types.int64, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        to, start = (pointer(context, builder, signature, args, which) for which in (0, 2))
        cgutils.raw_memcpy(builder, to, start, args[4], size)
        return context.get_dummy_value()

    return signature, code


@intrinsic
def copy_vector(typing, target, to, source, start):  # type: ignore[no-untyped-def]
    """As `copy`, one vector: for short rows, where what is copied too much is overwritten next."""
    return _copied(target, to, source, start, None)


@intrinsic
def copy_four(typing, target, to, source, start):  # type: ignore[no-untyped-def]
    """As `copy_vector`, `FOUR` elements, which seldom lie across two lines of the cache."""
    return _copied(target, to, source, start, FOUR)


def _copied(target: Any, to: Any, source: Any, start: Any, size: int | None) -> Any:
    """Signature and code of a copy of ``size`` elements, or of a vector."""
    if target.dtype != source.dtype or target.dtype not in LLVM_FLOAT:
        return None
    signature = types.void(target, types.int64, source, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, target.dtype)
        to, start = (pointer(context, builder, signature, args, which) for which in (0, 2))
        several = ir.VectorType(emit.scalar, size or emit.width).as_pointer()
        value = builder.load(builder.bitcast(start, several), align=emit.size)
        builder.store(value, builder.bitcast(to, several), align=emit.size)
        return context.get_dummy_value()

    return signature, code


@intrinsic
def clear(typing, target, start, count):  # type: ignore[no-untyped-def]
    """target[start : start + count] = 0 by memset."""
    size = target.dtype.bitwidth // 8
    signature = types.void(target, types.int64, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        start = pointer(context, builder, signature, args, 0)
        cgutils.memset(builder, start, builder.mul(args[2], ir.Constant(INT64, size)), 0)
        return context.get_dummy_value()

    return signature, code


@serial
def copy_row(target, to, source, start, count):  # type: ignore[no-untyped-def]
    """`copy` of a short row: as whole vectors, the last over part of the one before it."""
    side = VECTOR_BYTES // target.itemsize
    if count < side:
        copy(target, to, source, start, count)
    else:
        for e in range(0, count - side, side):
            copy_vector(target, to + e, source, start + e)
        copy_vector(target, to + count - side, source, start + count - side)
