"""Convolution of any kind as a matrix product: im2col in panels, multiplied by register tiles.

The pixels under the kernel, laid out as one row an output pixel (im2col), make a convolution a
product of (pixels, R·S·C) with (R·S·C, K). The whole column matrix would be R·S times the
activation (1.05 GiB for VGG's conv1_2 at 500×500); so it is made a *panel* at a time: some pixels,
and of their columns those of some taps. A panel stays in the cache of its thread, is multiplied at
once by all weights that meet it, and is overwritten by the next.

A kernel of one pixel and stride 1 needs no panel: the picture is that matrix already, and the tiles
read it where it lies.

Results do not depend on the number of threads: each element is one sum in one order.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import njit, prange

from minifcn.kernels import workspace
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tile import TALL, clear, columns, copy, covered, lanes, rows, strip

DEPTH = 768  # columns of a panel, about: rows of weights that stay in the second-level cache
PANEL_BYTES = 256 * 1024  # of one thread's second-level cache; the rest is for the weights


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

    x is (N, H, W, C), by_tap (R·S, C/groups, K) and bias (K,); by_tap may be any view,
    a transposed one for instance: it is packed first.
    """
    n, c, k = x.shape[0], by_tap.shape[1], by_tap.shape[2] // groups
    y = workspace.empty((n, *out, groups * k), x.dtype)
    if y.size == 0:
        return y
    wide = columns(x.dtype, k * taps.order.shape[1])
    packed, start, where = _pack(by_tap, bias, taps, groups, wide)
    single = len(taps.order) == 1 and not taps.offset.any()
    direct = single and taps.in_stride == (1, 1) and groups == 1 and x.shape[1:3] == out
    together = c if direct else max(1, DEPTH // max(c, 1)) * c  # columns of a panel
    most = int((taps.phases[:, 5] - taps.phases[:, 4]).max(initial=0)) * c
    depth = max(1, min(together, most))
    size = max(8 * TALL, PANEL_BYTES // (depth * x.itemsize) // TALL * TALL)
    work = _shares(taps.phases, n, groups, size, where[:, 1], nb.get_num_threads())
    size = min(size, int(work[:, 3].max())) + 2 * TALL
    threads = nb.get_num_threads()
    panels = workspace.empty((threads, size * depth), x.dtype)
    edges = workspace.empty((threads, size * int(where[:, 1].max()) * wide), x.dtype)
    _multiply_loop(
        x, packed, start, where, y, taps.offset, taps.run, taps.phases, taps.in_stride,
        taps.out_stride, work, panels, edges, k, wide, wide > lanes(x.dtype),
        taps.out_stride == (1, 1), direct, max(1, DEPTH // max(c, 1)), x.dtype.type(floor),
    )  # fmt: skip
    return y


def _pack(
    by_tap: np.ndarray, bias: np.ndarray, taps: Taps, groups: int, wide: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights as the tiles read them: for each phase and group, blocks of (depth, wide).

    Gives them as one row, the biases in the same order, and for each phase (where its first block
    starts, its blocks, where its biases start).
    """
    c, k = by_tap.shape[1], by_tap.shape[2] // groups
    used = taps.phases[:, 5] - taps.phases[:, 4]
    blocks = -(-k * taps.phases[:, 6] // wide)
    length, biases = groups * blocks * used * c * wide, groups * blocks * wide
    where = np.stack([np.cumsum(length) - length, blocks, np.cumsum(biases) - biases], axis=1)
    packed = workspace.empty((int(length.sum()),), by_tap.dtype)
    start = workspace.empty((int(biases.sum()),), by_tap.dtype)
    items = [
        (g, f, j)
        for f, count in enumerate(blocks.tolist())
        for g in range(groups)
        for j in range(count)
    ]
    _pack_loop(
        by_tap, bias, taps.order, taps.phases, where, np.array(items), packed, start, k, wide
    )
    return packed, start, where


def _shares(
    phases: np.ndarray, n: int, groups: int, size: int, blocks: np.ndarray, threads: int
) -> np.ndarray:
    """The work in pieces: (group, phase, first pixel, pixels, first block, last block + 1) each.

    Where there are fewer pieces of pixels than threads, the blocks of columns are shared out too.
    """
    pieces = []
    for f, (height, width) in enumerate(phases[:, 2:4].tolist()):
        total = n * height * width
        even = -(-total // max(1, -(-total // size)))  # pieces of about one size
        even = rows(even)
        first = np.arange(0, total, even)
        length = np.minimum(even, total - first)
        shares = min(int(blocks[f]), max(1, -(-4 * threads // (len(first) * len(phases) * groups))))
        if len(first) * len(phases) * groups >= threads:
            shares = 1
        cuts = np.arange(shares + 1) * int(blocks[f]) // shares
        for low, high in zip(cuts[:-1], cuts[1:], strict=True):
            pieces.append(np.stack([np.full_like(first, v) for v in (f, 0, 0, low, high)], axis=1))
            pieces[-1][:, 1], pieces[-1][:, 2] = first, length
    piece = np.concatenate(pieces)
    group = np.repeat(np.arange(groups), len(piece))[:, None]
    return np.concatenate([group, np.tile(piece, (groups, 1))], axis=1).astype(np.int64)


@njit(cache=True, nogil=True, parallel=True)
def _pack_loop(by_tap, bias, order, phases, where, items, packed, start, k, wide):  # type: ignore[no-untyped-def]
    c = by_tap.shape[1]
    for item in prange(len(items)):
        g, f, j = items[item]
        first, last, together = phases[f, 4], phases[f, 5], phases[f, 6]
        block = g * where[f, 1] + j
        to = where[f, 0] + block * (last - first) * c * wide
        used = min(wide, together * k - j * wide)
        for e in range(wide):
            value = bias[g * k + (j * wide + e) % k] if e < used else bias.dtype.type(0)
            start[where[f, 2] + block * wide + e] = value
        for t in range(first, last):
            column = 0
            while column < used:  # the columns of one phase, merged with others or not
                phase, channel = (j * wide + column) // k, (j * wide + column) % k
                count = min(k - channel, used - column)
                source = by_tap[order[t, phase], :, g * k + channel : g * k + channel + count]
                for d in range(c):
                    at = to + ((t - first) * c + d) * wide + column
                    for e in range(count):
                        packed[at + e] = source[d, e]
                column += count
            for d in range(c):
                clear(packed, to + ((t - first) * c + d) * wide + used, wide - used)


@njit(cache=True, nogil=True)
def fill_panel(x, c0, c, offset, run, first, last, grid, steps, above, pixel, count, panel, row):  # type: ignore[no-untyped-def]
    """im2col of ``count`` pixels of the grid, from number ``pixel`` on, ``row`` elements apart.

    The grid's first row is number ``above`` of those that the offsets count from.
    """
    _, h, w, channels = x.shape
    (height, width), (step_y, step_x) = grid, steps
    joined = c == channels  # neighbouring taps read neighbouring memory
    image = pixel // (height * width)
    i = (pixel - image * height * width) // width
    j = pixel % width
    flat = x.reshape(-1)
    for m in range(count):
        to = m * row
        t = first
        while t < last:
            y = (above + i) * step_y + offset[t, 0]
            z = j * step_x + offset[t, 1]
            taps = min(run[t], last - t) if joined else 1
            if y < 0 or y >= h:
                clear(panel, to, taps * c)
            else:
                before = min(max(-z, 0), taps)  # taps left of the picture, and those inside it
                inside = max(min(taps, w - z) - before, 0)
                clear(panel, to, before * c)
                source = ((image * h + y) * w + z + before) * channels + c0
                copy(panel, to + before * c, flat, source, inside * c)
                clear(panel, to + (before + inside) * c, (taps - before - inside) * c)
            to += taps * c
            t += taps
        j += 1
        if j == width:
            j = 0
            i += 1
            if i == height:
                i = 0
                image += 1


@njit(cache=True, nogil=True, parallel=True)
def _multiply_loop(  # type: ignore[no-untyped-def]
    x, packed, start, where, y, offset, run, phases, steps, out_steps, work, panels, edges,
    k, wide, two, dense, direct, taps_at_once, floor,
):  # fmt: skip
    out_y, out_x = out_steps
    all_k, c = y.shape[3], x.shape[3] // (y.shape[3] // k)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for item in prange(len(work)):
        g, f, pixel, count, low, high = work[item]
        top, left, height, width, first, last, together, above = phases[f]
        panel, edge = panels[nb.get_thread_id()], edges[nb.get_thread_id()]
        _, blocks, biases = where[f]
        whole = height == y.shape[1] and width == y.shape[2]
        inner = dense and whole and covered(count) == count
        first_column, total = low * wide, min(high * wide, together * k) - low * wide
        across = (high - low) * wide  # of a row of edge
        pieces = max(1, (last - first + taps_at_once - 1) // taps_at_once)
        for piece in range(pieces):
            begin = first + (last - first) * piece // pieces
            end = first + (last - first) * (piece + 1) // pieces
            depth = (end - begin) * c
            read = direct and covered(count) == count  # a tile that hangs over would leave x
            if not read:
                fill_panel(
                    x, g * c, c, offset, run, begin, end, (height, width), steps, above, pixel,
                    count, panel, depth,
                )  # fmt: skip
            source, at = (flat_x, pixel * c) if read else (panel, 0)
            least = floor if piece == pieces - 1 else x.dtype.type(-np.inf)
            for j in range(low, high):
                block = g * blocks + j
                weights = where[f, 0] + (block * (last - first) * c + (begin - first) * c) * wide
                straight = inner and (j + 1) * wide <= k
                target, to, row = edge, (j - low) * wide, across
                if straight:
                    target, to, row = flat_y, pixel * all_k + g * k + j * wide, all_k
                before, at_before, before_row = target, to, row
                if piece == 0:
                    before, at_before, before_row = start, biases + block * wide, 0
                strip(
                    source, at, depth, 1, packed, weights, wide, before, at_before, before_row,
                    target, to, row, depth, count, two, least,
                )  # fmt: skip
        if inner and total == across:
            continue
        for m in range(count):
            image, i, j = (
                (pixel + m) // (height * width),
                (pixel + m) % (height * width) // width,
                (pixel + m) % width,
            )
            to = ((image * y.shape[1] + top + i * out_y) * y.shape[2] + left + j * out_x) * all_k
            begin = total // wide * wide if inner else 0  # whole blocks are in y already
            if together == 1:
                copy(
                    flat_y,
                    to + g * k + first_column + begin,
                    edge,
                    m * across + begin,
                    total - begin,
                )
            elif all_k == k:
                copy(flat_y, to + first_column, edge, m * across, total)
            else:  # merged phases of several groups: the channels of one phase at a time
                for phase in range(first_column // k, (first_column + total + k - 1) // k):
                    a = max(phase * k, first_column)
                    b = min((phase + 1) * k, first_column + total)
                    here = to + phase * all_k + g * k + a - phase * k
                    copy(flat_y, here, edge, m * across + a - first_column, b - a)
