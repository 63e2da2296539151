"""The register tile: the innermost loop of every convolution, at the machine's multiply-add rate.

    C[i, j] = max(floor, S[i, j] + Σₖ A[i, k] · B[k, j])        i < rows,  j < vectors × lanes

The tile's sum lives in registers until S is added to it. In step k one row of B is loaded (a vector
or two), each A[i, k] is broadcast, and one fused multiply-add goes to each accumulator::

                 B[k, 0:16]  B[k, 16:32]
    A[0, k]  →     acc00        acc01
    A[1, k]  →     acc10        acc11          12 × 2 accumulators + 2 of B + 1 broadcast
      ⋮              ⋮            ⋮             of the 32 registers of AVX-512;
    A[11, k] →    acc11,0      acc11,1          6 × 2 + 3 of the 16 of AVX2 or SSE

Where there are 32 registers, a row of B is best three vectors and a tile 8 rows high: of as many
accumulators, 8 × 3, that reads 11 numbers and vectors in step k instead of 14, and so waits less
for the caches. `blocks` cuts a matrix into such columns.

A loop that LLVM vectorises by itself does not keep such a tile in registers, so the tile is written
as LLVM code here, through `numba.extending.intrinsic`; everything around it is plain Numba.

21 classes would leave a third of two vectors unused, so a row can also be one vector and a half:
`narrow_columns` tells where that pays.

Tiles come in two heights, which together make every multiple of 4 from 8 on (of 2 from 4 on where
there are 16 registers; with three vectors every multiple of 4): channels and pixels seldom leave
rows over that would be computed in vain.

A long sum is taken in pieces of 32 products, each summed from zero and then added: its rounding
grows with the pieces, not with the products, and is a fifth of that of one long sum at 2,304.

Offsets and strides are counted in elements. A stride of 0 for S repeats its row, which is how a
bias is added; S = C accumulates. A floor of 0 is ReLU, of −∞ nothing; NaN passes either.

Numba's cache on disk knows the file of a compiled function, not the files that it draws from: after
a change here delete ``kernels/__pycache__/*.nb?``, or the callers run the old code, and those of
`strip` call the new one with the old arguments: a crash.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 2008.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn.kernels import address
from minifcn.kernels.compiled import serial
from minifcn.kernels.vector import HALVES, LLVM_FLOAT, REGISTERS, Emitter, lanes, pointer

#: rows of the two tiles of one or two vectors
TALL, SHORT = (12, 8) if REGISTERS == 32 else (6, 4)

#: rows of the two tiles of three vectors, for which 16 registers are too few
WIDE_TALL, WIDE_SHORT = 8, 4

#: the kinds of tiles: their rows, and halves of a vector
NARROW = tuple((rows, halves) for rows in (TALL, SHORT) for halves in (2, 3, 4))
WIDE = ((WIDE_TALL, 6), (WIDE_SHORT, 6)) if REGISTERS == 32 else ()

#: vectors of the widest
MOST = 3 if WIDE else 2

#: products that are summed before they are added to what is there
PIECE = 32

#: products after which the next rows come to the same B
PANEL = 4 * PIECE


def columns(dtype: Any, wanted: int) -> int:
    """The columns of a tile for a matrix of ``wanted`` columns: two vectors, or one if enough."""
    return lanes(dtype) if wanted <= lanes(dtype) else 2 * lanes(dtype)


class Blocks(NamedTuple):
    """A matrix's columns in blocks, each as wide as a tile.

    Attributes:
        ends: the first column of each block, and the end of the last: whole vectors.
        shares: the first block of each of some even shares, and the end of the last.
    """

    ends: np.ndarray
    shares: np.ndarray


def blocks(dtype: Any, wanted: int, shares: int = 1) -> Blocks:
    """The blocks of ``wanted`` columns, as `block` makes them in each of so many shares."""
    vectors = -(-wanted // lanes(dtype))
    ends, owned = [0], [0]
    for share in range(shares):
        end = vectors * (share + 1) // shares
        while ends[-1] < end:
            ends.append(ends[-1] + block.py_func(end - ends[-1], 1))
        owned.append(len(ends) - 1)
    return Blocks(np.array(ends) * lanes(dtype), np.array(owned))


@serial
def block(left, lanes):  # type: ignore[no-untyped-def]
    """The columns of the next block, of whole vectors that are left: three, two or one of them.

    Three make the fastest tile; of four, two and two are faster than three and one.
    """
    return 2 * lanes if left == 4 * lanes else min(left, MOST * lanes)


def narrow_columns(dtype: Any, wanted: int) -> int:
    """As `columns`, but one vector and a half if that takes no more tiles, and less time.

    For 21 classes that is 24 columns, not 32. Where a wide vector is taken in two halves, as AMD's
    processors of the fourth generation do, that saves an eighth to a quarter. Elsewhere it saves
    nothing, and each A[i, k] is read twice, for a whole vector and for half of one.
    """
    tiles = -(-wanted // (2 * lanes(dtype)))
    middle = lanes(dtype) * 3 // 2
    narrow = HALVES and lanes(dtype) < wanted <= tiles * middle
    return middle if narrow else columns(dtype, wanted)


def half_vectors(dtype: Any, wide: int) -> int:
    """What `strip` is told of a tile of ``wide`` columns: 2, 3, 4 or 6 halves of a vector."""
    return 2 * wide // lanes(dtype)


def rows(wanted: int) -> int:
    """How many rows `strip` computes at most where ``wanted`` are: the last tile may hang over."""
    talls, shorts, tall, short = tiles.py_func(wanted, 4)
    return int(talls * tall + shorts * short)


class Sums:
    """The sums of a tile of ``height`` rows: variables that become registers, zero at first.

    A row is so many ``halves`` of a vector: whole ones first, of 3 one whole and one half.
    """

    def __init__(self, emit: Emitter, height: int, halves: int) -> None:
        self.emit, self.height = emit, height
        self.parts = [emit] * (halves // 2)
        if halves % 2:
            self.parts.append(Emitter(emit.context, emit.builder, emit.number, 1))
        with emit.builder.goto_entry_block():
            self.acc = [[emit.builder.alloca(e.vector) for e in self.parts] for _ in range(height)]
        self.clear()

    def clear(self) -> None:
        """Begin at zero."""
        for row in self.acc:
            for part, place in zip(self.parts, row, strict=True):
                self.emit.builder.store(part.constant(0), place)

    def add_products(self, row: Any, element: Any) -> None:
        """acc[i] += A[i] · B for one k: B's vectors from ``row`` on, A[i] at ``element`` (i)."""
        emit, builder = self.emit, self.emit.builder
        b = [part.load(emit.at(row, j * emit.width)) for j, part in enumerate(self.parts)]
        for i in range(self.height):
            width = 0
            for part, place, factor in zip(self.parts, self.acc[i], b, strict=True):
                if part.width != width:  # repeated anew: one width from the other takes longer
                    emit.in_order()
                    one, width = part.repeat(builder.load(element(i))), part.width
                builder.store(part.multiply_add(one, factor, builder.load(place)), place)

    def vectors(self, i: int) -> Iterator[tuple[Emitter, int, Any]]:
        """Of row i: each vector's instructions, first column and sum."""
        for j, (part, place) in enumerate(zip(self.parts, self.acc[i], strict=True)):
            yield part, j * self.emit.width, self.emit.builder.load(place)


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
        for rows, parts in each_tile(emit, args[0], args[1], NARROW + WIDE):
            _write_tile(emit, rows, parts, starts, args)
        return context.get_dummy_value()

    return signature, code


