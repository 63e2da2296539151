"""Sums over all pixels a channel: the gradient of a bias, alone or behind a ReLU.

Rows are pixels (M, C). As in `batch_norm`, a strip of rows is summed in the array's own precision
and the strips in float64, in an order that does not depend on the number of threads.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.columns import THREADS, columns, lanes
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out
from minifcn.kernels.rooms import Rooms
from minifcn.kernels.stream import fence, past_caches
from minifcn.kernels.vector import LLVM_FLOAT, Emitter
from minifcn.kernels.vector import lanes as vector_lanes
from minifcn.launch import launch

STRIP = 64  # rows summed in the array's own precision before float64 takes over
BLOCK = 4 * STRIP  # rows that one thread takes at a time; of many rows so many more …
BLOCKS = 64  # … that there are about so many blocks, whose sums one thread adds up
SMALL = 1 << 15  # elements; up to here NumPy sums: 20 µs more, but half a second less to compile


def column_sums(a: np.ndarray) -> np.ndarray:
    """Σ down the columns of a (M, C), in a's dtype: the gradient of a bias."""
    if device.is_gpu(a):
        return _sums_cuda("column_sums", (a,), a)
    if device.is_reference():
        return a.sum(axis=0, dtype=np.float64).astype(a.dtype)
    if a.size <= SMALL:
        return np.einsum("mc->c", a, dtype=np.float64).astype(a.dtype)
    return _sums(PLAIN, a, None, None)


