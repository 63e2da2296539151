"""Depthwise convolution: one filter a channel (groups = C = K), no mixing between channels.

    y[n, p, q, c] = b[c] + Σ_{r, s} x[n, p·stride + r·dilation − padding, …, c] · w[r, s, c]

There is no matrix product to speak of, so there is no column matrix either: each output pixel sums
its taps directly, the loop over channels innermost, where memory is contiguous. Up-sampling by a
bilinear filter is the transposed form of this, with one filter for all classes.

Taps outside the picture are skipped here, where the definition multiplies by zero: the same number
unless a weight is infinite or NaN.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np

from minifcn import device
from minifcn.kernels import workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.parts import add_parts
from minifcn.kernels.rooms import Rooms, own
from minifcn.kernels.row import copy
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.vector import lanes
from minifcn.launch import launch


def along_taps(
    x: np.ndarray, by_tap: np.ndarray, bias: np.ndarray, taps: Taps, out: Pair
) -> np.ndarray:
    """y (N, *out, C) from x (N, H, W, C), by_tap (R·S, C) and bias (C,), any kind of taps."""
    c = x.shape[3]
    y = workspace.empty((x.shape[0], *out, c), x.dtype)
    if y.size == 0:
        return y
    plan = _plan(taps, out[1], c, x.dtype, threads())
    *rooms, done = plan.rooms.arrays()
    arguments = x, y, np.ascontiguousarray(by_tap), bias, plan.order, *rooms, done, *plan.settings
    loop = _row_loop if plan.by_row else _loop
    loop(len(y) * out[0], arguments, done)
    return y


def weight_along_taps(x: np.ndarray, dy: np.ndarray, taps: Taps) -> np.ndarray:
    """dL/dw (R·S, 1, C) from x (N, H, W, C) and dy (N, P, Q, C)."""
    p, c, count = dy.shape[1], dy.shape[3], len(taps.order)
    by_tap = workspace.empty((count, 1, c), x.dtype)
    if not dy.size:
        by_tap.fill(0)
        return by_tap
    plan = _weight_plan(taps, p, c, x.dtype, threads())
    by_row, rows = plan.rooms.arrays()
    _weight_loop(p, (x, dy, by_row, rows, *plan.settings), by_row.reshape(-1), by_tap.reshape(-1))
    return by_tap


class Plan(NamedTuple):
    """What `along_taps` decides by the shapes alone: once for each layer.

    Whether results are summed ``by_row`` of pixels or each by itself; the ``order`` in which taps
    are read; ``rooms`` for the threads' rows of sums, and of results where they lie apart, their
    weights and bias, which repeat along a row, and whether those are there; and ``settings`` that
    `_row_by_taps` or `_row_by_runs` is given.
    """

    by_row: bool
    order: np.ndarray
    rooms: Rooms
    settings: tuple[Any, ...]


@lru_cache(maxsize=256)
def _plan(taps: Taps, width: int, c: int, dtype: Any, threads: int) -> Plan:
    by_row, count = taps.in_stride[1] == 1, len(taps.order)
    # a row of pixels is one row of numbers, and the weights repeat along it
    again = lanes(dtype) * max(1, 256 // (lanes(dtype) * c)) if by_row else 1
    longest = width * c if by_row else int(taps.run.max(initial=1)) * c
    rooms = Rooms(
        threads,
        (dtype, (2, longest), True),
        (dtype, (count, again * c), True),
        (dtype, (again * c,), True),
        (np.int64, (1,), True),
    )
    strides = np.array([*taps.in_stride, *taps.out_stride])
    by_rows = taps.offset, taps.phases, strides
    by_runs = taps.offset, taps.run, taps.in_stride
    return Plan(by_row, taps.order[:, 0].copy(), rooms, by_rows if by_row else by_runs)


class WeightPlan(NamedTuple):
    """What `weight_along_taps` decides by the shapes alone.

    ``rooms`` for the sums of each row of dy, and for the threads: a gradient beside itself; and
    ``settings`` that `_weight_row` is given.
    """

    rooms: Rooms
    settings: tuple[Any, ...]


@lru_cache(maxsize=256)
def _weight_plan(taps: Taps, p: int, c: int, dtype: Any, threads: int) -> WeightPlan:
    longest = int(taps.run.max(initial=1)) * c
    rooms = Rooms(
        threads,
        (dtype, (p, len(taps.order) * c)),
        (dtype, (longest,), True),
    )
    return WeightPlan(rooms, (taps.offset, taps.run, taps.in_stride))


# -- CUDA: by the numbers (kernel, stride, padding, dilation), not by taps -------------------------

THREADS = 256
SHARED = 48 << 10  # bytes of shared memory that every GPU has for a block
DEEP = 32  # channels of a tile at most
MOST = 65535  # blocks along a grid's y


def depthwise_cuda(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray | None,
    windows: tuple[Pair, Pair, Pair, Pair],
    out: Pair,
    transposed: bool,
) -> np.ndarray:
    """y (N, *out, C) from x (N, H, W, C), by_tap (R·S, C) and bias (C,) or None."""
    y = device.array_module(x).empty((x.shape[0], *out, x.shape[3]), x.dtype)
    if y.size:
        shape = *x.shape, *out, *(size for pair in windows for size in pair)
        arguments = x, by_tap, bias, y, *shape, transposed
        size = out, x.shape[3], x.dtype.itemsize
        name, tile = "depthwise_strided", None if transposed else _strip(windows, *size)
        if tile:
            arguments = arguments[:-3]  # the dilation is 1
        else:
            name, tile = "depthwise_staged", _tile(windows, *size, transposed)
        if not tile:
            name, tile = "depthwise", (-(-y.size // THREADS), 0)
        count, *sizes, shared = tile
        grid = (min(count * (1 if name == "depthwise" else x.shape[0]), 1 << 20),)
        arguments = *arguments, *sizes
        launch("depthwise.cu", name, grid, (THREADS,), arguments, real=x.dtype, shared=shared)
    return y


def depthwise_weight_cuda(
    x: np.ndarray, dy: np.ndarray, windows: tuple[Pair, Pair, Pair, Pair]
) -> np.ndarray:
    """dL/dw (R·S, 1, C) from x (N, H, W, C) and dy (N, P, Q, C)."""
    xp, (n, p, q, c) = device.array_module(x), dy.shape
    size = windows[0][0] * windows[0][1] * c
    dw = xp.empty((windows[0][0] * windows[0][1], 1, c), x.dtype)
    if not dy.size or not dw.size:
        dw.fill(0)
        return dw
    shape = *x.shape, p, q, *(length for pair in windows for length in pair)
    tile = _phases(windows, x.shape, p, x.dtype.itemsize)
    if tile:
        (groups, parts, layers), *sizes, shared = tile
        name, grid = "depthwise_weight_staged", (groups, parts, layers)
        shape = *shape[:-2], *sizes  # the dilation is 1
    else:
        # enough parts to keep a GPU busy, by the shape alone
        name, parts, shared = "depthwise_weight", min(n * p, -(-(1 << 16) // size)), 0
        grid = -(-size // THREADS), parts
    sums = xp.empty((parts, size), x.dtype) if parts > 1 else dw
    how = {"real": x.dtype, "shared": shared}
    launch("depthwise_weight.cu", name, grid, (THREADS,), (x, dy, sums, *shape), **how)
    if parts > 1:
        arguments, grid = (sums, dw, parts, size), (-(-size // THREADS),)
        launch("depthwise_weight.cu", "add_parts", grid, (THREADS,), arguments, real=x.dtype)
    return dw


def _phases(
    windows: tuple[Pair, Pair, Pair, Pair], shape: tuple[int, ...], rows: int, element: int
) -> tuple[tuple[int, int, int], int, int, int, int, int] | None:
    """(grid, phases a block, periods, columns, channels, bytes) of the weight's gradient.

    None where windows are dilated, or so large that the sums of one phase's taps do not fit.
    """
    (n, _, w, c), ((r, s), (step, across), _, dilation) = shape, windows
    slots, deep, tall = -(-r // step), min(c, DEEP), 16
    # dy is smaller than x by step·across: if a 16th so many blocks read it, that costs a 16th
    groups = max(1, min(step, r, step * across // 16))
    phases = -(-min(step, r) // groups)
    while phases > 1 and phases * slots * s * deep * element > SHARED // 2:
        phases = -(-phases // 2)
    for wide in (256, 128, 64, 32, 16, 8, 4, 2, 1):
        slopes = slots * ((wide + s - 2) // across + 1)
        shared = (phases * slots * s + slopes + phases * wide) * deep * element
        if shared <= SHARED and dilation == (1, 1):
            strips = n * -(-(rows + slots - 1) // tall) * -(-w // wide)
            # a part's sums are written and read once: a 32nd of the bytes of x at most
            parts = max(1, min(strips, n * shape[1] * w // (64 * r * s), MOST))
            grid = -(-min(step, r) // phases), parts, -(-c // deep)
            return grid, phases, tall, wide, deep, shared
    return None


def _strip(
    windows: tuple[Pair, Pair, Pair, Pair], out: Pair, c: int, element: int
) -> tuple[int, int, int, int, int] | None:
    """(tiles an image, rows, columns, channels, bytes) of a tile of a strided convolution.

    None where windows lie apart, or side by side, or are dilated.
    """
    (r, s), (step, across), _, dilation = windows
    if dilation != (1, 1) or r <= step or s <= across or min(step, across) == 1:
        return None
    deep, taps = min(c, DEEP), -(-r // step) * s
    for tall, wide in (
        (20, 24),
        (24, 16),
        (20, 16),
        (12, 16),
        (8, 16),
        (8, 8),
        (4, 8),
        (4, 4),
        (2, 2),
        (1, 1),
    ):
        row = (wide - 1) * across + s
        shared = (taps + tall * wide + row) * deep * element
        if shared <= SHARED:
            count = -(-out[0] // tall) * -(-out[1] // wide) * -(-c // deep)
            return count, tall, wide, deep, shared
    return None


def _tile(
    windows: tuple[Pair, Pair, Pair, Pair], out: Pair, c: int, element: int, transposed: bool
) -> tuple[int, int, int, int, int, int] | None:
    """(tiles an image, phases, periods, columns, channels, bytes of shared memory) of a tile.

    The taps are read once a tile, so a tile is 16 times as large; None where it cannot be.
    """
    (r, s), (step, across), _, dilation = windows
    period = step if transposed else 1
    # a row of pixels serves all phases of a period; with 32 / period of them it is read seldom
    phases = min(period, max(1, 32 // period)) if transposed else 1
    rows = -(-r // (step // gcd(step, dilation[0]))) if transposed else r
    deep, taps = min(c, DEEP), phases * rows * s
    numbers = taps + 1  # and the bias
    reach = (r - 1) * dilation[0], (s - 1) * dilation[1]

    def seen(tall: int, wide: int) -> int:
        """Pixels that a tile's results meet, at most."""
        high, broad = (tall - 1) * period + phases - 1, wide - 1
        if transposed:
            return ((high + reach[0]) // step + 2) * ((broad + reach[1]) // across + 2)
        return (high * step + reach[0] + 1) * (broad * across + reach[1] + 1)

    wide = min(256, max(64, 8 * across)) if transposed else 64
    tall = max(1, 32 // phases, -(-16 * taps // (phases * wide)))
    while (numbers + seen(tall, wide)) * deep * element > SHARED and tall * wide > 1:
        tall, wide = (-(-tall // 2), wide) if tall * phases >= wide else (tall, wide // 2)
    shared = (numbers + seen(tall, wide)) * deep * element
    if shared > SHARED or tall * wide * phases < 4 * taps:
        return None
    groups, periods = -(-period // phases), -(-out[0] // period)
    count = groups * -(-periods // tall) * -(-out[1] // wide) * -(-c // deep)
    return count, phases, tall, wide, deep, shared


# -- Numba -----------------------------------------------------------------------------------------


@serial
def _repeated(by_tap, bias, order, weights, starts, done):  # type: ignore[no-untyped-def]
    """Each tap's weights, and the bias, beside themselves as often as there is room.

    Every thread makes its own when it first asks: to fetch what another wrote takes longer.
    """
    weight, start, is_done = own(weights), own(starts), own(done)
    if is_done[0] == 0:
        is_done[0] = 1
        flat, flat_by_tap, c = weight.reshape(-1), by_tap.reshape(-1), by_tap.shape[1]
        period = len(start)
        for t in range(len(order)):
            copy(flat, t * period, flat_by_tap, order[t] * c, c)
            _repeat(flat, t * period, c, period)
        copy(start, 0, bias, 0, c)
        _repeat(start, 0, c, period)
    return weight, start


@serial
def _repeat(row, at, filled, length):  # type: ignore[no-untyped-def]
    """The first ``filled`` elements from ``at`` on, beside themselves up to a ``length``."""
    while filled < length:
        more = min(filled, length - filled)
        copy(row, at + filled, row, at, more)
        filled += more


@serial
def _row_by_taps(  # type: ignore[no-untyped-def]
    line, x, y, by_tap, biases, order, rows, weights, starts, done, offset, phases, strides
):
    weight, bias = _repeated(by_tap, biases, order, weights, starts, done)
    step_y, _, out_y, out_x = strides
    n, h, w, c = x.shape
    _, p, q, _ = y.shape
    period = weight.shape[1]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    image, row = line // p, line % p
    both = own(rows)
    sums, results = both[0], both[1]  # by number: taken apart, they might have gaps for Numba
    for f in range(len(phases)):
        top, left, _, width, first, last, _ = phases[f]
        if top != row % out_y:
            continue
        for low in range(0, width * c, period):
            size = min(period, width * c - low)
            copy(sums, low, bias, 0, size)
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
        if out_x > 1:  # phase by phase in a cache: y is written from one end to the other
            for j in range(width):
                copy(results, (left + j * out_x) * c, sums, j * c, c)
    copy(flat_y, line * q * c, results if out_x > 1 else sums, 0, q * c)


@kernel
def _row_loop(count, arguments, done):  # type: ignore[no-untyped-def]
    done[:, 0] = 0
    share_out(_row_by_taps, count, arguments)


@serial
def _row_by_runs(  # type: ignore[no-untyped-def]
    line, x, y, by_tap, biases, order, rows, weights, starts, done, offset, run, steps
):
    weight, bias = _repeated(by_tap, biases, order, weights, starts, done)
    step_y, step_x = steps
    n, h, w, c = x.shape
    _, p, q, _ = y.shape
    flat_x, flat_y, flat_weight = x.reshape(-1), y.reshape(-1), weight.reshape(-1)
    image, row = line // p, line % p
    sums = own(rows)[0]
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


@kernel
def _loop(count, arguments, done):  # type: ignore[no-untyped-def]
    done[:, 0] = 0
    share_out(_row_by_runs, count, arguments)


@serial
def _weight_row(i, x, dy, by_row, rows, offset, run, steps):  # type: ignore[no-untyped-def]
    step_y, step_x = steps
    n, h, w, c = x.shape
    _, p, q, _ = dy.shape
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    again = own(rows)
    sums = by_row[i]
    sums[:] = 0
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


@kernel
def _weight_loop(rows, arguments, by_row, by_tap):  # type: ignore[no-untyped-def]
    share_out(_weight_row, rows, arguments)
    add_parts(by_row, rows, by_tap)
