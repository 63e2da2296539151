"""The weight gradient of any convolution, from the same panels as its forward pass.

    dw[k, c, r, s] = Σ_{n, p, q} x[n, p·stride + r·dilation − padding, …, c] · dy[n, p, q, k]

With the panel of some pixels as a matrix (pixels, taps · C), this is its transpose times the
(pixels, K) of dy. A thread takes some rows of the result (taps and channels) and sums over all
pixels, a few hundred at a time, in one fixed order. A result too small to share out that way, as a
first layer's, is summed in a fixed number of parts of the pixels, added in order at the end: the
bits do not depend on the number of threads.

A bias is the weight of one more tap, which always reads 1: with a column of ones in the last panel,
its gradient comes along and dy is not read a second time for it.

With many channels a piece of work is one tap or less, and leaves out the rows of dy that this tap
would only meet with padding: one in five for a 7×7 kernel over a map of 8×8. (A NaN in those rows
does not reach that tap then.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numba import prange

from minifcn.kernels import workspace
from minifcn.kernels.compiled import parallel
from minifcn.kernels.im2col import fill_panel
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tile import SHORT, TALL, clear, columns, copy, covered, lanes, rows, strip

PIXELS = 256  # of a panel
SHARE = 264  # rows of the result that a thread takes at a time, about
SMALL = 1 << 15  # elements of a result that is summed in parts
PARTS = 16
UNIT = TALL - SHORT  # rows: whole tiles make every multiple of it from SHORT on
FEW = 64  # channels of dy that are read where they lie; of many, a block would be far apart


def weight_along_taps(
    x: np.ndarray, dy: np.ndarray, taps: Taps, groups: int, bias: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dw by tap (R·S, C/groups, K) from x (N, H, W, C) and dL/dy (N, P, Q, K).

    With it, if ``bias`` is asked for, panels are made and there is one group, dL/db (K,), summed in
    the arrays' own precision; else None.
    """
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    features = len(taps.order) * c
    if dy.size == 0 or features == 0:
        return np.zeros((len(taps.order), c, groups * k), x.dtype), None
    same_size = x.shape[1:3] == dy.shape[1:3]
    pixels, threads = dy.size // dy.shape[3], nb.get_num_threads()
    plan = _plan(taps, pixels, same_size, groups, c, k, x.dtype, threads, bias)
    sums = workspace.empty(plan.sums, x.dtype)
    height, across = plan.sums[-2:]
    _weight_loop(
        x, dy, sums.reshape(-1), taps.offset, taps.run, taps.in_stride, plan.work,
        workspace.empty(plan.panels, x.dtype), workspace.empty(plan.gradients, x.dtype),
        k, plan.wide, across, height, plan.wide > lanes(x.dtype), plan.as_it_is, plan.lies,
        plan.alone, plan.ones,
    )  # fmt: skip
    if (height, across) == (features, k) and groups == len(sums) == 1:
        return sums.reshape(len(taps.order), c, k), None
    total = sums[0, :, : features + plan.ones, :k]
    for part in sums[1:]:
        total = total + part[:, : features + plan.ones, :k]
    ours = total[:, :features].transpose(1, 0, 2)  # (taps · C, groups, K/groups)
    by_tap = np.ascontiguousarray(ours).reshape(len(taps.order), c, groups * k)
    return by_tap, total[0, features].copy() if plan.ones else None


class Plan(NamedTuple):
    """What `weight_along_taps` decides by the shapes alone: once for each layer.

    ``wide`` columns a block; whether x ``as_it_is`` is the matrix, and dy is read where it
    ``lies``; whether each piece of the ``work`` (see `_shares`) is of one tap ``alone``, and the
    last has a column of ``ones`` behind its taps, for dL/db; the shapes of ``panels`` and
    ``gradients``, a row a thread, and of ``sums``: (parts, groups, rows, columns).
    """

    wide: int
    as_it_is: bool
    lies: bool
    alone: bool
    ones: bool
    panels: Pair
    gradients: Pair
    sums: tuple[int, int, int, int]
    work: np.ndarray


