"""Loops over all elements: ReLU, the gate that is its derivative, a sum, a joining of channels.

An activation's memory is as a rule a contiguous (N, H, W, C) block under a transposed view, so
these loops run over flat memory, in the order in which it lies; other layouts are copied first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import prange

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.compiled import parallel

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


def cat_channels(parts: Sequence[np.ndarray]) -> np.ndarray:
    """(N, H, W, C₁ + C₂ + …) from parts (N, H, W, Cᵢ) of one dtype."""
    if device.is_reference():
        return np.concatenate(parts, axis=3)
    joined = workspace.empty((*parts[0].shape[:3], sum(p.shape[3] for p in parts)), parts[0].dtype)
    rows, first = joined.reshape(-1, joined.shape[3]), 0
    for part in parts:
        count = part.shape[3]
        if part.size:
            _copy_columns_numba(part.reshape(-1, count), 0, rows, first, count)
        first += count
    return joined


def take_channels(x: np.ndarray, first: int, count: int) -> np.ndarray:
    """x[..., first : first + count] in memory of its own, of x (N, H, W, C)."""
    if device.is_reference():
        return np.ascontiguousarray(x[..., first : first + count])
    taken = workspace.empty((*x.shape[:3], count), x.dtype)
    if taken.size:
        rows = taken.reshape(-1, count)
        _copy_columns_numba(x.reshape(-1, x.shape[3]), first, rows, 0, count)
    return taken


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


@parallel
def _relu_numba(x, y, block):  # type: ignore[no-untyped-def]
    zero = x.dtype.type(0)
    for b in prange((x.size + block - 1) // block):
        source, target = x[b * block : (b + 1) * block], y[b * block : (b + 1) * block]
        for i in range(len(source)):
            value = source[i]
            target[i] = zero if value < zero else value


@parallel
def _relu_backward_numba(grad, y, dx, block):  # type: ignore[no-untyped-def]
    zero = grad.dtype.type(0)
    for b in prange((y.size + block - 1) // block):
        part = slice(b * block, (b + 1) * block)
        source, gate, target = grad[part], y[part], dx[part]
        for i in range(len(source)):
            value = source[i]
            target[i] = value if gate[i] > zero else zero


@parallel
def _add_numba(a, b, y):  # type: ignore[no-untyped-def]
    for i in prange(y.size):
        y[i] = a[i] + b[i]


@parallel
def _copy_columns_numba(source, first, target, to, count):  # type: ignore[no-untyped-def]
    for i in prange(len(source)):
        for e in range(count):
            target[i, to + e] = source[i, first + e]
