"""The register tile: the innermost loop of every convolution, at the machine's multiply-add rate.

    C[i, j] = max(floor, S[i, j] + Σₖ A[i, k] · B[k, j])        i < rows,  j < vectors × lanes

The tile's sum lives in registers until S is added to it. In step k one row of B is loaded (a vector
or two), each A[i, k] is broadcast, and one fused multiply-add goes to each accumulator::

                 B[k, 0:16]  B[k, 16:32]
    A[0, k]  →     acc00        acc01
    A[1, k]  →     acc10        acc11          12 × 2 accumulators + 2 of B + 1 broadcast
      ⋮              ⋮            ⋮             of the 32 registers of AVX-512;
    A[11, k] →    acc11,0      acc11,1          6 × 2 + 3 of the 16 of AVX2 or SSE

A loop that LLVM vectorises by itself does not keep such a tile in registers, so the tile is written
as LLVM code here, through `numba.extending.intrinsic`; everything around it is plain Numba.

Tiles come in two heights, which together make every multiple of 4 from 8 on (of 2 from 4 on, where
there are 16 registers): channels and pixels seldom leave rows over that would be computed in vain.

A long sum is taken in pieces of 32 products, each summed from zero and then added: its rounding
grows with the pieces, not with the products, and is a fifth of that of one long sum at 2,304.

Offsets and strides are counted in elements. A stride of 0 for S repeats its row, which is how a
bias is added; S = C accumulates. A floor of 0 is ReLU, of −∞ nothing; NaN passes either.

Numba's cache on disk knows the file of a compiled function, not the files that it draws from: after
a change here delete ``kernels/__pycache__/*.nb?``, or the callers run the old code.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 2008.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn.kernels.compiled import serial
from minifcn.kernels.vector import INT64, LLVM_FLOAT, REGISTERS, Emitter, lanes, pointer

#: rows of the two tiles
TALL, SHORT = (12, 8) if REGISTERS == 32 else (6, 4)

#: products that are summed before they are added to what is there
PIECE = 32


def columns(dtype: Any, wanted: int) -> int:
    """The columns of a tile for a matrix of ``wanted`` columns: two vectors, or one if enough."""
    return lanes(dtype) if wanted <= lanes(dtype) else 2 * lanes(dtype)


def rows(wanted: int) -> int:
    """How many rows `strip` computes where ``wanted`` are wanted: the last tile may hang over."""
    talls, shorts = tiles.py_func(wanted)
    return int(talls * TALL + shorts * SHORT)


def zeros(emit: Emitter, tile: list[tuple[int, int]]) -> dict[tuple[int, int], Any]:
    """A vector of zeros for each (row, vector) of a tile: variables that become registers."""
    with emit.builder.goto_entry_block():
        acc = {ij: emit.builder.alloca(emit.vector) for ij in tile}
    for ij in tile:
        emit.builder.store(emit.constant(0), acc[ij])
    return acc


def add_products(emit: Emitter, acc: dict[tuple[int, int], Any], row: Any, element: Any) -> None:
    """acc[i, j] += A[i] · B[j] for one k: B's vectors from ``row`` on, A[i] at ``element`` (i)."""
    vectors = 1 + max(j for _, j in acc)
    b_row = [emit.load(emit.at(row, j * emit.width)) for j in range(vectors)]
    for i in range(1 + max(i for i, _ in acc)):
        emit.in_order()
        one = emit.repeat(emit.builder.load(element(i)))
        for j in range(vectors):
            total = emit.multiply_add(one, b_row[j], emit.builder.load(acc[i, j]))
            emit.builder.store(total, acc[i, j])


