"""Convolution tap by tap, with no column matrix: the tiles read the picture where it lies.

    y += x[pixels that the tap reads] · w[tap]        for tap = 0 … R·S − 1

A thread takes some columns (output channels) of some pixels of the result and goes through the
taps. For each it lists the pixels that meet the picture, with the address of what they read (see
`gathered`), copies a few columns of the tap's weights into the first cache, and multiplies. So
strides and phases cost nothing but other addresses, and nothing is multiplied by padding: over a
map of 16×16 that is a fifth of the products of a 7×7 kernel. (An infinite weight times padding, NaN
elsewhere, is left out so.)

VGG's fc6 holds a hundred million weights and meets a map of a few pixels: to read them more than
once would take long. There a thread takes all pixels, so each weight is read once, as it comes from
memory; and while one block of weights is multiplied, the next is already on its way.

Results do not depend on the number of threads: each element is one sum in one order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.algorithm import FEW_PIXELS, MANY_WEIGHTS
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.gathered import gathered_strip, meetings
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.pack import in_memory
from minifcn.kernels.rooms import Rooms, own
from minifcn.kernels.row import clear, copy, copy_vector
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tiling import MOST, TALL, block, covered, tiles
from minifcn.kernels.turn import turn
from minifcn.kernels.vector import lanes

# What a thread works on at a time stays in its second-level cache:
PAIRS = 12  # of vectors of columns: eight tiles of three
DEPTH = 128  # channels, whose products are summed before they are added to what is there
PIXELS = 384  # of many; of FEW_PIXELS under MANY_WEIGHTS all

SAME_SET = 4096  # bytes: pixels a multiple of them apart push each other out of the first cache


def along_taps(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray,
    taps: Taps,
    groups: int,
    out: Pair,
    floor: float = -np.inf,
) -> np.ndarray:
    """max(floor, bias + x * w), (N, *out, K).

    x is (N, H, W, C), by_tap (R·S, C/groups, K), any view of weights, and bias (K,). The taps are
    those of a convolution, or of a transposed one with its phases apart.
    """
    n, c, k = x.shape[0], by_tap.shape[1], by_tap.shape[2]
    y = workspace.empty((n, *out, k), x.dtype)
    if y.size == 0:
        return y
    if by_tap.size >= MANY_WEIGHTS and x.shape[3] * x.itemsize % SAME_SET == 0:
        x = _a_line_apart(x)
    plan = _plan(taps, n, groups, by_tap.size, c, k // groups, x.dtype, threads())
    weights, turned = in_memory(by_tap)
    arguments = (
        x, weights.reshape(-1), turned, bias, y, *plan.rooms.arrays(), x.dtype.type(floor),
        *plan.settings,
    )  # fmt: skip
    _tap_loop(len(plan.work), arguments)
    return y


def _a_line_apart(x: np.ndarray) -> np.ndarray:
    """x with one cache line of nothing behind each pixel; it is small beside the weights here."""
    channels, line = x.shape[3], workspace.LINE // x.itemsize
    apart = workspace.empty((*x.shape[:3], channels + line), x.dtype)
    apart[..., :channels] = x
    apart[..., channels:] = 0
    return apart


class Plan(NamedTuple):
    """What `along_taps` decides by the shapes alone: once for each layer.

    ``rooms`` for the threads: sums, a block of weights, and addresses; the ``work``, see `_shares`;
    and ``settings`` that `_tap_piece` is given.
    """

    rooms: Rooms
    work: np.ndarray
    settings: tuple[Any, ...]


@lru_cache(maxsize=1024)
def _plan(
    taps: Taps, n: int, groups: int, weights: int, c: int, k: int, dtype: Any, threads: int
) -> Plan:
    side = lanes(dtype)
    work = _shares(taps, n, groups, weights, k, 2 * side, threads)
    most, across = int(work[:, 3].max()), int((work[:, 5] - work[:, 4]).max())
    across = -(-across // side) * side
    rooms = Rooms(
        threads,
        (dtype, ((most + 1) * across,), True),
        (dtype, (min(c, DEPTH) * MOST * side,), True),
        (np.int64, (2, most + 2 * TALL), True),
    )
    order = taps.order[:, 0].copy()  # the kernel elements, as they are read
    settings = (
        order, taps.offset, taps.phases, taps.in_stride, taps.out_stride, work, c, side,
    )  # fmt: skip
    return Plan(rooms, work, settings)


def _shares(
    taps: Taps, n: int, groups: int, weights: int, k: int, wide: int, threads: int
) -> np.ndarray:
    """The work in pieces: (group, phase, first pixel, pixels, first column, last column + 1) each.

    Threads share the columns where weights are many, else the pixels, and as evenly as may be: each
    gets one run of the list, its share of each phase, for phases differ in their taps.
    """
    many = weights >= MANY_WEIGHTS
    pixels = (n * taps.phases[:, 2] * taps.phases[:, 3]).tolist()
    size = FEW_PIXELS if many else PIXELS
    pairs = -(-k // wide)
    shares = -(-pairs // PAIRS)
    if many and groups * shares % threads and pairs >= threads:
        shares = -(-shares // threads) * threads
    edges = [min(k, pairs * share // shares * wide) for share in range(shares)] + [k]
    pieces = []
    for g in range(groups):
        for low, high in zip(edges, edges[1:]):
            for f, total in enumerate(pixels):
                count = -(-total // size)
                if not many:
                    count = -(-count // threads) * threads
                even = -(-total // max(1, count))
                pieces += [
                    (g, f, pixel, min(even, total - pixel), g * k + low, g * k + high)
                    for pixel in range(0, total, max(1, even))
                ]
    if many:
        return np.array(pieces, np.int64)
    mine = [piece for thread in range(threads) for piece in pieces[thread::threads]]
    return np.array(mine, np.int64)


@serial
def _bring_weights(weights, turned, tap, low, depth, left, width, target, wide, side, c, k):  # type: ignore[no-untyped-def]
    """Some channels of a tap's weights for one column of tiles: (depth, wide), zeros beyond."""
    if turned:  # (taps, K, C) in memory
        turn(weights, (tap * k + left) * c + low, c, width, depth, target, np.int64(0), wide, side)
    else:
        for d in range(depth):
            at = (tap * c + low + d) * k + left
            if width < wide:
                copy(target, d * wide, weights, at, width)
                continue
            for e in range(0, wide, side):
                copy_vector(target, d * wide + e, weights, at + e)
    if width < wide:
        for d in range(depth):
            clear(target, d * wide + width, wide - width)


