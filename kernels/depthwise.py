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
from numba import prange

from minifcn.kernels import workspace
from minifcn.kernels.compiled import parallel
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
        rows = workspace.empty((nb.get_num_threads(), _longest(taps) * x.shape[3]), x.dtype)
        _loop(x, weight, bias, y, rows, taps.offset, taps.run, taps.in_stride)
    return y


def weight_along_taps(x: np.ndarray, dy: np.ndarray, taps: Taps) -> np.ndarray:
    """dL/dw (R·S, 1, C) from x (N, H, W, C) and dy (N, P, Q, C)."""
    n, p, q, c = dy.shape
    by_row = np.zeros((p, len(taps.order) * c), x.dtype)  # summed in a fixed order below
    if dy.size:
        rows = workspace.empty((nb.get_num_threads(), _longest(taps) * c), x.dtype)
        _weight_loop(x, dy, by_row, rows, taps.offset, taps.run, taps.in_stride)
    return by_row.sum(axis=0).reshape(len(taps.order), 1, c)


def _longest(taps: Taps) -> int:
    """Taps of the longest run."""
    return int(taps.run.max(initial=1))


@parallel
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


@parallel
def _loop(x, weight, bias, y, rows, offset, run, steps):  # type: ignore[no-untyped-def]
    step_y, step_x = steps
    n, h, w, c = x.shape
    _, p, q, _ = y.shape
    flat_x, flat_y, flat_weight = x.reshape(-1), y.reshape(-1), weight.reshape(-1)
    for line in prange(n * p):
        image, row = line // p, line % p
        sums = rows[nb.get_thread_id()]
        for j in range(q):
            sums[:] = 0
            t = 0
            while t < len(offset):  # a run of taps is one row of numbers, and so are its weights
                a, b, taps = row * step_y + offset[t, 0], j * step_x + offset[t, 1], run[t]
                begin, end = min(max(0, -b), taps), min(taps, w - b)
                if 0 <= a < h and begin < end:
                    size, source = (end - begin) * c, ((image * h + a) * w + b + begin) * c
                    pixels = flat_x[source : source + size]
                    tap = flat_weight[(t + begin) * c : (t + end) * c]
                    total = sums[begin * c : end * c]
                    for e in range(size):
                        total[e] += pixels[e] * tap[e]
                t += taps
            target = flat_y[(line * q + j) * c : (line * q + j + 1) * c]
            for e in range(c):
                target[e] = bias[e]
            for low in range(0, len(sums), c):
                part = sums[low : low + c]
                for e in range(c):
                    target[e] += part[e]


@parallel
def _weight_loop(x, dy, by_row, rows, offset, run, steps):  # type: ignore[no-untyped-def]
    step_y, step_x = steps
    n, h, w, c = x.shape
    _, p, q, _ = dy.shape
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    for i in prange(p):
        again = rows[nb.get_thread_id()]
        sums = by_row[i]
        for image in range(n):
            for j in range(q):
                for low in range(0, len(again), c):  # one gradient meets every tap of a run
                    copy(again, low, flat_dy, ((image * p + i) * q + j) * c, c)
                t = 0
                while t < len(offset):
                    a, b, taps = i * step_y + offset[t, 0], j * step_x + offset[t, 1], run[t]
                    begin, end = min(max(0, -b), taps), min(taps, w - b)
                    if 0 <= a < h and begin < end:
                        size, source = (end - begin) * c, ((image * h + a) * w + b + begin) * c
                        pixels = flat_x[source : source + size]
                        total = sums[(t + begin) * c : (t + end) * c]
                        gradient = again[:size]
                        for e in range(size):
                            total[e] += pixels[e] * gradient[e]
                    t += taps
