"""Register tiles on rows that lie anywhere in memory, so that a convolution needs no panel.

A row of the matrix that im2col would make is, tap by tap, a pixel of the picture: C contiguous
numbers at some address. So the tiles here are given each pixel's address instead of a distance from
one to the next. In the forward pass pixels are the tile's rows, in the weight gradient they are
what is summed over:

    C[to[i] + j] += Σ_k A[at[i] + k] · B[k, j]        pixels i, input channels k
    C[i, j]      += Σ_m A[at[m] + i] · B[m, j]        input channels i, pixels m

with j < three vectors of output channels in the first, two in the second, or fewer. Nothing is
copied, and pixels that a tap would only meet with padding are not in the list.

Source: Dukhan, "The Indirect Convolution Algorithm", arXiv:1907.02129 (2019).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from minifcn.kernels import address
from minifcn.kernels.compiled import serial
from minifcn.kernels.tile import FETCH, Place, Sums, each_tile, turns
from minifcn.kernels.tiling import NARROW, PANEL, PIECE, WIDE, tiles
from minifcn.kernels.vector import LLVM_FLOAT, Emitter, pointer

#: the kinds of tiles of `gathered_strip`: whole vectors
WHOLE = tuple((rows, halves) for rows, halves in NARROW + WIDE if halves % 2 == 0)


@intrinsic
def _tile(  # type: ignore[no-untyped-def]
    typing, height, halves, A, a, B, b, C, c, at, first, to, same, K, W, w, w_row, length, wait,
    done,
):  # fmt: skip
    """One tile of ``height`` rows and so many half vectors, for float32 and float64."""
    if any(array.dtype != A.dtype for array in (B, C)) or A.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(n, n, A, n, B, n, C, n, at, n, to, n, n, W, n, n, n, n, n)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, A.dtype)
        starts = [
            pointer(context, builder, signature, args, which) for which in (2, 4, 6, 8, 10, 13)
        ]
        for rows, parts in each_tile(emit, args[0], args[1], WHOLE):
            _write_tile(emit, rows, parts, starts, args[12], *args[15:])
        return context.get_dummy_value()

    return signature, code


def _write_tile(
    emit: Emitter, height: int, halves: int, starts: list[Any], depth: Any, w_row: Any,
    length: Any, wait: Any, done: Any,
) -> None:  # fmt: skip
    """One kind of tile: from the addresses of A, B, C, at, to and W."""
    builder, sums = emit.builder, Sums(emit, height, halves)
    left, right, end, at, to, soon = starts
    within = builder.sub(builder.shl(emit.integer(1), length), emit.integer(1))
    a_row = [emit.at(left, builder.load(emit.at(at, i))) for i in range(height)]
    wide = halves // 2 * emit.width

    def fetch(product: Any) -> None:
        number = builder.lshr(product, wait)
        w_at = builder.mul(builder.lshr(number, length), w_row)
        w_at = builder.add(w_at, emit.times(builder.and_(number, within), emit.width))
        emit.prefetch(emit.at(soon, w_at), level=2)

    b = Place(emit, right, emit.integer(wide))
    for k, steps in turns(emit, depth):
        row, here = b.here(), [emit.at(start, k) for start in a_row]
        for step in range(steps):
            if step % FETCH == 0:
                fetch(builder.add(done, builder.add(k, emit.integer(step))))
            sums.add_products(
                emit.at(row, wide * step),
                lambda i, here=here, step=step: emit.at(here[i], step),
            )
        b.move_on(steps)
    for i in range(height):
        _add(sums, i, emit.at(end, builder.load(emit.at(to, i))))


@intrinsic
def _summing_tile(  # type: ignore[no-untyped-def]
    typing, height, halves, A, a, at, first, B, b, b_k, C, c, c_row, K
):
    """The second kind: ``height`` rows and so many half vectors, summed over K pixels."""
    if any(array.dtype != A.dtype for array in (B, C)) or A.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(n, n, A, n, at, n, B, n, n, C, n, n, n)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, A.dtype)
        starts = [pointer(context, builder, signature, args, which) for which in (2, 4, 6, 9)]
        for rows, parts in each_tile(emit, args[0], args[1], NARROW):
            _write_summing_tile(emit, rows, parts, starts, args[8], args[11], args[12])
        return context.get_dummy_value()

    return signature, code


def _write_summing_tile(
    emit: Emitter, height: int, halves: int, starts: list[Any], b_k: Any, c_row: Any, pixels: Any
) -> None:
    left, at, right, end = starts
    sums, b = Sums(emit, height, halves), Place(emit, right, b_k)
    for m, steps in turns(emit, pixels):
        row = b.here()
        for step in range(steps):
            pixel = emit.at(left, emit.builder.load(emit.at(emit.at(at, m), step)))
            sums.add_products(
                emit.at(row, emit.times(b_k, step)), lambda i, pixel=pixel: emit.at(pixel, i)
            )
        b.move_on(steps)
    for i in range(height):
        _add(sums, i, emit.at(end, emit.times(c_row, i)))


def _add(sums: Sums, i: int, row: Any) -> None:
    """Add row i of the sums to the row of C that starts there."""
    for part, at, total in sums.vectors(i):
        place = part.at(row, at)
        part.store(part.builder.fadd(part.load(place), total), place)


@serial
def meetings(at, to, apart, offset, steps, grid, shape, first, pixel, end, most):  # type: ignore[no-untyped-def]
    """The next pixels of a grid, at most so many before ``end``, that meet the picture in one tap.

    at: where in x (N, H, W, C) each of them reads; to: ``apart`` for each pixel since ``first``.
    Returns how many they are, and the pixel to go on with.
    """
    (height, width), (step_y, step_x), (h, w, channels) = grid, steps, shape
    met = 0
    image, i, j = pixel // (height * width), pixel // width % height, pixel % width
    while pixel < end and met < most:
        y, z = i * step_y + offset[0], j * step_x + offset[1]
        if 0 <= y < h and 0 <= z < w:
            at[met], to[met] = ((image * h + y) * w + z) * channels, (pixel - first) * apart
            met += 1
        pixel += 1
        j += 1
        if j == width:
            i, j = i + 1, 0
            if i == height:
                image, i = image + 1, 0
    return met, pixel


@serial
def gathered_strip(  # type: ignore[no-untyped-def]
    A, a, B, b, C, c, at, to, depth, count, halves, W, w, w_row, length, wait, done
):
    """``count`` rows of C, 2, 4 or 6 half vectors wide, tile under tile; B's rows lie end to end.

    The last tile may hang over: at and to must hold `rows` (count) addresses. All ``depth``
    products are summed before they are added to C: a few hundred at most, for the rounding's sake.

    Beside them W begins to come to the second-level cache: rows of 2^``length`` vectors, ``w_row``
    apart, a vector in 2^``wait`` products, of which ``done`` were before these; of one in every
    product, every second is left to the processor. Not faster than needed: only so many lines can
    be on their way at once, and A and C need some. Returns the products done with these.
    """
    talls, shorts, tall, short = tiles(count, halves)
    row = 0
    for i in range(talls + shorts):
        height = tall if i < talls else short
        _tile(
            height, halves, A, a, B, b, C, c, at, row, to, row, depth, W, w, w_row, length, wait,
            done,
        )  # fmt: skip
        row, done = row + height, done + depth
    return done


def _summing_strip(A, a, at, first, B, b, b_k, C, c, c_row, pixels, count, halves):  # type: ignore[no-untyped-def]
    talls, shorts, tall, short = tiles(count, halves)
    for low in range(0, pixels, PANEL):
        a_at, c_at = a, c
        for i in range(talls + shorts):
            height = tall if i < talls else short
            for m in range(low, min(pixels, low + PANEL), PIECE):
                size = min(PIECE, pixels - m)
                _summing_tile(
                    height, halves, A, a_at, at, first + m, B, b + m * b_k, b_k, C, c_at, c_row,
                    size,
                )  # fmt: skip
            a_at, c_at = a_at + height, c_at + height * c_row


@lru_cache
def summing_code(dtype: np.dtype) -> int:
    """The address of `summing_strip`'s machine code for an element type."""
    return int(compiled_summing_strip(dtype).address)


def compiled_summing_strip(dtype: np.dtype) -> Any:
    """That code, as Numba gives it."""
    number = types.float32 if dtype == np.float32 else types.float64
    array, places, n = types.CPointer(number), types.CPointer(types.int64), types.int64
    signature = types.void(array, n, places, n, array, n, n, array, n, n, n, n, n)
    return address.machine_code(_summing_strip, signature)


@intrinsic
def summing_strip(  # type: ignore[no-untyped-def]
    typing, code, A, a, at, first, B, b, b_k, C, c, c_row, pixels, count, halves
):
    """``count`` rows of C, 2, 3 or 4 half vectors wide, summed over a `PIECE` of pixels at a time.

    The pixels' addresses stand in ``at`` from number ``first`` on. A `PANEL` of B stays in the
    first cache while all rows meet it. The last tile may hang over: A and C must hold `rows`
    (count) rows. ``code`` is `summing_code` of the arrays' type.
    """
    if any(array.dtype != A.dtype for array in (B, C)) or A.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(n, A, n, at, n, B, n, n, C, n, n, n, n, n)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address.call(context, builder, signature, args)
        return context.get_dummy_value()

    return signature, generate
