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

A turn of the loop takes four steps, whose operands stand at constant distances from addresses that
move on once a turn: A's rows, where one k follows another (`Rows`, as in a forward pass), or its
columns, where one row follows another (`Columns`, as in a weight gradient). Additions to addresses
take the place of multiplications in the processor: four in each step were 6 % of the time.

A long sum is taken in pieces of 32 products, each summed from zero and then added: its rounding
grows with the pieces, not with the products, and is a fifth of that of one long sum at 2,304. The
pixels that a weight gradient sums over are many more, and PyTorch sums them plainly: there pieces
of 128 do, for as much rounding as PyTorch's, or 1.6 times as much on the smallest maps.

Offsets and strides are counted in elements. A stride of 0 for S repeats its row, which is how a
bias is added; S = C accumulates. A floor of 0 is ReLU, of −∞ nothing; NaN passes either.

Numba's cache on disk knows the file of a compiled function, not the files that it draws from: after
a change here delete ``kernels/__pycache__/*.nb?``, or the callers run the old code, and those of
`strip` call the new one with the old arguments: a crash.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 2008.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
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
NARROW = tuple((r, halves) for r in (TALL, SHORT) for halves in ((2, 3, 4) if HALVES else (2, 4)))
WIDE = ((WIDE_TALL, 6), (WIDE_SHORT, 6)) if REGISTERS == 32 else ()

#: vectors of the widest
MOST = 3 if WIDE else 2

#: products that are summed before they are added to what is there
PIECE = 32

#: products after which the next rows come to the same B
PANEL = 4 * PIECE

#: steps a turn, whose addresses differ by constants, and steps for which one line is fetched ahead
TURN, FETCH = 4, 2

#: rows of A for which one address serves: at it, at it + a_row and at it + 2·a_row
GROUP = 3


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
        self.alike = [slice(0, halves // 2)]  # vectors as wide as each other
        if halves % 2:
            self.parts.append(Emitter(emit.context, emit.builder, emit.number, 1))
            self.alike.append(slice(halves // 2, None))
        with emit.builder.goto_entry_block():
            self.acc = [[emit.builder.alloca(e.vector) for e in self.parts] for _ in range(height)]
        self.clear()

    def clear(self) -> None:
        """Begin at zero."""
        for row in self.acc:
            for part, place in zip(self.parts, row, strict=True):
                self.emit.builder.store(part.constant(0), place)

    def add_products(self, row: Any, element: Callable[[int], Any]) -> None:
        """acc[i] += A[i] · B for one k: B's vectors from ``row`` on, A[i] at ``element`` (i)."""
        emit, builder = self.emit, self.emit.builder
        b = [part.load(emit.at(row, j * emit.width)) for j, part in enumerate(self.parts)]
        for i in range(self.height):
            for some in self.alike:  # one width repeated from the other would take longer
                parts, places = self.parts[some], self.acc[i][some]
                one = parts[0].repeat(builder.load(element(i)))
                totals = [
                    part.multiply_add(one, factor, builder.load(place))
                    for part, factor, place in zip(parts, b[some], places, strict=True)
                ]
                for total, place in zip(emit.held(totals), places, strict=True):
                    builder.store(total, place)

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


def turns(emit: Emitter, count: Any) -> Iterator[tuple[Any, int]]:
    """The loops over ``count`` steps: (the first of a turn, how many it has), `TURN` and then 1.

    What is written in between becomes the body of one, then of the other.
    """
    builder = emit.builder
    left_over = builder.srem(count, emit.integer(TURN))
    whole = builder.sub(count, left_over)
    with cgutils.for_range(builder, builder.sdiv(whole, emit.integer(TURN))) as loop:
        yield emit.times(loop.index, TURN), TURN
    with cgutils.for_range(builder, left_over) as loop:
        yield builder.add(whole, loop.index), 1


class Place:
    """An address that moves on from turn to turn, by so much a step."""

    def __init__(self, emit: Emitter, start: Any, step: Any) -> None:
        self.emit, self.step = emit, step
        with emit.builder.goto_entry_block():
            self.kept = emit.builder.alloca(start.type)
        emit.builder.store(start, self.kept)

    def here(self) -> Any:
        """The address in this turn."""
        here = self.emit.opaque(self.emit.builder.load(self.kept))
        self.emit.builder.store(here, self.kept)
        return here

    def move_on(self, steps: int) -> None:
        """To the next turn."""
        here = self.emit.builder.load(self.kept)
        self.emit.builder.store(self.emit.at(here, self.emit.times(self.step, steps)), self.kept)


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
