"""Convolution tap by tap, for layers with more weights than pixels: each weight is read once.

    y += shift(x, tap) · w[tap]        for tap = 0 … R·S − 1

VGG's fc6 holds a hundred million weights and meets a map of a few pixels: to read them more than
once would take long. So a thread takes some columns of the result, all pixels of it, and goes
through the taps: of each it copies its columns of the weights, as they come from memory, into the
cache, and multiplies all pixels by them. There is no column matrix, and the weights are not brought
into another order beforehand, which would read and write all of them once more.

Pixels of the result that a tap would only meet with padding are left out: a 7×7 kernel over a map
of 8×8 meets padding in two products of five. Sums are kept as (P, Q, N, columns), so that what is
left of a row lies together, for all pictures. (An infinite weight times padding, NaN elsewhere, is
left out so, or comes to a neighbour.)
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import prange

from minifcn.kernels import workspace
from minifcn.kernels.compiled import parallel, serial
from minifcn.kernels.pack import in_memory, turn
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tile import TALL, clear, columns, copy, covered, lanes, strip

# What a thread works on at a time stays in its second-level cache:
BLOCKS = 8  # columns of tiles
DEPTH = 256  # channels
PIXELS = 256


def along_taps(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray,
    taps: Taps,
    out: Pair,
    floor: float = -np.inf,
) -> np.ndarray:
    """max(floor, bias + x * w): x (N, H, W, C), by_tap (R·S, C, K), bias (K,) → (N, *out, K).

    The taps are those of a convolution of stride 1, or of its input gradient.
    """
    n, c, k = x.shape[0], x.shape[3], by_tap.shape[2]
    y = workspace.empty((n, *out, k), x.dtype)
    if y.size == 0:
        return y
    wide = columns(x.dtype, k)
    blocks, threads = -(-k // wide), nb.get_num_threads()
    items = -(-blocks // BLOCKS)
    items = min(blocks, -(-items // threads) * threads)
    cuts = np.arange(items + 1) * blocks // items
    most = int((cuts[1:] - cuts[:-1]).max()) * wide
    room = n * out[0] * out[1] + 2 * TALL
    weights, turned = in_memory(by_tap)
    _tap_loop(
        x, weights.reshape(-1), turned, bias, y, taps.order[:, 0].copy(), taps.offset, cuts,
        workspace.empty((threads, room * most), x.dtype),
        workspace.empty((threads, (PIXELS + 2 * TALL) * min(c, DEPTH)), x.dtype),
        workspace.empty((threads, min(c, DEPTH) * most), x.dtype),
        wide, lanes(x.dtype), x.dtype.type(floor),
    )  # fmt: skip
    return y


@serial
def _bring_weights(weights, turned, tap, low, depth, left, used, block, wide, side, c, k):  # type: ignore[no-untyped-def]
    """Some channels and columns of a tap's weights, column of tiles by column of tiles."""
    if turned:  # (taps, K, C) in memory
        for j in range((used + wide - 1) // wide):
            width = min(wide, used - j * wide)
            at = (tap * k + left + j * wide) * c + low
            turn(weights, at, c, width, depth, block, j * depth * wide, wide, side)
    else:
        for d in range(depth):  # along a row, as it lies in memory
            at = (tap * c + low + d) * k + left
            for j in range((used + wide - 1) // wide):
                width = min(wide, used - j * wide)
                copy(block, (j * depth + d) * wide, weights, at + j * wide, width)
    ragged = used % wide
    if ragged:
        last = used // wide * depth * wide
        for d in range(depth):
            clear(block, last + d * wide + ragged, wide - ragged)


@parallel
def _tap_loop(  # type: ignore[no-untyped-def]
    x, weights, turned, bias, y, order, offset, cuts, totals, panels, blocks, wide, side, floor
):  # fmt: skip
    n, h, w, c = x.shape
    _, p, q, k = y.shape
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    lowest = x.dtype.type(-np.inf)
    for item in prange(len(cuts) - 1):
        sums, panel = totals[nb.get_thread_id()], panels[nb.get_thread_id()]
        block = blocks[nb.get_thread_id()]
        left, across = cuts[item] * wide, (cuts[item + 1] - cuts[item]) * wide
        used = min(across, k - left)
        for m in range(n * p * q):
            copy(sums, m * across, bias, left, used)
            clear(sums, m * across + used, across - used)
        for t in range(len(offset)):
            above, before = offset[t]
            first, last = max(0, -above), min(p, h - above)  # rows that meet the picture
            begin, end = max(0, -before), min(q, w - before)
            if first >= last or begin >= end:
                continue
            # What is left of each row; all of it, if that is no more tiles, for then rows join.
            whole = covered((end - begin) * n) >= q * n
            for low in range(0, c, DEPTH):
                depth = min(DEPTH, c - low)
                _bring_weights(
                    weights, turned, order[t], low, depth, left, used, block, wide, side, c, k
                )
                for i in range(first, last, last - first if whole else 1):
                    start = (i * q + (0 if whole else begin)) * n
                    stop = (last * q if whole else i * q + end) * n
                    for at in range(start, stop, PIXELS):
                        met = min(PIXELS, stop - at)
                        for m in range(met):
                            place, image = (at + m) // n, (at + m) % n
                            row, column = place // q + above, place % q + before
                            if column < 0 or column >= w:
                                clear(panel, m * depth, depth)
                            else:
                                source = ((image * h + row) * w + column) * c + low
                                copy(panel, m * depth, flat_x, source, depth)
                        clear(panel, met * depth, (covered(met) - met) * depth)
                        for j in range(across // wide):
                            to = at * across + j * wide
                            strip(
                                panel, 0, depth, 1, block, j * depth * wide, wide,
                                sums, to, across, sums, to, across, depth, met, wide > side,
                                lowest, False,
                            )  # fmt: skip
        for m in range(n * p * q):
            to = (m % n * p * q + m // n) * k + left
            for e in range(used):
                value = sums[m * across + e]
                flat_y[to + e] = floor if value < floor else value
