"""Resampling along one axis by a sparse matrix: bilinear up-sampling, one axis after the other.

    y[b, o, :] = Σⱼ A[o, j] · x[b, j, :]

A bilinear interpolation weighs two neighbours, so a row of A has at most two elements. Its adjoint
is the same loop with the transposed matrix. A is kept as three arrays (compressed rows): row o has
the columns ``column[first[o] : first[o + 1]]`` with the weights ``weight[…]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out
from minifcn.kernels.vector import LLVM_FLOAT, Emitter, lanes, pointer
from minifcn.launch import launch


@dataclass(frozen=True, eq=False)  # equal only to itself, so that its copies on a GPU can be kept
class Matrix:
    """A sparse matrix by rows.

    Attributes:
        first: where each row's elements begin, (rows + 1,) int64.
        column: their columns, int64.
        weight: their values, float64.
        columns: the number of columns.
    """

    first: np.ndarray
    column: np.ndarray
    weight: np.ndarray
    columns: int

    @cached_property
    def transpose(self) -> Matrix:
        """Columns as rows: the adjoint."""
        row = np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))
        order = np.argsort(self.column, kind="stable")
        count = np.bincount(self.column, minlength=self.columns)
        first = np.concatenate([[0], np.cumsum(count)])
        return Matrix(first, row[order], self.weight[order], len(self.first) - 1)


@lru_cache(maxsize=256)  # a net asks for the same few at every step
def bilinear(n_in: int, n_out: int, scale: float, align_corners: bool) -> Matrix:
    """The matrix (n_out, n_in) of linear interpolation along one axis.

    Args:
        n_in: samples there are, at least 1.
        n_out: samples wanted.
        scale: distance between output samples, in input samples (used when not align_corners).
        align_corners: the first and last samples of both coincide; otherwise the *edges* do, and
            sample o lies at (o + ½)·scale − ½, held inside the input.
    """
    o = np.arange(n_out)
    if align_corners:
        position = o * ((n_in - 1) / (n_out - 1)) if n_out > 1 else np.zeros(n_out)
    else:
        position = np.maximum((o + 0.5) * scale - 0.5, 0.0)
    low = np.minimum(position.astype(np.int64), n_in - 1)
    high = np.minimum(low + 1, n_in - 1)
    share = position - low
    column = np.stack([low, high], axis=1).reshape(-1)
    weight = np.stack([1.0 - share, share], axis=1).reshape(-1)
    return Matrix(np.arange(0, 2 * n_out + 1, 2), column, weight, n_in)


def resample(x: np.ndarray, matrix: Matrix, axis: int) -> np.ndarray:
    """x (N, H, W, C) with axis 1 or 2 resampled by ``matrix``."""
    rows = len(matrix.first) - 1
    shape = (*x.shape[:axis], rows, *x.shape[axis + 1 :])
    lead, inner = int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis + 1 :]))
    flat = x.reshape(lead, x.shape[axis], inner)
    if device.is_gpu(x):
        return _resample_cuda(flat, matrix).reshape(shape)
    if device.is_reference():
        return _resample_numpy(flat, matrix).reshape(shape)
    y = workspace.empty((lead, rows, inner), x.dtype)
    if y.size:
        weight, together = matrix.weight.astype(x.dtype), max(1, TOGETHER // inner)
        arguments = flat, matrix.first, matrix.column, weight, y, together, lanes(x.dtype)
        _resample_numba(lead * -(-rows // together), arguments)
    return y.reshape(shape)


def _resample_numpy(x: np.ndarray, matrix: Matrix) -> np.ndarray:
    dense = np.zeros((len(matrix.first) - 1, matrix.columns), x.dtype)
    row = np.repeat(np.arange(len(dense)), np.diff(matrix.first))
    np.add.at(dense, (row, matrix.column), matrix.weight)
    return dense @ x


# -- CUDA ------------------------------------------------------------------------------------------

THREADS = 256
SHARED = 48 << 10  # bytes of shared memory that every GPU has for a block


def _resample_cuda(x: np.ndarray, matrix: Matrix) -> np.ndarray:
    xp, (lead, n_in, inner), rows = device.array_module(x), x.shape, len(matrix.first) - 1
    y = xp.empty((lead, rows, inner), x.dtype)
    if y.size:
        tall, wide, span, most = _tile(matrix, inner, x.dtype.itemsize)
        tables = _tables(matrix, tall, xp, x.device.id, x.dtype.name)  # type: ignore[attr-defined]
        # a block takes 8 pictures, where there are so many, and reads the matrix once for them
        grid = -(-rows // tall) * -(-inner // wide), min(-(-lead // 8), 65535)
        arguments = x, *tables, y, lead, n_in, rows, inner, tall, wide, span, most
        shared = _bytes(wide, tall, span, most, x.dtype.itemsize)
        launch("resample.cu", "resample", grid, (THREADS,), arguments, x.dtype, shared)
    return y


@lru_cache(maxsize=256)
def _tile(matrix: Matrix, inner: int, element: int) -> tuple[int, int, int, int]:
    """(rows, elements of each, rows of x that they meet, matrix elements) of a block's tile."""
    tall, wide = 64, min(inner, 256)
    while True:
        low, high, count = _spans(matrix, tall)
        span, most = int((high - low).max(initial=0)), int(count.max(initial=0))
        if _bytes(wide, tall, span, most, element) <= SHARED or wide * tall == 1:
            return tall, wide, span, most
        tall, wide = (tall, wide // 2) if wide > 64 or tall == 1 else (tall // 2, wide)


def _bytes(wide: int, tall: int, span: int, most: int, element: int) -> int:
    return (span * wide + most) * element + (most + tall + 1) * 4


def _spans(matrix: Matrix, tall: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each ``tall`` rows of a matrix: their first column, the one after the last, elements."""
    rows = len(matrix.first) - 1
    begin = matrix.first[np.arange(0, rows, tall)]
    end = matrix.first[np.minimum(np.arange(0, rows, tall) + tall, rows)]
    spans = [(c.min(), c.max() + 1) if c.size else (0, 0) for c in _split(matrix, begin, end)]
    low, high = np.array(spans).reshape(-1, 2).T
    return low, high, end - begin


def _split(matrix: Matrix, begin: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    return [matrix.column[a:b] for a, b in zip(begin, end, strict=True)]


@lru_cache(maxsize=256)
def _tables(
    matrix: Matrix, tall: int, xp: ModuleType, card: int, real: str
) -> tuple[np.ndarray, ...]:
    """The matrix on the device: first, column, weight and the first column of each tile.

    Kept for each ``card`` by itself: one cannot read what lies on another.
    """
    low, _, _ = _spans(matrix, tall)
    first, column, low = (a.astype(np.int32) for a in (matrix.first, matrix.column, low))
    return tuple(xp.asarray(a) for a in (first, column, matrix.weight.astype(real), low))


# -- Numba -----------------------------------------------------------------------------------------


TOGETHER = 4096  # elements of the rows that a thread takes at a time, about


@intrinsic
def _two_vectors(  # type: ignore[no-untyped-def]
    typing, x, at, step, column, weight, first, last, y, to, apart
):
    """Σⱼ weight[j] · x[at + column[j] · step], a vector of it, and another so much ``apart``.

    The sums over ``first`` ≤ j < ``last`` stay in registers, and go to y from ``to`` on; the two
    may overlap.
    """
    if any(array.dtype != x.dtype for array in (weight, y)) or x.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(x, n, n, column, weight, n, n, y, n, n)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, x.dtype)
        source, target = (pointer(context, builder, signature, args, which) for which in (0, 7))
        columns, weights = (
            context.make_array(signature.args[i])(context, builder, args[i]).data for i in (3, 4)
        )
        step, first, last, apart = args[2], args[5], args[6], args[9]
        with builder.goto_entry_block():
            sums = [builder.alloca(emit.vector) for _ in range(2)]
        for total in sums:
            builder.store(emit.constant(0), total)
        with cgutils.for_range(builder, last, start=first) as loop:
            place = builder.load(emit.at(columns, loop.index))
            row = emit.at(source, builder.mul(place, step))
            factor = emit.repeat(builder.load(emit.at(weights, loop.index)))
            for total, value in zip(sums, (row, emit.at(row, apart)), strict=True):
                added = emit.multiply_add(factor, emit.load(value), builder.load(total))
                builder.store(added, total)
        for total, place in zip(sums, (target, emit.at(target, apart)), strict=True):
            emit.store(builder.load(total), place)
        return context.get_dummy_value()

    return signature, code


@serial
def _resample_rows(item, x, first, column, weight, y, together, side):  # type: ignore[no-untyped-def]
    """Some rows of one matrix product: by whole vectors, the last over part of those before it."""
    _, rows, inner = y.shape
    parts = (rows + together - 1) // together
    i, low = item // parts, item % parts * together
    flat_x, flat_y, at = x.reshape(-1), y.reshape(-1), i * x.shape[1] * inner
    for o in range(low, min(rows, low + together)):
        to, begin, end = (i * rows + o) * inner, first[o], first[o + 1]
        if inner < side:
            for e in range(inner):
                total = flat_y.dtype.type(0)
                for j in range(begin, end):
                    total += weight[j] * flat_x[at + column[j] * inner + e]
                flat_y[to + e] = total
        else:
            for e in range(0, inner, 2 * side):
                here = min(e, inner - side)
                beside = min(e + side, inner - side) - here
                _two_vectors(
                    flat_x, at + here, inner, column, weight, begin, end, flat_y, to + here, beside
                )


@kernel
def _resample_numba(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_resample_rows, count, arguments)