@serial
def _pace(rows, length, side, every):  # type: ignore[no-untyped-def]
    """(size, wait) for rows of 2^size vectors, one vector in 2^wait of ``every`` product.

    As late as lets ``every`` product bring all ``rows`` of so many elements.
    """
    size, wait = 0, 0
    while length > side << size:
        size += 1
    while rows << (size + wait + 1) <= every:
        wait += 1
    return size, wait


@serial
def _tap_piece(  # type: ignore[no-untyped-def]
    item, x, weights, turned, bias, y, totals, brought, places, floor, order, offset, phases, steps,
    out_steps, work, c, side,
):  # fmt: skip
    k = y.shape[3]
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    g, f, pixel, count, left, right = work[item]
    top, first_column, height, width, first, last, _ = phases[f]
    sums, target, place = own(totals), own(brought), own(places)
    at, to = place[0], place[1]
    used = right - left
    across = (used + side - 1) // side * side
    for m in range(count):
        copy(sums, m * across, bias, left, used)
        clear(sums, m * across + used, across - used)
    for t in range(first, last):
        met, _ = meetings(
            at, to, across, offset[t], steps, (height, width), x.shape[1:],
            pixel, pixel, pixel + count, count,
        )  # fmt: skip
        if met == 0:
            continue
        for m in range(met, covered(met)):  # a tile that hangs over adds to a row of its own
            at[m], to[m] = at[0], count * across
        row_of_tiles, column = 0, 0
        while column < across:
            wide = block(across - column, side)
            talls, shorts, _, _ = tiles(met, 2 * wide // side)
            row_of_tiles, column = row_of_tiles + talls + shorts, column + wide
        for low in range(0, c, DEPTH):
            depth = min(DEPTH, c - low)
            after, beyond = (t, low + DEPTH) if low + DEPTH < c else (min(t + 1, last - 1), 0)
            if turned:
                rows, row, length = used, c, min(DEPTH, c - beyond)
                soon = (order[after] * k + left) * c + beyond
            else:
                rows, row, length = min(DEPTH, c - beyond), k, used
                soon = (order[after] * c + beyond) * k + left
            size, wait = _pace(rows, length, side, depth * row_of_tiles)
            column, done = 0, 0
            while column < across:
                wide = block(across - column, side)
                _bring_weights(
                    weights, turned, order[t], low, depth, left + column,
                    min(wide, used - column), target, wide, side, c, k,
                )  # fmt: skip
                done = gathered_strip(
                    flat_x, g * c + low, target, 0, sums, column, at, to, depth, met,
                    2 * wide // side, weights, soon, row, size, wait, done,
                )  # fmt: skip
                column += wide
    image, i, j = pixel // (height * width), pixel // width % height, pixel % width
    for m in range(count):
        row = (image * y.shape[1] + top + i * out_steps[0]) * y.shape[2]
        here = (row + first_column + j * out_steps[1]) * k + left
        for e in range(used):
            value = sums[m * across + e]
            flat_y[here + e] = floor if value < floor else value
        j += 1
        if j == width:
            i, j = i + 1, 0
            if i == height:
                image, i = image + 1, 0


@kernel
def _tap_loop(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_tap_piece, count, arguments)
