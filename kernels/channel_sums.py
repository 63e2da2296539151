"""Sums over all pixels a channel: the gradient of a bias, alone or behind a ReLU.

Rows are pixels (M, C). As in `batch_norm`, a strip of rows is summed in the array's own precision
and the strips in float64, in an order that does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.columns import THREADS, columns, lanes
from minifcn.kernels.compiled import parallel
from minifcn.kernels.stream import fence, past_caches
from minifcn.kernels.vector import Emitter
from minifcn.kernels.vector import lanes as vector_lanes
from minifcn.launch import launch

STRIP = 64  # rows summed in the array's own precision before float64 takes over
BLOCK = 4 * STRIP  # rows that one thread takes at a time


def column_sums(a: np.ndarray) -> np.ndarray:
    """Σ down the columns of a (M, C), in a's dtype: the gradient of a bias."""
    if device.is_gpu(a):
        return _sums_cuda("column_sums", (a,), a)
    if device.is_reference():
        return a.sum(axis=0, dtype=np.float64).astype(a.dtype)
    sums = np.zeros((-(-a.shape[0] // BLOCK), a.shape[1]))
    if a.size:
        _column_sums_numba(a, vector_lanes(a.dtype), np.empty(sums.shape, a.dtype), sums)
    return sums.sum(axis=0).astype(a.dtype)


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
    sums = np.zeros((-(-g.shape[0] // BLOCK), g.shape[1]))
    if g.size:
        past, parts = past_caches(g, g.shape[1]), np.empty(sums.shape, g.dtype)
        _relu_backward_sum_numba(grad, y, g, vector_lanes(g.dtype), past, parts, sums)
    return g, sums.sum(axis=0).astype(g.dtype)


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


# -- Numba -----------------------------------------------------------------------------------------

# A strip's sums stand in parts (blocks, C), in the array's own precision.


@intrinsic
def strip_sums(typing, a, y, g, at, step, parts, to, rows, vectors, past):  # type: ignore[no-untyped-def]
    """The sums of one or two ``vectors`` of channels down some ``rows`` of a strip.

    All arrays are flat: the first vector stands at ``at``, the next row ``step`` further, and the
    sums go to ``parts`` from ``to`` on. If y is not None, what is summed is a where y > 0, else 0,
    and it is also written to g, ``past`` the caches or not.

    The sums stay in registers. A loop of Numba's would keep them in memory, since it cannot know
    that no store to g changes them.
    """
    gated, n = not isinstance(y, types.NoneType), types.int64
    signature = types.void(a, y, g, n, n, parts, n, n, n, types.boolean)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, a.dtype)
        _, _, _, at, step, _, to, rows, vectors, past = args
        source, gate, target, total = (
            context.make_array(signature.args[which])(context, builder, args[which]).data
            if isinstance(signature.args[which], types.Array)
            else None
            for which in (0, 1, 2, 5)
        )
        zero = emit.constant(0)

        def pass_by(count, write):  # type: ignore[no-untyped-def]
            with builder.goto_entry_block():
                sums = [builder.alloca(emit.vector) for _ in range(count)]
            for place in sums:
                builder.store(zero, place)
            with cgutils.for_range(builder, rows) as loop:
                row = builder.add(at, builder.mul(loop.index, step))
                for v, place in enumerate(sums):
                    here = builder.add(row, emit.integer(v * emit.width))
                    value = emit.load(emit.at(source, here))
                    if gated:
                        passes = builder.fcmp_ordered(">", emit.load(emit.at(gate, here)), zero)
                        value = builder.select(passes, value, zero)
                        write(emit, value, emit.at(target, here))
                    builder.store(builder.fadd(builder.load(place), value), place)
            for v, place in enumerate(sums):
                there = builder.add(to, emit.integer(v * emit.width))
                emit.store(builder.load(place), emit.at(total, there))

        one = builder.icmp_signed("==", vectors, emit.integer(1))
        with builder.if_else(one) as (alone, pair):
            for branch, count in ((alone, 1), (pair, 2)):
                with branch, builder.if_else(past) as (beyond, kept):
                    with beyond:
                        pass_by(count, Emitter.stream)
                    with kept:
                        pass_by(count, Emitter.store)
        return context.get_dummy_value()

    return signature, code


@parallel
def _column_sums_numba(a, lanes, parts, sums):  # type: ignore[no-untyped-def]
    m, c = a.shape
    flat, flat_parts = a.reshape(-1), parts.reshape(-1)
    for block in prange(len(sums)):
        last = min(m, (block + 1) * BLOCK)
        for low in range(block * BLOCK, last, STRIP):
            rows = min(last - low, STRIP)
            for e in range(0, c // lanes * lanes, 2 * lanes):
                strip_sums(
                    flat, None, None, low * c + e, c, flat_parts, block * c + e, rows,
                    min(2, (c - e) // lanes), False,
                )  # fmt: skip
            for e in range(c // lanes * lanes, c):
                parts[block, e] = 0
                for i in range(low, low + rows):
                    parts[block, e] += a[i, e]
            for e in range(c):
                sums[block, e] += parts[block, e]


@parallel
def _relu_backward_sum_numba(grad, y, g, lanes, past, parts, sums):  # type: ignore[no-untyped-def]
    m, c = g.shape
    zero = g.dtype.type(0)
    flat, flat_y, flat_g = grad.reshape(-1), y.reshape(-1), g.reshape(-1)
    flat_parts = parts.reshape(-1)
    for block in prange(len(sums)):
        last = min(m, (block + 1) * BLOCK)
        for low in range(block * BLOCK, last, STRIP):
            rows = min(last - low, STRIP)
            for e in range(0, c // lanes * lanes, 2 * lanes):
                strip_sums(
                    flat, flat_y, flat_g, low * c + e, c, flat_parts, block * c + e, rows,
                    min(2, (c - e) // lanes), past,
                )  # fmt: skip
            for e in range(c // lanes * lanes, c):
                parts[block, e] = 0
                for i in range(low, low + rows):
                    value = grad[i, e] if y[i, e] > zero else zero
                    g[i, e] = value
                    parts[block, e] += value
            for e in range(c):
                sums[block, e] += parts[block, e]
        if past:
            fence()
