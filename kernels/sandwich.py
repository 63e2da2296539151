"""A small matrix on both sides of a picture's patch, for all its channels: Winograd's transforms.

    D[r, q, c] = Σ_{i, j} L[r, i] · X[i, j, c] · L[q, j]

L is known when the code is compiled, so its zeros cost nothing and its ones are additions; channels
are contiguous, so every step serves a whole vector of them. The patch X·Lᵀ in between stays in
registers or the nearest cache.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn.kernels.vector import LLVM_FLOAT, Emitter, pointer


class Side(NamedTuple):
    """L (a, b), for patches of b × b of which a × a are made.

    With ``apart``, so many columns to the right lies the patch that is read next, and what is new
    in it is brought into the caches by then.
    """

    L: np.ndarray
    apart: int = 0


Sides = tuple[Side, Side]
PLAIN, FINISHED, SUMMED = range(3)  # what is done beside: nothing, a layer's end, the patch's sum


def twice(side: Side) -> Sides:
    """A pair of the same."""
    return side, side


def sandwich_of(plain: Sides, strided: Sides) -> Any:
    """The intrinsic for one of four matrices.

    It takes ``(four, strided, X, x, x_row, x_column, D, d, d_row, d_column, vectors)``: which
    matrix; arrays, each with the offset of its first element and strides in elements; how many
    vectors of channels there are. ``four`` chooses the second of a pair when the code runs, and a
    ``strided`` that is not None the second pair when it is compiled: a kernel then holds two.
    """

    @intrinsic
    def sandwich(  # type: ignore[no-untyped-def]
        typing, four, pair, X, x, x_row, x_column, D, d, d_row, d_column, vectors
    ):
        if X.dtype != D.dtype or X.dtype not in LLVM_FLOAT:
            return None
        n, sides = types.int64, plain if isinstance(pair, types.NoneType) else strided

        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _choose(sides, Emitter(context, builder, X.dtype), signature, args)
            return context.get_dummy_value()

        return types.void(types.boolean, pair, X, n, n, n, D, n, n, n, n), code

    return sandwich


def finished_sandwich_of(plain: Sides, strided: Sides) -> Any:
    """The same, and a layer's bias and ReLU: D = max(floor, S[s + c] + Σ …), NaN staying NaN.

    Seven more arguments: ``(…, S, s, floor, past, gate, g, gated)``; a floor of −∞ is no ReLU, and
    ``past`` says whether D is written past the caches. If ``gated``, D is that where the same
    element of ``gate``, from g on, is positive, else 0: what a ReLU before the layer lets back.
    """

    @intrinsic
    def sandwich(  # type: ignore[no-untyped-def]
        typing, four, pair, X, x, x_row, x_column, D, d, d_row, d_column, vectors, S, s, floor,
        past, gate, g, gated,
    ):  # fmt: skip
        if any(array.dtype != X.dtype for array in (D, S, gate)) or X.dtype not in LLVM_FLOAT:
            return None
        n, sides = types.int64, plain if isinstance(pair, types.NoneType) else strided

        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _choose(sides, Emitter(context, builder, X.dtype), signature, args, FINISHED)
            return context.get_dummy_value()

        truth = types.boolean
        end = S, n, X.dtype, truth, gate, n, truth
        return types.void(truth, pair, X, n, n, n, D, n, n, n, n, *end), code

    return sandwich


def summed_sandwich_of(plain: Sides, strided: Sides) -> Any:
    """The same, and the sum of the patch: S[s + c] = Σ_{i, j} X[i, j, c].

    Two more arguments: ``(…, S, s)``.
    """

    @intrinsic
    def sandwich(  # type: ignore[no-untyped-def]
        typing, four, pair, X, x, x_row, x_column, D, d, d_row, d_column, vectors, S, s
    ):
        if X.dtype != D.dtype or X.dtype != S.dtype or X.dtype not in LLVM_FLOAT:
            return None
        n, sides = types.int64, plain if isinstance(pair, types.NoneType) else strided

        def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _choose(sides, Emitter(context, builder, X.dtype), signature, args, SUMMED)
            return context.get_dummy_value()

        return types.void(types.boolean, pair, X, n, n, n, D, n, n, n, n, S, n), code

    return sandwich


def _choose(sides: Sides, emit: Emitter, signature: Any, args: Any, kind: int = PLAIN) -> None:
    two, four = sides
    if two is four:
        _write(two, emit, signature, args, kind)
        return
    with emit.builder.if_else(args[0]) as (yes, no):
        with yes:
            _write(four, emit, signature, args, kind)
        with no:
            _write(two, emit, signature, args, kind)


def _write(side: Side, emit: Emitter, signature: Any, args: Any, kind: int) -> None:
    matrix, apart = side
    a, b = matrix.shape
    builder = emit.builder
    x_row, x_column, d_row, d_column, vectors = (args[i] for i in (4, 5, 8, 9, 10))
    source, target = (pointer(emit.context, builder, signature, args, which) for which in (2, 6))
    if kind != PLAIN:
        start = pointer(emit.context, builder, signature, args, 11)
    if kind == FINISHED:
        lowest = emit.repeat(args[13])
        gate = pointer(emit.context, builder, signature, args, 15)
    with builder.goto_entry_block():
        half = {(r, j): builder.alloca(emit.vector) for r in range(a) for j in range(b)}
    with cgutils.for_range(builder, vectors) as loop:
        channel = builder.mul(loop.index, emit.integer(emit.width))
        patch, result = emit.at(source, channel), emit.at(target, channel)
        sums = []
        for j in range(b):
            top = emit.at(patch, emit.times(x_column, j))
            places = [emit.at(top, emit.times(x_row, i)) for i in range(b)]
            column = [emit.load(place) for place in places]
            if apart and j + apart >= b:  # that column is not in this patch yet
                for place in places:
                    emit.prefetch(emit.at(place, emit.times(x_column, apart)), level=1)
            for r, value in enumerate(_product(emit, matrix, column)):
                builder.store(value, half[r, j])
            if kind == SUMMED:
                sums.append(reduce(builder.fadd, column))
        if kind == SUMMED:
            emit.store(reduce(builder.fadd, sums), emit.at(start, channel))
        for r in range(a):
            row = [builder.load(half[r, j]) for j in range(b)]
            left = emit.at(result, emit.times(d_row, r))
            values = _product(emit, matrix, row)
            places = [emit.at(left, emit.times(d_column, q)) for q in range(a)]
            if kind == FINISHED:
                bias = emit.load(emit.at(start, channel))
                values = [emit.not_below(builder.fadd(v, bias), lowest) for v in values]
                beside = emit.at(gate, builder.add(channel, emit.times(d_row, r)))
                gates = [emit.at(beside, emit.times(d_column, q)) for q in range(a)]
                values = _passed(emit, args[17], values, gates, emit.times(d_column, a))
                with builder.if_else(args[14]) as (past, kept):
                    with past:
                        for value, place in zip(values, places, strict=True):
                            emit.stream(value, place)
                    with kept:
                        for value, place in zip(values, places, strict=True):
                            emit.store(value, place)
                            # where the same vector of the next tile goes, ``a`` columns on
                            emit.prefetch(emit.at(place, emit.times(d_column, a)), level=1)
            else:
                for value, place in zip(values, places, strict=True):
                    emit.store(value, place)
                    # where the next vector goes: a store waits for its line, and all behind it
                    emit.prefetch(emit.at(place, emit.width), level=1)


def _passed(
    emit: Emitter, gated: Any, values: list[Any], gates: list[Any], ahead: Any
) -> list[Any]:
    """If ``gated``, the values where what stands at their gates is positive, else 0.

    The next tile's gates, so much ``ahead``, are brought into the caches by then.
    """
    builder, zero = emit.builder, emit.constant(0)
    with builder.goto_entry_block():
        passed = [builder.alloca(emit.vector) for _ in values]
    for value, place in zip(values, passed, strict=True):
        builder.store(value, place)
    with builder.if_then(gated):
        for value, place, gate in zip(values, passed, gates, strict=True):
            positive = builder.fcmp_ordered(">", emit.load(gate), zero)
            builder.store(builder.select(positive, value, zero), place)
            emit.prefetch(emit.at(gate, ahead), level=1)
    return [builder.load(place) for place in passed]


def _product(emit: Emitter, matrix: np.ndarray, values: list[Any]) -> list[Any]:
    """The matrix times a column of values, with what two rows or two columns share computed once.

    Points p and −p give rows (or columns) that differ in the sign of every other element::

        e ± p·o,   e = x₀ + p²·x₂ + …,   o = x₁ + p²·x₃ + …

    so the even and the odd part of such a pair serve both.
    """
    matrix, values = matrix.astype(np.float64), list(values)
    for i, j in _mirrored(matrix.T):  # f·x + f·y = f·(x + y), and f·x − f·y = f·(x − y)
        x, y = values[i], values[j]
        values[i], values[j] = emit.builder.fadd(x, y), emit.builder.fsub(x, y)
        matrix[:, [i, j]] = _halves(matrix[:, i], matrix[:, j]).T
    results: list[Any] = [None] * len(matrix)
    for i, j in _mirrored(matrix):
        even, odd = _halves(matrix[i], matrix[j])
        p = odd[np.flatnonzero(odd)[0]]
        e, o = _combined(emit, even, values), _combined(emit, odd / p, values)
        for row, sign in ((i, p), (j, -p)):
            results[row] = emit.multiply_add(emit.constant(sign), o, e)
    return [
        _combined(emit, row, values) if result is None else result
        for row, result in zip(matrix, results, strict=True)
    ]


def _mirrored(rows: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of rows, each row in one pair at most, that differ in signs alone, here and there."""
    pairs: list[tuple[int, int]] = []
    for j in range(len(rows)):
        for i in range(j):
            free = not any({i, j} & set(pair) for pair in pairs)
            if free and np.array_equal(abs(rows[i]), abs(rows[j])):
                even, odd = _halves(rows[i], rows[j])
                longest = max(np.count_nonzero(even), np.count_nonzero(odd))
                if even.any() and odd.any() and longest > 1:  # else nothing is shared
                    pairs.append((i, j))
    return pairs


def _halves(row: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """What two rows have alike, and what they have with opposite signs."""
    return np.array([(row + mirrored) / 2, (row - mirrored) / 2])


def _combined(emit: Emitter, coefficients: np.ndarray, values: list[Any]) -> Any:
    """Σ coefficient · value, ones first: they start the sum without a multiplication."""
    total = None
    for i in sorted(np.flatnonzero(coefficients), key=lambda i: abs(coefficients[i]) != 1):
        factor, value = float(coefficients[i]), values[i]
        if total is None:
            total = value if factor == 1 else emit.builder.fmul(emit.constant(factor), value)
        elif factor == 1:
            total = emit.builder.fadd(total, value)
        elif factor == -1:
            total = emit.builder.fsub(total, value)
        else:
            total = emit.multiply_add(emit.constant(factor), value, total)
    return total
