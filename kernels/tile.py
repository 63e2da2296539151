"""The register tile: the innermost loop of every convolution, at the machine's multiply-add rate.

    C[i, j] += Σₖ A[i, k] · B[k, j]        i < rows,  j < vectors × lanes

The tile's sum lives in registers until it is added to C. In step k one row of B is loaded (some
vectors), each A[i, k] is broadcast, and one fused multiply-add goes to each accumulator::

                 B[k, 0:16]  B[k, 16:32]
    A[0, k]  →     acc00        acc01
    A[1, k]  →     acc10        acc11          12 × 2 accumulators + 2 of B + 1 broadcast
      ⋮              ⋮            ⋮             of the 32 registers of AVX-512;
    A[11, k] →    acc11,0      acc11,1          6 × 2 + 3 of the 16 of AVX2 or SSE

A loop that LLVM vectorises by itself does not keep such a tile in registers, so the tile is written
as LLVM code here, through `numba.extending.intrinsic`; everything around it is plain Numba. `strip`
reads A in rows or columns, `gathered` at addresses from a list; here is what both are made of.

A turn of the loop takes four steps, whose operands stand at constant distances from addresses that
move on once a turn. Additions to addresses take the place of multiplications in the processor: four
in each step were 6 % of the time.

Numba's cache on disk knows the file of a compiled function, not the files that it draws from: after
a change here delete ``kernels/__pycache__/*.nb?``, or the callers run the old code.

Source: Goto, van de Geijn, "Anatomy of High-Performance Matrix Multiplication", ACM TOMS 2008.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from minifcn.kernels.vector import Emitter

#: steps a turn, whose addresses differ by constants, and steps for which one line is fetched ahead
TURN, FETCH = 4, 2


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
