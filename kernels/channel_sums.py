"""Sums over all pixels a channel: the gradient of a bias, alone or behind a ReLU.

Rows are pixels (M, C). As in `batch_norm`, a strip of rows is summed in the array's own precision
and the strips in float64, in an order that does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.columns import THREADS, columns, lanes
from minifcn.kernels.compiled import parallel
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
        _column_sums_numba(a, np.empty(sums.shape, a.dtype), sums)
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
        _relu_backward_sum_numba(grad, y, g, np.empty(sums.shape, g.dtype), sums)
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

# A strip's sums stand in parts (blocks, C), in the array's own precision. Elements are named by all
# their indices: a row taken out first, a[i], costs the compiler and the loop half as much again.


@parallel
def _column_sums_numba(a, parts, sums):  # type: ignore[no-untyped-def]
    m, c = a.shape
    for block in prange(len(sums)):
        last = min(m, (block + 1) * BLOCK)
        for low in range(block * BLOCK, last, STRIP):
            for e in range(c):
                parts[block, e] = 0
            for i in range(low, min(last, low + STRIP)):
                for e in range(c):
                    parts[block, e] += a[i, e]
            for e in range(c):
                sums[block, e] += parts[block, e]


@parallel
def _relu_backward_sum_numba(grad, y, g, parts, sums):  # type: ignore[no-untyped-def]
    m, c = g.shape
    zero = g.dtype.type(0)
    for block in prange(len(sums)):
        last = min(m, (block + 1) * BLOCK)
        for low in range(block * BLOCK, last, STRIP):
            for e in range(c):
                parts[block, e] = 0
            for i in range(low, min(last, low + STRIP)):
                for e in range(c):
                    value = grad[i, e] if y[i, e] > zero else zero
                    g[i, e] = value
                    parts[block, e] += value
            for e in range(c):
                sums[block, e] += parts[block, e]
