"""A strip of register tiles, one under the other: a product of matrices in memory.

    C[i, j] = max(floor, S[i, j] + Σₖ A[i, k] · B[k, j])        i < rows,  j < vectors × lanes

A comes by rows, where one k follows another (`Rows`, as in a forward pass), or by columns, where
one row follows another (`Columns`, as in a weight gradient).

A long sum is taken in pieces of 32 products, each summed from zero and then added: its rounding
grows with the pieces, not with the products, and is a fifth of that of one long sum at 2,304. The
pixels that a weight gradient sums over are many more, and PyTorch sums them plainly: there pieces
of 128 do, for as much rounding as PyTorch's, or 1.6 times as much on the smallest maps.

Offsets and strides are counted in elements. A stride of 0 for S repeats its row, which is how a
bias is added; S = C accumulates. A floor of 0 is ReLU, of −∞ nothing; NaN passes either.

After a change here delete ``kernels/__pycache__/*.nb?``, as `tile` says: callers of `strip` would
call the new code with the old arguments, a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn.kernels import address
from minifcn.kernels.tile import FETCH, Place, Sums, each_tile, turns
from minifcn.kernels.tiling import NARROW, PANEL, PIECE, WIDE, tiles
from minifcn.kernels.vector import LLVM_FLOAT, Emitter, pointer

#: rows of A for which one address serves: at it, at it + a_row and at it + 2·a_row
GROUP = 3


@intrinsic
def _tile(  # type: ignore[no-untyped-def]
    typing, height, halves, A, a, a_row, a_k, B, b, b_k, S, s, s_row, C, c, c_row, K, floor, past,
    soon, pace,
):  # fmt: skip
    """One tile, of one of the kinds: so many rows, and ``halves`` of a vector."""
    if any(array.dtype != A.dtype for array in (B, S, C)) or A.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(
        n, n, A, n, n, n, B, n, n, S, n, n, C, n, n, n, A.dtype, types.boolean, n, n
    )  # fmt: skip

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, A.dtype)
        starts = [pointer(context, builder, signature, args, which) for which in (2, 6, 9, 12)]
        a_row, a_k = args[4], args[5]
        along_rows = builder.icmp_signed("==", a_k, emit.integer(1))
        with builder.if_else(along_rows) as (rows_of_k, columns_of_rows):
            with rows_of_k:
                for rows, parts in each_tile(emit, args[0], args[1], NARROW + WIDE):
                    left = Rows(emit, starts[0], a_row, rows)
                    _write_tile(emit, rows, parts, left, PIECE, starts[1:], args)
            with columns_of_rows:
                for rows, parts in each_tile(emit, args[0], args[1], NARROW + WIDE):
                    left = Columns(emit, starts[0], a_k)
                    _write_tile(emit, rows, parts, left, PANEL, starts[1:], args)
        return context.get_dummy_value()

    return signature, code


def _write_tile(
    emit: Emitter, height: int, halves: int, left: Rows | Columns, piece: int, starts: list[Any],
    args: Any,
) -> None:  # fmt: skip
    """One kind of tile: from A, the addresses of B, S and C, and the arguments of `_tile`."""
    b, start, end = starts
    b_k, s_row, c_row, depth, floor, past, soon, pace = (
        args[i] for i in (8, 11, 14, 15, 16, 17, 18, 19)
    )
    builder, sums = emit.builder, Sums(emit, height, halves)
    right, next_met = Place(emit, b, b_k), Place(emit, emit.at(b, soon), pace)
    one = emit.integer(1)
    most = builder.select(builder.icmp_signed("<", depth, one), one, depth)

    with cgutils.for_range_slice(builder, emit.integer(0), most, emit.integer(piece)) as (low, _):
        left_over = builder.sub(depth, low)
        last = builder.icmp_signed("<=", left_over, emit.integer(piece))
        count = builder.select(last, left_over, emit.integer(piece))
        sums.clear()
        for _, steps in turns(emit, count):
            row, met, element = right.here(), next_met.here(), left.here()
            for step in range(steps):
                if step % FETCH == 0:
                    emit.prefetch(emit.at(met, emit.times(pace, step)), level=2)
                sums.add_products(emit.at(row, emit.times(b_k, step)), partial(element, step))
            for place in (right, next_met, left):
                place.move_on(steps)
        first = builder.icmp_signed("==", low, emit.integer(0))
        before = builder.select(first, start, end), builder.select(first, s_row, c_row)
        _finish(emit, sums, before, (end, c_row), last, floor, past)


def _finish(
    emit: Emitter, sums: Sums, before: Any, after: Any, last: Any, floor: Any, past: Any
) -> None:
    """Add the sums to what stands ``before``, and write ``after``: (address, row) each.

    Of the last piece alone the floor is taken, and only its results may go past the caches.
    """
    builder, nothing = emit.builder, ir.Constant(emit.scalar, float("-inf"))

    def write(store: Callable[..., None], floored: bool) -> None:
        for i in range(sums.height):
            source, target = (emit.at(at, emit.times(row, i)) for at, row in (before, after))
            for part, at, total in sums.vectors(i):
                total = builder.fadd(part.load(emit.at(source, at)), total)
                if floored:
                    total = part.not_below(total, part.repeat(floor))
                store(part, total, emit.at(target, at))

    with builder.if_else(builder.and_(past, last)) as (beyond, kept):
        with beyond:
            write(Emitter.stream, True)
        with kept:
            floors = builder.fcmp_unordered("!=", floor, nothing)
            with builder.if_else(builder.and_(floors, last)) as (floored, as_it_is):
                with floored:
                    write(Emitter.store, True)
                with as_it_is:
                    write(Emitter.store, False)


class Rows:
    """A by rows: what follows in one is the next k. An address serves `GROUP` of them."""

    def __init__(self, emit: Emitter, start: Any, a_row: Any, height: int) -> None:
        self.emit, self.a_row = emit, a_row
        self.groups = [
            Place(emit, emit.at(start, emit.times(a_row, i)), emit.integer(1))
            for i in range(0, height, GROUP)
        ]

    def here(self) -> Callable[[int, int], Any]:
        """Where A[i, k] stands in each step of this turn, by step and row."""
        emit, here = self.emit, [group.here() for group in self.groups]
        return lambda step, i: emit.at(
            emit.at(here[i // GROUP], emit.times(self.a_row, i % GROUP)), step
        )

    def move_on(self, steps: int) -> None:
        """To the next turn."""
        for group in self.groups:
            group.move_on(steps)


class Columns:
    """A by columns: what follows in one is the next row."""

    def __init__(self, emit: Emitter, start: Any, a_k: Any) -> None:
        self.emit, self.a_k, self.place = emit, a_k, Place(emit, start, a_k)

    def here(self) -> Callable[[int, int], Any]:
        """Where A[i, k] stands in each step of this turn, by step and row."""
        emit, here = self.emit, self.place.here()
        return lambda step, i: emit.at(emit.at(here, emit.times(self.a_k, step)), i)

    def move_on(self, steps: int) -> None:
        """To the next turn."""
        self.place.move_on(steps)


def _strip(  # type: ignore[no-untyped-def]
    A, a, a_row, a_k, B, b, b_k, S, s, s_row, C, c, c_row, depth, count, halves, floor, past, ahead
):
    talls, shorts, tall, short = tiles(count, halves)
    lowest = type(floor)(-np.inf)
    every = max(1, talls + shorts)
    soon, pace = b + ahead, (b_k + every - 1) // every if ahead != 0 else 0
    for low in range(0, max(depth, 1), PANEL):
        a_row_at, s_at, c_at = a + low * a_k, s, c  # no division here: a tile waits for its address
        b_at, size, last = b + low * b_k, min(PANEL, depth - low), low + PANEL >= depth
        least = floor if last else lowest
        for i in range(talls + shorts):
            height = tall if i < talls else short
            before, at, step = (S, s_at, s_row) if low == 0 else (C, c_at, c_row)
            _tile(
                height, halves, A, a_row_at, a_row, a_k, B, b_at, b_k, before, at, step,
                C, c_at, c_row, size, least, past != 0 and last, soon - b_at, pace,
            )  # fmt: skip
            soon += size * pace
            a_row_at += height * a_row
            s_at += height * s_row
            c_at += height * c_row


@lru_cache
def strip_code(dtype: np.dtype) -> int:
    """The address of `strip`'s machine code for an element type."""
    return int(compiled_strip(dtype).address)


