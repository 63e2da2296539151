"""The weight gradient of any convolution, from the same panels as its forward pass.

    dw[k, c, r, s] = Σ_{n, p, q} x[n, p·stride + r·dilation − padding, …, c] · dy[n, p, q, k]

With the panel of some pixels as a matrix (pixels, taps · C), this is its transpose times the
(pixels, K) of dy. A thread takes some rows of the result (taps and channels) and sums over all
pixels, a few hundred at a time, in one fixed order. A result too small to share out that way is
summed in a fixed number of parts of the pixels, added in order at the end: the bits do not depend
on the number of threads. (A 1×1 layer with few filters is `narrow_weight`'s.)

With many channels a piece of work is one tap or less, and needs no panel: it lists the pixels that
the tap meets the picture for, with the address of what they read (see `gathered`). The others are
left out: two in five for a 7×7 kernel over a map of 8×8. (A NaN in their dy does not reach that tap
then.)
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.channel_sums import add_rows
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.gathered import meetings, summing_code, summing_strip
from minifcn.kernels.im2col import fill_panel
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.parts import add_bias, add_parts
from minifcn.kernels.rooms import Rooms, own
from minifcn.kernels.row import clear, copy
from minifcn.kernels.taps import Taps
from minifcn.kernels.tiling import SHORT, TALL, covered, half_vectors, narrow_columns, rows
from minifcn.kernels.vector import lanes

PIXELS = 256  # of a panel
SHARE = 264  # rows of the result that a thread takes at a time, about
SMALL = 1 << 15  # elements of a result that is summed in parts
PARTS = 16
DEEP = 32  # channels from which on a piece is of one tap
UNIT = TALL - SHORT  # rows: whole tiles make every multiple of it from SHORT on
FEW = 64  # channels of dy that are read where they lie; of many, a block would be far apart


def weight_along_taps(
    x: np.ndarray, dy: np.ndarray, taps: Taps, groups: int, bias: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dw by tap (R·S, C/groups, K) from x (N, H, W, C) and dL/dy (N, P, Q, K).

    With it, if ``bias`` is asked for, the kernel is of one tap that meets every pixel and blocks of
    columns are whole vectors, dL/db (K,), summed of the rows of dy while they are in the cache;
    else None.
    """
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    features = len(taps.order) * c
    if dy.size == 0 or features == 0:
        return np.zeros((len(taps.order), c, groups * k), x.dtype), None
    plan = _plan(taps, dy.size // dy.shape[3], groups, c, k, x.dtype, threads())
    sums = workspace.empty(plan.sums, x.dtype)
    summed = bias and plan.sums_bias
    db = np.empty(groups * k if summed else 0, x.dtype)
    bias_sums, *rooms = plan.rooms.arrays()
    arguments = x, dy, sums, bias_sums, *rooms, summed, *plan.settings
    _weight_loop(len(plan.work), arguments, sums.reshape(-1), bias_sums, db)
    db = db if summed else None
    if sums.shape == (1, 1, features, k):
        return sums.reshape(len(taps.order), c, k), db
    ours = sums[0, :, :features, :k].transpose(1, 0, 2)  # (taps · C, groups, K/groups)
    # a copy: a view would keep all parts as long as the gradient lives
    return np.array(ours, order="C").reshape(len(taps.order), c, groups * k), db


class Plan(NamedTuple):
    """What `weight_along_taps` decides by the shapes alone: once for each layer.

    The shape of ``sums``: (parts, groups, rows, columns); whether it ``sums_bias``, too; ``rooms``
    for the sums for the bias, and for the threads: panel and columns of dy, addresses of pixels,
    and a strip's sums; the ``work``, see `_shares`; and ``settings`` that `_weight_piece` is given.
    """

    sums: tuple[int, int, int, int]
    sums_bias: bool
    rooms: Rooms
    work: np.ndarray
    settings: tuple[Any, ...]


@lru_cache(maxsize=1024)
def _plan(
    taps: Taps,
    pixels: int,
    groups: int,
    c: int,
    k: int,
    dtype: Any,
    threads: int,
) -> Plan:
    count = len(taps.order)
    wide = narrow_columns(dtype, k)
    across = -(-k // wide) * wide
    parts = PARTS if groups * count * c * across <= SMALL and pixels >= PARTS * PIXELS else 1
    work, depth, alone = _shares(groups, parts, count, c, pixels, threads)
    last = int(work[-1, 3] - work[-1, 2])
    exact = parts == 1 and groups == 1 and across == k and rows(last) == last
    lies = groups == 1 and k == across and k <= FEW
    panel = PIXELS * (depth + 2 * TALL + wide)
    rooms = Rooms(
        threads,
        (np.float64, (parts, groups, across)),
        (dtype, (panel + (0 if lies and not alone else PIXELS * across),), True),
        (np.int64, (2, PIXELS), True),
        (dtype, (wide,), True),
    )
    sums = parts, groups, count * c + (0 if exact else 2 * TALL), across
    summed = taps.reads_each_pixel() and wide % lanes(dtype) == 0
    settings = (
        taps.offset, taps.run, taps.in_stride, work, panel, k, wide, half_vectors(dtype, wide),
        lies, alone, summing_code(dtype),
    )  # fmt: skip
    return Plan(sums, summed, rooms, work, settings)


def _shares(
    groups: int, parts: int, taps: int, c: int, pixels: int, threads: int
) -> tuple[np.ndarray, int, bool]:
    """The work in pieces, the panel columns that the widest looks at, and if each is of one tap.

    A piece is (group, part, first row, last row + 1, first pixel, last pixel + 1). If it can, it
    takes whole taps or a share of one: columns of a panel that it does not need were made in vain.
    """
    features = taps * c
    count = -(-features // SHARE)
    # whatever the threads: of a tap alone, pixels that it meets padding for are left out of a sum
    alone = c % UNIT == 0 and c >= (SHORT if taps == 1 else DEEP)
    if 1 < groups * parts * count < 4 * threads:  # the same work for every thread
        count = -(-count // threads) * threads
    if c % UNIT or c < SHORT:  # tiles do not end where taps do: pieces of whole tiles then
        ends = [*range(0, features, rows(-(-features // count)))]
    elif c > SHARE:
        each = min(-(-count // taps), c // (4 * SHORT))
        ends = [t * c + c // UNIT * i // each * UNIT for t in range(taps) for i in range(each)]
    else:
        together = 1 if alone else max(1, min(SHARE // c, taps // count))
        ends = [*range(0, features, together * c)]
        shares = min(threads, features // (4 * SHORT))
        if alone and groups * parts == 1:  # where one thread's share ends amid a tap, cut it there
            fair = [features * t // shares // UNIT * UNIT for t in range(1, shares)]
            ends = sorted({*ends, *(cut for cut in fair if SHORT <= cut % c <= c - SHORT)})
    widest = max(-(-high // c) * c - low // c * c for low, high in zip(ends, [*ends[1:], features]))
    ends.append(features)
    cuts = [pixels * part // parts for part in range(parts + 1)]
    pieces = [
        (g, part, low, high, cuts[part], cuts[part + 1])
        for g in range(groups)
        for part in range(parts)
        for low, high in zip(ends, ends[1:])
    ]
    return np.array(pieces, np.int64), widest, alone


@serial
def _weight_piece(  # type: ignore[no-untyped-def]
    item, x, dy, all_sums, bias_sums, room, places, strips, bias, offset, run, steps, work, most,
    k, wide, halves, lies, alone, code,
):  # fmt: skip
    """One piece of the work, of one tap ``alone`` or of several; dy may be read where it ``lies``.

    Of a thread's ``room`` the panel takes ``most`` elements, and columns of dy the rest.
    """
    sums, (_, _, height, across) = all_sums.reshape(-1), all_sums.shape
    _, p, q, all_k = dy.shape
    groups = all_k // k
    c = x.shape[3] // groups
    flat_x, flat_dy = x.reshape(-1), dy.reshape(-1)
    g, part, low, high, begin, end = work[item]
    mine, place, strip, side = own(room), own(places), own(strips), 2 * wide // halves
    panel, gradient = mine[:most], mine[most:]
    at, of = place[0], place[1]
    first, last = low // c, (high + c - 1) // c  # taps of rows low … high − 1
    depth = (last - first) * c
    base = ((part * groups + g) * height + low) * across
    clear(sums, base, covered(high - low) * across)
    if low == 0 and bias:
        bias_sums[part, g] = 0
    in_place = alone and covered(high - low) == high - low
    pixel = begin
    while pixel < end:
        if in_place:
            source, start = flat_x, g * c + low - first * c
            count, after = meetings(
                at, of, np.int64(1), offset[first], steps, (p, q), x.shape[1:], np.int64(0), pixel,
                end, np.int64(PIXELS),
            )  # fmt: skip
        else:
            source, start = panel, low - first * c
            count = min(PIXELS, end - pixel)
            after = pixel + count
            fill_panel(
                x, g * c, c, offset, run, first, last, (p, q), steps, pixel, count,
                panel, depth + wide,
            )  # fmt: skip
            for m in range(count):
                at[m], of[m] = m * (depth + wide), pixel + m
        straight = lies and after - pixel == count  # no pixel was left out
        copied = 0 if straight else across // wide
        for j in range(copied):  # a block of columns together, zeros beyond the last
            used = min(wide, k - j * wide)
            for m in range(count):
                to = (j * PIXELS + m) * wide
                copy(gradient, to, flat_dy, of[m] * all_k + g * k + j * wide, used)
                clear(gradient, to + used, wide - used)
        for j in range(across // wide):
            columns_of, at_columns, step = gradient, j * PIXELS * wide, wide
            if straight:
                columns_of, at_columns, step = flat_dy, pixel * all_k + j * wide, all_k
            if low == 0 and bias:
                of_bias = bias_sums[part, g, j * wide : (j + 1) * wide]
                add_rows(columns_of, at_columns, step, wide, count, side, strip, of_bias)
            summing_strip(
                code, source, start, at, 0, columns_of, at_columns, step, sums, base + j * wide,
                across, count, high - low, halves,
            )  # fmt: skip
        pixel = after


@kernel
def _weight_loop(count, arguments, sums, bias_sums, db):  # type: ignore[no-untyped-def]
    share_out(_weight_piece, count, arguments)
    if len(bias_sums) > 1:
        add_parts(sums, len(bias_sums), sums)
    add_bias(bias_sums, db)