def each_tile(
    emit: Emitter, height: Any, halves: Any, kinds: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The kinds, one after the other: write each tile, and the code will choose among them.

    ``height`` and ``halves`` are what the running code is given; another kind ends the process.
    """
    builder = emit.builder
    done, unknown = (builder.append_basic_block(name) for name in ("done", "unknown"))
    choice = builder.switch(builder.add(emit.times(height, 8), halves), unknown)
    for rows, parts in kinds:
        label = builder.append_basic_block(f"tile.{rows}.{parts}")
        choice.add_case(emit.integer(8 * rows + parts), label)
        builder.position_at_end(label)
        yield rows, parts
        builder.branch(done)
    builder.position_at_end(unknown)
    nothing = ir.FunctionType(ir.VoidType(), [])
    builder.call(cgutils.get_or_insert_function(builder.module, nothing, "llvm.trap"), [])
    builder.unreachable()
    builder.position_at_end(done)


def _write_tile(emit: Emitter, height: int, halves: int, starts: list[Any], args: Any) -> None:
    """One kind of tile: from the addresses of A, B, S and C, and the arguments of `_tile`."""
    left, right, start, end = starts
    a_row, a_k, b_k, s_row, c_row, depth, floor, past, soon, pace = (
        args[i] for i in (4, 5, 8, 11, 14, 15, 16, 17, 18, 19)
    )
    builder, sums = emit.builder, Sums(emit, height, halves)
    rows, next_met = Rows(emit, left, a_row, a_k, height), emit.at(right, soon)
    piece, one = emit.integer(PIECE), emit.integer(1)
    most = builder.select(builder.icmp_signed("<", depth, one), one, depth)

    def step(k: Any) -> None:
        with rows.column() as element:
            sums.add_products(emit.at(right, builder.mul(k, b_k)), element)

    with cgutils.for_range_slice(builder, emit.integer(0), most, piece) as (low, _):
        left_over = builder.sub(depth, low)
        last = builder.icmp_signed("<=", left_over, piece)
        sums.clear()
        count = builder.select(last, left_over, piece)
        with cgutils.for_range(builder, builder.ashr(count, one)) as loop:
            # two steps a turn, and one fetch: it takes a read's place, one in each step too many
            k = builder.add(low, builder.shl(loop.index, one))
            emit.prefetch(emit.at(next_met, builder.mul(k, pace)), level=2)
            step(k)
            step(builder.add(k, one))
        with builder.if_then(builder.trunc(count, ir.IntType(1))):
            step(builder.add(low, builder.sub(count, one)))
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
    """The rows of A, of which a column is read in each step.

    One address serves `GROUP` rows, which the processor reads at it, at it + a_row and at
    it + 2·a_row. Left alone, the compiler goes from row to row by additions, each of which waits
    for the one before: as many cycles as the multiplications take.
    """

    GROUP = 3

    def __init__(self, emit: Emitter, start: Any, a_row: Any, a_k: Any, height: int) -> None:
        self.emit, self.a_row, self.a_k = emit, a_row, a_k
        groups = range(0, height, self.GROUP)
        with emit.builder.goto_entry_block():
            self.addresses = [emit.builder.alloca(start.type) for _ in groups]
        for i, kept in zip(groups, self.addresses, strict=True):
            emit.builder.store(emit.at(start, emit.times(a_row, i)), kept)

    @contextmanager
    def column(self) -> Iterator[Callable[[int], Any]]:
        """Where A[i] of this step stands, for each i; behind the block comes the next step."""
        emit = self.emit
        here = [emit.opaque(emit.builder.load(kept)) for kept in self.addresses]
        yield lambda i: emit.at(here[i // self.GROUP], emit.times(self.a_row, i % self.GROUP))
        for place, kept in zip(here, self.addresses, strict=True):
            emit.builder.store(emit.at(place, self.a_k), kept)


@serial
def tiles(wanted, halves):  # type: ignore[no-untyped-def]
    """(talls, shorts, rows of a tall one, of a short one) that cover ``wanted`` rows.

    The fewest rows over, then the fewest tiles, of so many ``halves`` of a vector.
    """
    if halves > 4:  # all by constants: divisions would take long, and a strip waits for them
        units = (wanted + WIDE_SHORT - 1) // WIDE_SHORT
        return units // 2, units % 2, WIDE_TALL, WIDE_SHORT
    best_talls, best_shorts, best = 0, 0, 1 << 62
    for shorts in range(3):
        talls = max(0, (wanted - shorts * SHORT + TALL - 1) // TALL)
        covered = talls * TALL + shorts * SHORT
        if covered >= wanted and covered < best:
            best_talls, best_shorts, best = talls, shorts, covered
    return best_talls, best_shorts, TALL, SHORT


@serial
def covered(wanted):  # type: ignore[no-untyped-def]
    """`rows`, for compiled code."""
    talls, shorts, tall, short = tiles(wanted, np.int64(4))
    return talls * tall + shorts * short


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

    The last tile may hang over: A, S and C must hold `rows` (count) rows. A `PANEL` of B stays in
    the first cache while all rows meet it. ``past``: C is written past the caches (see `stream`),
    and every vector of it must start at a multiple of its bytes. ``ahead``: so far behind B (or
    before it) lies what is needed next in its place; the tiles bring it into the second-level
    cache, a little with every second product, for only so many lines can be on their way at once.
    Six tiles of three vectors or more fetch each line of it; four fetch two of three and leave the
    others to the processor, which takes no longer. 0 for nothing.
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