def compiled_strip(dtype: np.dtype) -> Any:
    """That code, as Numba gives it."""
    number = types.float32 if dtype == np.float32 else types.float64
    array, n = types.CPointer(number), types.int64
    signature = types.void(
        array, *[n] * 3, array, n, n, array, n, n, array, *[n] * 4, n, number, n, n
    )
    return address.machine_code(_strip, signature)


@intrinsic
def strip(  # type: ignore[no-untyped-def]
    typing, code, A, a, a_row, a_k, B, b, b_k, S, s, s_row, C, c, c_row, depth, count, halves,
    floor, past, ahead,
):  # fmt: skip
    """``count`` rows of C, 2, 3, 4 or 6 half vectors wide, tile under tile, by a `PIECE` of k.

    One of A's strides is 1: a_k, or else a_row, and then it goes by a `PANEL` of k. The last tile
    may hang over: A, S and C must hold `rows` (count) rows. A `PANEL` of B stays in the first cache
    while all rows meet it. ``past``: C is written past the caches (see `stream`), and every vector
    of it must start at a multiple of its bytes. ``ahead``: so far behind B (or before it) lies what
    is needed next in its place; the tiles bring it into the second-level cache, a little with every
    second product, for only so many lines can be on their way at once. Six tiles of three vectors
    or more fetch each line of it; four fetch two of three and leave the others to the processor,
    which takes no longer. 0 for nothing.
    ``code`` is `strip_code` of the arrays' type.
    """
    if any(array.dtype != A.dtype for array in (B, S, C)) or A.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(
        n, A, n, n, n, B, n, n, S, n, n, C, n, n, n, n, n, A.dtype, n, n
    )  # fmt: skip

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address.call(context, builder, signature, args)
        return context.get_dummy_value()

    return signature, generate