def relu_backward_sum(grad: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(g, Σ g down the columns) with g = grad where y > 0, else 0; grad, y, g (M, C).

    What a convolution with bias and ReLU passes on, and its bias's gradient, in one pass.
    """
    if device.is_gpu(grad):
        g = device.array_module(grad).empty(grad.shape, grad.dtype)
        return g, _sums_cuda("relu_backward_sum", (grad, y, g), grad)
    if device.is_reference():
        g = np.where(y > 0, grad, grad.dtype.type(0))
        return g, g.sum(axis=0, dtype=np.float64).astype(g.dtype)
    g = workspace.empty(grad.shape, grad.dtype)
    return g, _sums(GATED_PAST if past_caches(g, g.shape[1]) else GATED, grad, y, g)


# -- CUDA ------------------------------------------------------------------------------------------


def _sums_cuda(kernel: str, arrays: tuple[np.ndarray, ...], a: np.ndarray) -> np.ndarray:
    """The sums of the parts of all rows, then of the parts, if there is more than one."""
    (m, c), xp = a.shape, device.array_module(a)
    sums = xp.empty((c,), a.dtype)
    if not a.size:
        sums.fill(0)
        return sums
    way = columns(a.shape, a.dtype)
    parts, count = xp.empty((way.parts, c), np.float64), way.parts
    grid = count, way.across
    arguments = *arrays, parts, sums, count, m, c, way.rows
    launch("channel_sums.cu", kernel, grid, (THREADS,), arguments, real=a.dtype)
    if count > 1:
        arguments = parts, sums, count, c
        launch("channel_sums.cu", "add_parts", lanes(c), (32, 8), arguments, real=a.dtype)
    return sums


# -- Numba: a strip's sums stand in parts (blocks, C), in the array's own precision ----------------


def _sums(way: int, a: np.ndarray, y: np.ndarray | None, g: np.ndarray | None) -> np.ndarray:
    """The sums of a, or of g, which this makes of a and y."""
    (m, c), width = a.shape, vector_lanes(a.dtype)
    if a.size == 0:
        return np.zeros(c, a.dtype)
    rows, rooms = _plan(m, c, a.dtype)
    sums, parts = rooms.arrays()
    total = np.empty(c, a.dtype)
    end = sums.reshape(-1), total
    if c % width == 0:
        y, g = (a if y is None else y).reshape(-1), (parts if g is None else g).reshape(-1)
        arguments = way, a.reshape(-1), y, g, c, width, parts.reshape(-1), end[0], rows
        _whole_vectors_numba(len(sums), arguments, *end)
    elif way == PLAIN:
        _column_sums_numba(len(sums), (a, parts, sums, rows), *end)
    else:
        _relu_backward_sum_numba(len(sums), (a, y, g, parts, sums, rows), *end)
    return total


@lru_cache(maxsize=1024)
def _plan(m: int, c: int, dtype: np.dtype) -> tuple[int, Rooms]:
    """The rows of a block, whatever the threads; rooms for the sums of blocks and of strips."""
    rows = BLOCK * max(1, m // (BLOCK * BLOCKS))
    blocks = -(-m // rows)
    return rows, Rooms(1, (np.float64, (blocks, c)), (dtype, (blocks, c)))


PLAIN, GATED, GATED_PAST = range(3)  # no gate; g is written; g is written past the caches


@intrinsic
def strip_sums(typing, way, a, y, g, at, step, parts, to, rows, apart):  # type: ignore[no-untyped-def]
    """The sums of two vectors of channels down some ``rows`` of a strip.

    All arrays are flat: the first vector stands at ``at``, the second ``apart`` from it (0: there
    is but one), the next row ``step`` further, and the sums go to ``parts`` from ``to`` on. Unless
    the ``way`` is PLAIN, what is summed is a where y > 0, else 0, and it is also written to g.

    The sums stay in registers. A loop of Numba's would keep them in memory, since it cannot know
    that no store to g changes them.
    """
    if a.dtype not in LLVM_FLOAT or any(other.dtype != a.dtype for other in (y, g, parts)):
        return None
    n = types.int64
    signature = types.void(n, a, y, g, n, n, parts, n, n, n)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, a.dtype)
        way, _, _, _, at, step, _, to, rows, apart = args
        source, gate, target, total = (
            context.make_array(signature.args[which])(context, builder, args[which]).data
            for which in (1, 2, 3, 6)
        )
        offsets, zero = (emit.integer(0), apart), emit.constant(0)
        with builder.goto_entry_block():
            sums = [builder.alloca(emit.vector) for _ in offsets]
        for place in sums:
            builder.store(zero, place)

        def pass_by(write):  # type: ignore[no-untyped-def]
            with cgutils.for_range(builder, rows) as loop:
                row = builder.add(at, builder.mul(loop.index, step))
                for offset, place in zip(offsets, sums, strict=True):
                    here = builder.add(row, offset)
                    value = emit.load(emit.at(source, here))
                    if write:
                        passes = builder.fcmp_ordered(">", emit.load(emit.at(gate, here)), zero)
                        value = builder.select(passes, value, zero)
                        write(emit, value, emit.at(target, here))
                    builder.store(builder.fadd(builder.load(place), value), place)

        for known, write in ((PLAIN, None), (GATED, Emitter.store), (GATED_PAST, Emitter.stream)):
            with builder.if_then(builder.icmp_signed("==", way, emit.integer(known))):
                pass_by(write)
        for offset, place in zip(offsets, sums, strict=True):
            emit.store(builder.load(place), emit.at(total, builder.add(to, offset)))
        return context.get_dummy_value()

    return signature, code


@serial
def add_rows(a, at, step, c, rows, width, strip, sums):  # type: ignore[no-untyped-def]
    """sums (c,) += the sums of ``c`` channels, whole vectors, down some rows of a flat array.

    The first row stands at ``at``, the next one ``step`` further. ``strip`` has room for c numbers.
    """
    for low in range(0, rows, STRIP):
        for e in range(0, c, 2 * width):
            apart = width if e + width < c else 0
            count = min(STRIP, rows - low)
            strip_sums(PLAIN, a, a, a, at + low * step + e, step, strip, e, count, apart)
        for e in range(c):
            sums[e] += strip[e]


@serial
def _finish(sums, count, total):  # type: ignore[no-untyped-def]
    """total = the sum of ``count`` blocks' sums, float64, which are overwritten."""
    exact = sums[: len(total)]
    for block in range(1, count):
        others = sums[block * len(total) : (block + 1) * len(total)]
        for e in range(len(total)):
            exact[e] += others[e]
    for e in range(len(total)):
        total[e] = exact[e]


@serial
def _whole_vectors_block(block, way, a, y, g, c, width, parts, sums, rows):  # type: ignore[no-untyped-def]
    m = a.size // c
    last, to = min(m, (block + 1) * rows), block * c
    own, exact = parts[to : to + c], sums[to : to + c]
    exact[:] = 0
    for low in range(block * rows, last, STRIP):
        count = min(last - low, STRIP)
        for e in range(0, c, 2 * width):
            apart = width if e + width < c else 0
            strip_sums(way, a, y, g, low * c + e, c, parts, to + e, count, apart)
        for e in range(c):
            exact[e] += own[e]
    if way == GATED_PAST:
        fence()


@kernel
def _whole_vectors_numba(count, arguments, sums, total):  # type: ignore[no-untyped-def]
    share_out(_whole_vectors_block, count, arguments)
    _finish(sums, count, total)


# Channels that are no whole vectors. Elements are named by all their indices: a row taken out
# first, a[i], costs the compiler and the loop half as much again.


@serial
def _column_sums_block(block, a, parts, sums, rows):  # type: ignore[no-untyped-def]
    m, c = a.shape
    last = min(m, (block + 1) * rows)
    for e in range(c):
        sums[block, e] = 0
    for low in range(block * rows, last, STRIP):
        for e in range(c):
            parts[block, e] = 0
        for i in range(low, min(last, low + STRIP)):
            for e in range(c):
                parts[block, e] += a[i, e]
        for e in range(c):
            sums[block, e] += parts[block, e]


@kernel
def _column_sums_numba(count, arguments, sums, total):  # type: ignore[no-untyped-def]
    share_out(_column_sums_block, count, arguments)
    _finish(sums, count, total)


@serial
def _relu_backward_sum_block(block, grad, y, g, parts, sums, rows):  # type: ignore[no-untyped-def]
    m, c = g.shape
    zero = g.dtype.type(0)
    last = min(m, (block + 1) * rows)
    for e in range(c):
        sums[block, e] = 0
    for low in range(block * rows, last, STRIP):
        for e in range(c):
            parts[block, e] = 0
        for i in range(low, min(last, low + STRIP)):
            for e in range(c):
                value = grad[i, e] if y[i, e] > zero else zero
                g[i, e] = value
                parts[block, e] += value
        for e in range(c):
            sums[block, e] += parts[block, e]


@kernel
def _relu_backward_sum_numba(count, arguments, sums, total):  # type: ignore[no-untyped-def]
    share_out(_relu_backward_sum_block, count, arguments)
    _finish(sums, count, total)
