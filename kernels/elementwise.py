"""Loops over all elements: ReLU and the gate that is its derivative, and a sum.

An activation's memory is as a rule a contiguous (N, H, W, C) block under a transposed view, so
these loops run over flat memory, in the order in which it lies; other layouts are copied first.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minifcn import device
from minifcn.kernels import workspace

BLOCK = 16384  # elements that one thread takes at a time


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0); NaN stays NaN. Any shape; a picture's result is channels-last in memory."""
    if device.is_reference():
        return np.where(x < 0, x.dtype.type(0), x)
    source = _flat(x)
    y = workspace.empty(source.shape, x.dtype)
    if y.size:
        _relu_numba(source, y, BLOCK)
    return _like(y, x)


def relu_backward(grad: np.ndarray, y: np.ndarray) -> np.ndarray:
    """grad where y > 0, else 0."""
    if device.is_reference():
        return np.where(y > 0, grad, grad.dtype.type(0))
    source, gate = _flat(grad), _flat(y)
    dx = workspace.empty(source.shape, grad.dtype)
    if dx.size:
        _relu_backward_numba(source, gate, dx, BLOCK)
    return _like(dx, grad)


def add(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """a + b, of one shape and dtype; into ``out``, which may be a, or into new memory."""
    lie_alike = a.strides == b.strides and (out is None or a.strides == out.strides)
    large = a.size >= BLOCK and a.dtype in (np.float32, np.float64)
    if device.is_reference() or not (large and lie_alike and _is_flat(a)):
        return np.add(a, b, out=out)
    y = workspace.empty((a.size,), a.dtype) if out is None else _flat(out)
    _add_numba(_flat(a), _flat(b), y)
    return _like(y, a) if out is None else out


def _is_flat(x: np.ndarray) -> bool:
    """Whether `_flat` gives a view, not a copy."""
    return (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).flags.c_contiguous


def _flat(x: np.ndarray) -> np.ndarray:
    """The elements as one row: (N, C, H, W) in the order N, H, W, C; a view where it can be."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).reshape(-1)


def _like(flat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Undo `_flat`: the shape of x, channels last in memory if it has four dimensions."""
    if x.ndim != 4:
        return flat.reshape(x.shape)
    n, c, h, w = x.shape
    return flat.reshape(n, h, w, c).transpose(0, 3, 1, 2)


@njit(cache=True, nogil=True, parallel=True)
def _relu_numba(x, y, block):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    for b in prange((x.size + block - 1) // block):
        source, target = x[b * block : (b + 1) * block], y[b * block : (b + 1) * block]
        for i in range(len(source)):
            value = source[i]
            target[i] = zero if value < zero else value


@njit(cache=True, nogil=True, parallel=True)
def _relu_backward_numba(grad, y, dx, block):  # type: ignore[no-untyped-def]
    zero = grad.dtype.type(0)
    for b in prange((y.size + block - 1) // block):
        part = slice(b * block, (b + 1) * block)
        source, gate, target = grad[part], y[part], dx[part]
        for i in range(len(source)):
            value = source[i]
            target[i] = value if gate[i] > zero else zero


@njit(cache=True, nogil=True, parallel=True)
def _add_numba(a, b, y):  # type: ignore[no-untyped-def]
    for i in prange(y.size):
        y[i] = a[i] + b[i]