def _tile_of(height: int, vectors: int) -> Any:
    """A tile of ``height`` rows and ``vectors`` vectors, for float32 and float64."""

    @intrinsic
    def tile(  # type: ignore[no-untyped-def]
        typing, A, a, a_row, a_k, B, b, b_k, S, s, s_row, C, c, c_row, K, floor, past
    ):
        arrays = [A, B, S, C]
        if any(array.dtype != A.dtype for array in arrays) or A.dtype not in LLVM_FLOAT:
            return None
        n = types.int64
        signature = types.void(A, n, n, n, B, n, n, S, n, n, C, n, n, n, A.dtype, types.boolean)

        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            emit = Emitter(context, builder, A.dtype)
            _, _, a_row, a_k, _, _, b_k, _, _, s_row, _, _, c_row, depth, floor, past = args
            left, right, start, end = (
                pointer(context, builder, signature, args, which) for which in (0, 4, 7, 10)
            )
            tile = [(i, j) for i in range(height) for j in range(vectors)]
            acc = zeros(emit, tile)
            a_rows = [emit.times(a_row, i) for i in range(height)]
            with cgutils.for_range(builder, depth) as loop:
                row = emit.at(right, builder.mul(loop.index, b_k))
                column = emit.at(left, builder.mul(loop.index, a_k))
                add_products(emit, acc, row, lambda i: emit.at(column, a_rows[i]))

            def finish(write, least=None):  # type: ignore[no-untyped-def]
                for i, j in tile:
                    before = emit.at(emit.at(start, emit.times(s_row, i)), j * emit.width)
                    after = emit.at(emit.at(end, emit.times(c_row, i)), j * emit.width)
                    total = builder.fadd(emit.load(before), builder.load(acc[i, j]))
                    write(total if least is None else emit.not_below(total, least), after)

            nothing = ir.Constant(emit.scalar, float("-inf"))
            with builder.if_else(past) as (beyond, kept):
                with beyond:
                    finish(emit.stream, emit.repeat(floor))
                with kept:
                    plain = builder.fcmp_ordered("==", floor, nothing)
                    with builder.if_else(plain) as (as_it_is, floored):
                        with as_it_is:
                            finish(emit.store)
                        with floored:
                            finish(emit.store, emit.repeat(floor))
            return context.get_dummy_value()

        return signature, code

    return tile


# Module globals, not closures: otherwise Numba could not keep the callers' machine code on disk.
_tall_1 = _tile_of(TALL, 1)
_tall_2 = _tile_of(TALL, 2)
_short_1 = _tile_of(SHORT, 1)
_short_2 = _tile_of(SHORT, 2)


@serial
def tiles(wanted):  # type: ignore[no-untyped-def]
    """(talls, shorts) that cover ``wanted`` rows: the fewest rows over, then the fewest tiles."""
    best_talls, best_shorts, best = 0, 0, 1 << 62
    for shorts in range(3):
        talls = max(0, (wanted - shorts * SHORT + TALL - 1) // TALL)
        covered = talls * TALL + shorts * SHORT
        if covered >= wanted and covered < best:
            best_talls, best_shorts, best = talls, shorts, covered
    return best_talls, best_shorts


@serial
def covered(wanted):  # type: ignore[no-untyped-def]
    """`rows`, for compiled code."""
    talls, shorts = tiles(wanted)
    return talls * TALL + shorts * SHORT


@serial
def strip(  # type: ignore[no-untyped-def]
    A, a, a_row, a_k, B, b, b_k, S, s, s_row, C, c, c_row, depth, count, two, floor, past
):
    """``count`` rows of C, one or two vectors wide, tile under tile, a `PIECE` of k at a time.

    The last tile may hang over: A, S and C must hold `rows` (count) rows. ``past``: C is written
    past the caches (see `stream`), and every vector of it must start at a multiple of its bytes.
    """
    talls, shorts = tiles(count)
    lowest = A.dtype.type(-np.inf)
    for i in range(talls + shorts):
        row = min(i, talls) * TALL + max(i - talls, 0) * SHORT
        c_at = c + row * c_row
        for k in range(0, max(depth, 1), PIECE):
            a_at, b_at, size = a + row * a_row + k * a_k, b + k * b_k, min(PIECE, depth - k)
            before, at, step = (S, s + row * s_row, s_row) if k == 0 else (C, c_at, c_row)
            last = k + PIECE >= depth
            least, beyond = floor if last else lowest, past and last
            if i < talls:
                if two:
                    _tall_2(
                        A, a_at, a_row, a_k, B, b_at, b_k, before, at, step,
                        C, c_at, c_row, size, least, beyond,
                    )  # fmt: skip
                else:
                    _tall_1(
                        A, a_at, a_row, a_k, B, b_at, b_k, before, at, step,
                        C, c_at, c_row, size, least, beyond,
                    )  # fmt: skip
            elif two:
                _short_2(
                    A, a_at, a_row, a_k, B, b_at, b_k, before, at, step,
                    C, c_at, c_row, size, least, beyond,
                )  # fmt: skip
            else:
                _short_1(
                    A, a_at, a_row, a_k, B, b_at, b_k, before, at, step,
                    C, c_at, c_row, size, least, beyond,
                )  # fmt: skip


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
    if target.dtype != source.dtype or target.dtype not in LLVM_FLOAT:
        return None
    signature = types.void(target, types.int64, source, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, target.dtype)
        to, start = (pointer(context, builder, signature, args, which) for which in (0, 2))
        emit.store(emit.load(start), to)
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
