"""Depthwise convolution: one filter a channel (groups = C = K), no mixing between channels.

    y[n, p, q, c] = b[c] + Σ_{r, s} x[n, p·stride + r·dilation − padding, …, c] · w[r, s, c]

There is no matrix product to speak of, so there is no column matrix either: each output pixel sums
its taps directly, the loop over channels innermost, where memory is contiguous. Up-sampling by a
bilinear filter is the transposed form of this, with one filter for all classes.

Taps outside the picture are skipped here, where the definition multiplies by zero: the same number
unless a weight is infinite or NaN.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import njit, prange

from minifcn.kernels import workspace
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tile import copy
from minifcn.kernels.vector import lanes


def along_taps(
    x: np.ndarray, by_tap: np.ndarray, bias: np.ndarray, taps: Taps, out: Pair
) -> np.ndarray:
    """y (N, *out, C) from x (N, H, W, C), by_tap (R·S, C) and bias (C,), any kind of taps."""
    y = workspace.empty((x.shape[0], *out, x.shape[3]), x.dtype)
    weight = np.ascontiguousarray(by_tap[taps.order[:, 0]])
    strides = np.array([*taps.in_stride, *taps.out_stride])
    if y.size and taps.in_stride[1] == 1:
        # a row of pixels is one row of numbers, and the weights repeat along it
        again = lanes(x.dtype) * max(1, 256 // (lanes(x.dtype) * x.shape[3]))
        weight, bias = np.tile(weight, (1, again)), np.tile(bias, again)
        rows = workspace.empty((nb.get_num_threads(), y.shape[2] * x.shape[3]), x.dtype)
        _row_loop(x, weight, bias, y, rows, taps.offset, taps.phases, strides)
    elif y.size:
        _loop(x, weight, bias, y, taps.offset, taps.phases, strides)
    return y


def weight_along_taps(x: np.ndarray, dy: np.ndarray, taps: Taps) -> np.ndarray:
    """dL/dw (R·S, 1, C) from x (N, H, W, C) and dy (N, P, Q, C)."""
    n, p, q, c = dy.shape
    by_row = np.zeros((p, len(taps.order), c), x.dtype)  # summed in a fixed order below
    if dy.size:
        _weight_loop(x, dy, by_row, taps.offset, np.array(taps.in_stride))
    return by_row.sum(axis=0, keepdims=True).transpose(1, 0, 2)


@njit(cache=True, nogil=True, parallel=True)
def _row_loop(x, weight, bias, y, rows, offset, phases, strides):  # type: ignore[no-untyped-def]
    step_y, _, out_y, out_x = strides
    n, h, w, c = x.shape
    _, p, q, _ = y.shape
    period = weight.shape[1]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for line in prange(n * p):
        image, row = line // p, line % p
        sums = rows[nb.get_thread_id()]
        for f in range(len(phases)):
            top, left, _, width, first, last, _ = phases[f]
            if top != row % out_y:
                continue
            for low in range(0, width * c, period):
                size = min(period, width * c - low)
                sums[low : low + size] = bias[:size]
            for t in range(first, last):
                a, b = row // out_y * step_y + offset[t, 0], offset[t, 1]
                begin, end = max(0, -b), min(width, w - b)  # results whose pixel lies in the row
                if a < 0 or a >= h or end <= begin:
                    continue
                source = ((image * h + a) * w + b) * c
                for low in range(begin * c, end * c, period):
                    size = min(period, end * c - low)
                    total = sums[low : low + size]
                    pixels = flat_x[source + low : source + low + size]
                    tap = weight[t, :size]
                    for e in range(size):
                        total[e] += pixels[e] * tap[e]
            for j in range(width):
                copy(flat_y, ((image * p + row) * q + left + j * out_x) * c, sums, j * c, c)


@njit(cache=True, nogil=True, parallel=True)
def _loop(x, weight, bias, y, offset, phases, strides):  # type: ignore[no-untyped-def]
    step_y, step_x, out_y, out_x = strides
    n, h, w, c = x.shape
    p = y.shape[1]
    for line in prange(n * p):
        image = line // p
        row = line - image * p
        # the phases of this output row: those that start at row % out_y
        for f in range(len(phases)):
            top, left, _, width, first, last, _ = phases[f]
            if top != row % out_y:
                continue
            i = row // out_y
            for j in range(width):
                target = y[image, row, left + j * out_x]
                for e in range(c):
                    target[e] = bias[e]
                for t in range(first, last):
                    a = i * step_y + offset[t, 0]
                    b = j * step_x + offset[t, 1]
                    if 0 <= a < h and 0 <= b < w:
                        source = x[image, a, b]
                        tap = weight[t]
                        for e in range(c):
                            target[e] += source[e] * tap[e]


@njit(cache=True, nogil=True, parallel=True)
def _weight_loop(x, dy, by_row, offset, steps):  # type: ignore[no-untyped-def]
    step_y, step_x = steps
    n, h, w, c = x.shape
    p, q = dy.shape[1], dy.shape[2]
    for i in prange(p):
        for image in range(n):
            for t in range(len(offset)):
                a = i * step_y + offset[t, 0]
                if a < 0 or a >= h:
                    continue
                total = by_row[i, t]
                for j in range(q):
                    b = j * step_x + offset[t, 1]
                    if 0 <= b < w:
                        source = x[image, a, b]
                        gradient = dy[image, i, j]
                        for e in range(c):
                            total[e] += source[e] * gradient[e]
