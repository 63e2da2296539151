"""A matrix turned about, by squares that are turned in registers.

Arrays are flat; with each comes the number of its first element and how far apart its rows lie.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minifcn.kernels.compiled import serial
from minifcn.kernels.vector import LLVM_FLOAT, Emitter, pointer


@intrinsic
def _turn_square(typing, X, x, x_row, Y, y, y_row):  # type: ignore[no-untyped-def]
    """Y[j, i] = X[i, j] for a square as wide as a vector, in registers.

    Vectors i and i + w/2 are interleaved, for every i; done log₂ w times, that turns the square.
    """
    if X.dtype != Y.dtype or X.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(X, n, n, Y, n, n)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, X.dtype)
        source, target = (pointer(context, builder, signature, args, which) for which in (0, 3))
        w = emit.width
        square = [emit.load(emit.at(source, emit.times(args[2], i))) for i in range(w)]
        both = [lane for i in range(w) for lane in (i, i + w)]  # lanes of two vectors, in turns
        for _ in range(w.bit_length() - 1):
            pairs = [(square[i], square[i + w // 2]) for i in range(w // 2)]
            square = [
                builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), w), half))
                for a, b in pairs
                for half in (both[:w], both[w:])
            ]
        for j in range(w):
            emit.store(square[j], emit.at(target, emit.times(args[5], j)))
        return context.get_dummy_value()

    return signature, code


@serial
def turn(source, at, row, height, width, target, to, to_row, side):  # type: ignore[no-untyped-def]
    """target[j, i] = source[i, j] for i < height, j < width: by squares of ``side``, a vector.

    The last squares lie over part of those before them; less than a square goes one by one.
    """
    squares = height >= side and width >= side
    for i in range(0, height, side):
        for j in range(0, width, side):
            if squares:
                y, x = min(i, height - side), min(j, width - side)
                _turn_square(source, at + y * row + x, row, target, to + x * to_row + y, to_row)
            else:
                for a in range(i, min(i + side, height)):
                    for b in range(j, min(j + side, width)):
                        target[to + b * to_row + a] = source[at + a * row + b]
