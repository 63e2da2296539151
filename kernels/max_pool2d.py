"""Max-pooling, its adjoint, and the gather that is the adjoint's adjoint.

    y[n, p, q, c] = max over the window's (r, s) of x[n, p·stride + r·dilation − padding, …, c]

The forward pass remembers which pixel won: ``index[n, p, q, c]`` = h·W + w, the first of the window
in reading order at a tie; NaN wins over every number. (A dilated window may straddle the picture
and see nothing of it: then y is −∞, index −1, and no pixel gets its gradient.) The backward pass is
a gather as well: each input pixel looks at the windows that cover it and adds the gradients of
those that it won. So no two threads ever write to the same place, and the sum has one order.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.taps import Pair


def max_pool2d(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> tuple[np.ndarray, np.ndarray]:
    """(y, index), both (N, *out, C), from x (N, H, W, C)."""
    if device.is_reference():
        return _max_pool2d_numpy(x, kernel, stride, padding, dilation, out)
    y = workspace.empty((x.shape[0], *out, x.shape[3]), x.dtype)
    index = workspace.empty(y.shape, np.int32)
    if y.size:
        _max_pool2d_numba(x, y, index, kernel, stride, padding, dilation)
    return y, index


def max_unpool2d(
    dy: np.ndarray,
    index: np.ndarray,
    size: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> np.ndarray:
    """dx (N, *size, C): dy (N, P, Q, C) added at the pixels that ``index`` names."""
    if device.is_reference():
        return _max_unpool2d_numpy(dy, index, size)
    dx = workspace.empty((dy.shape[0], *size, dy.shape[3]), dy.dtype)
    if dx.size:
        _max_unpool2d_numba(dy, index, dx, kernel, stride, padding, dilation)
    return dx


def take_pixels(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """x[n, index[n, p, q, c], c]: the adjoint of `max_unpool2d` (N, H, W, C) → (N, P, Q, C)."""
    n, h, w, c = x.shape
    flat = index.reshape(n, index.shape[1] * index.shape[2], c)
    taken = np.take_along_axis(x.reshape(n, h * w, c), np.maximum(flat, 0), axis=1)
    return np.where(flat < 0, x.dtype.type(0), taken).reshape(index.shape)


# -- the definition ------------------------------------------------------------------------------


def _max_pool2d_numpy(
    x: np.ndarray, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair
) -> tuple[np.ndarray, np.ndarray]:
    n, h, w, c = x.shape
    y = np.full((n, *out, c), -np.inf, x.dtype)
    index = np.full(y.shape, -1, np.int32)
    p, q = np.arange(out[0]), np.arange(out[1])
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            rows = p * stride[0] + r * dilation[0] - padding[0]
            cols = q * stride[1] + s * dilation[1] - padding[1]
            inside = ((rows >= 0) & (rows < h))[:, None] & ((cols >= 0) & (cols < w))
            at = np.where(inside, rows[:, None] * w + cols, 0)
            value = x.reshape(n, h * w, c)[:, at]
            # strictly larger, so that the first wins; ~(value <= y) would let NaN in, and keep it
            wins = (value > y) | (np.isnan(value) & ~np.isnan(y)) | (index < 0)
            wins &= inside[:, :, None]
            y = np.where(wins, value, y)
            index = np.where(wins, at[:, :, None].astype(np.int32), index)
    return y, index


def _max_unpool2d_numpy(dy: np.ndarray, index: np.ndarray, size: Pair) -> np.ndarray:
    n, _, _, c = dy.shape
    dx = np.zeros((n, size[0] * size[1] + 1, c), dy.dtype)  # index −1 falls on the extra pixel
    image, channel = np.arange(n)[:, None, None, None], np.arange(c)
    np.add.at(dx, (image, index, channel), dy)
    return dx[:, :-1].reshape(n, *size, c)


# -- the fast reading ----------------------------------------------------------------------------


@njit(cache=True, nogil=True, parallel=True)
def _max_pool2d_numba(x, y, index, kernel, stride, padding, dilation):  # type: ignore[no-untyped-def]
    _, h, w, c = x.shape
    n, p, q, _ = y.shape
    for line in prange(n * p):
        image = line // p
        row = line - image * p
        for j in range(q):
            best, where = y[image, row, j], index[image, row, j]
            first = True
            for r in range(kernel[0]):
                a = row * stride[0] + r * dilation[0] - padding[0]
                if a < 0 or a >= h:
                    continue
                for s in range(kernel[1]):
                    b = j * stride[1] + s * dilation[1] - padding[1]
                    if b < 0 or b >= w:
                        continue
                    value = x[image, a, b]
                    at = np.int32(a * w + b)
                    if first:
                        for e in range(c):
                            best[e] = value[e]
                            where[e] = at
                        first = False
                    else:
                        for e in range(c):
                            # not (value ≤ best): larger or NaN; and a NaN already there stays
                            wins = not (value[e] <= best[e]) and best[e] == best[e]
                            best[e] = value[e] if wins else best[e]
                            where[e] = at if wins else where[e]
            if first:
                best[:] = -np.inf
                where[:] = -1


@njit(cache=True, nogil=True, parallel=True)
def _max_unpool2d_numba(dy, index, dx, kernel, stride, padding, dilation):  # type: ignore[no-untyped-def]
    n, h, w, c = dx.shape
    _, p, q, _ = dy.shape
    for line in prange(n * h):
        image = line // h
        a = line - image * h
        for b in range(w):
            total = dx[image, a, b]
            total[:] = 0
            at = a * w + b
            for r in range(kernel[0]):
                up = a + padding[0] - r * dilation[0]
                i = up // stride[0]
                if up < 0 or i >= p or i * stride[0] != up:
                    continue
                for s in range(kernel[1]):
                    left = b + padding[1] - s * dilation[1]
                    j = left // stride[1]
                    if left < 0 or j >= q or j * stride[1] != left:
                        continue
                    grad, where = dy[image, i, j], index[image, i, j]
                    for e in range(c):
                        total[e] += grad[e] if where[e] == at else 0