@lru_cache(maxsize=1024)
def _plan(
    taps: Taps,
    pixels: int,
    same_size: bool,
    groups: int,
    c: int,
    k: int,
    dtype: Any,
    threads: int,
    bias: bool,
) -> Plan:
    count = len(taps.order)
    wide = columns(dtype, k)
    across = -(-k // wide) * wide
    as_it_is = taps.reads_each_pixel() and groups == 1 and same_size
    ones = bias and groups == 1 and not as_it_is
    parts = PARTS if groups * count * c * across <= SMALL and pixels >= PARTS * PIXELS else 1
    work, depth, alone = _shares(groups, parts, count, c, pixels, threads, ones)
    last = int(work[-1, 3] - work[-1, 2])
    exact = parts == 1 and groups == 1 and across == k and rows(last) == last and not ones
    lies = groups == 1 and k == across and k <= FEW
    panels = threads, PIXELS * (depth + 2 * TALL + wide)
    gradients = threads, 0 if lies else PIXELS * across
    sums = parts, groups, count * c + (0 if exact else 2 * TALL), across
    return Plan(wide, as_it_is, lies, alone, ones, panels, gradients, sums, work)


def _shares(
    groups: int, parts: int, taps: int, c: int, pixels: int, threads: int, ones: bool
) -> tuple[np.ndarray, int, bool]:
    """The work in pieces, the panel columns that the widest looks at, and if each is of one tap.

    A piece is (group, part, first row, last row + 1, first pixel, last pixel + 1). If it can, it
    takes whole taps or a share of one: columns of a panel that it does not need were made in vain.
    """
    features = taps * c
    count = -(-features // SHARE)
    if 1 < groups * parts * count < 4 * threads:  # the same work for every thread
        count = -(-count // threads) * threads
    if c % UNIT or c < SHORT:  # tiles do not end where taps do: pieces of whole tiles then
        ends = [*range(0, features, rows(-(-features // count)))]
    elif c > SHARE:
        each = min(-(-count // taps), c // (4 * SHORT))
        ends = [t * c + c // UNIT * i // each * UNIT for t in range(taps) for i in range(each)]
    else:
        ends = [*range(0, features, max(1, min(SHARE // c, taps // count)) * c)]
    alone = c % UNIT == 0 and 2 * c > SHARE  # for any number of threads, for sums depend on it
    widest = max(-(-high // c) * c - low // c * c for low, high in zip(ends, [*ends[1:], features]))
    ends.append(features + ones)
    cuts = [pixels * part // parts for part in range(parts + 1)]
    pieces = [
        (g, part, low, high, cuts[part], cuts[part + 1])
        for g in range(groups)
        for part in range(parts)
        for low, high in zip(ends, ends[1:])
    ]
    return np.array(pieces, np.int64), widest, alone


@parallel
def _weight_loop(  # type: ignore[no-untyped-def]
    x, dy, sums, offset, run, steps, work, panels, gradients, k, wide, across, height, two,
    as_it_is, lies, alone, ones,
):  # fmt: skip
    _, p, q, all_k = dy.shape
    groups = all_k // k
    c = x.shape[3] // groups
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    lowest = x.dtype.type(-np.inf)
    for item in prange(len(work)):
        g, part, low, high, begin, end = work[item]
        panel, gradient = panels[nb.get_thread_id()], gradients[nb.get_thread_id()]
        zeros = np.zeros(wide, x.dtype)
        first, last = low // c, min((high + c - 1) // c, len(offset))  # taps of rows low … high − 1
        depth = (last - first) * c
        base = ((part * groups + g) * height + low) * across
        top, bottom = 0, p
        column_of_ones = ones and last == len(offset)
        if alone and not column_of_ones:
            above, below = -offset[first, 0], x.shape[1] - 1 - offset[first, 0]
            top = max(0, (above + steps[0] - 1) // steps[0])
            bottom = min(p, below // steps[0] + 1)
            if bottom - top > 0.9 * p:  # hardly worth breaking off at each picture's end
                top, bottom = 0, p
        pixel, fresh = begin, True
        while pixel < end and top < bottom:
            image, line = pixel // (p * q), pixel // q % p
            if line < top or line >= bottom:
                pixel = ((image + (line >= bottom)) * p + top) * q
                continue
            count = min(PIXELS, end - pixel)
            if bottom - top < p:
                count = min(count, (image * p + bottom) * q - pixel)
            # a 1×1 kernel reads x where it lies, if no tile hangs over its last row
            source, at, row = flat_x, pixel * c + low, c
            if not as_it_is or covered(high - low) != high - low:
                fill_panel(
                    x, g * c, c, offset, run, first, last, (p, q), steps, pixel, count,
                    panel, depth + wide,
                )  # fmt: skip
                source, at, row = panel, low - first * c, depth + wide
            if column_of_ones:
                for m in range(count):
                    panel[m * row + depth] = 1
            copied = 0 if lies else across // wide
            for j in range(copied):  # a block of columns together, zeros beyond the last
                used = min(wide, k - j * wide)
                for m in range(count):
                    to = (j * PIXELS + m) * wide
                    copy(gradient, to, flat_dy, (pixel + m) * all_k + g * k + j * wide, used)
                    clear(gradient, to + used, wide - used)
            for j in range(across // wide):
                to = base + j * wide
                before, at_before, before_row = sums, to, across
                if fresh:
                    before, at_before, before_row = zeros, 0, 0
                columns_of, at_columns, step = gradient, j * PIXELS * wide, wide
                if lies:
                    columns_of, at_columns, step = flat_dy, pixel * all_k + j * wide, all_k
                strip(
                    source, at, 1, row, columns_of, at_columns, step,
                    before, at_before, before_row, sums, to, across, count, high - low, two, lowest,
                    False,
                )  # fmt: skip
            pixel, fresh = pixel + count, False
        if fresh:  # no pixel of this part meets the picture
            clear(sums, base, covered(high - low) * across)
