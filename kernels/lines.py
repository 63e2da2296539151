"""Convolution of few channels, line by line: neighbouring pixels' windows overlap in memory.

Under one row of a kernel, S pixels of C channels each, stand S·C numbers that are neighbours in the
picture's memory, and those under the next pixel's begin stride·C numbers further. So a row of the
picture between its zeros is the matrix already that im2col would make of it, one whose rows
overlap, and only the zeros ask for a copy::

    L[z·C + c] = x[p·stride + r·dilation − padding, z − padding, c]        one line for each r
    y[p, q, k] = b[k] + Σ_r Σ_i L[q·stride·C + i] · w[r, i, k]             i = 0 … S·C − 1

Where S·C is less than a `PIECE` of products, as for RGB, the rows under the kernel are interleaved,
column by column, to one line: what lies under the whole kernel is then R·S·C neighbours.

    L[(z·R + r)·C + c]        y[p, q, k] = b[k] + Σ_i L[q·stride·R·C + i] · w[i, k]

With many channels im2col copies long runs, and that takes little beside the products; with few it
takes as long as they do. Phases of transposed convolutions are convolutions of a few taps, and go
the same way (see `taps`).

Source: Cho and Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numba as nb
import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.channel_sums import STRIP, add_rows
from minifcn.kernels.compiled import serial
from minifcn.kernels.gathered import summing_code, summing_strip
from minifcn.kernels.jobs import share_out
from minifcn.kernels.pack import in_blocks, pack_part
from minifcn.kernels.parts import add_parts
from minifcn.kernels.row import FOUR, clear, copy, copy_four, copy_row, copy_vector
from minifcn.kernels.stream import fence, past_caches
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tile import (
    PIECE,
    TALL,
    covered,
    half_vectors,
    lanes,
    narrow_columns,
    rows,
    strip,
    strip_code,
)

FEW = 32  # channels
IN_VAIN = 1.1  # of a row of results is computed, at most
PIECES = 4  # of work for a thread, in each phase
PIXELS = 2 * STRIP  # of dy that stay in the first cache while all taps meet them
SMALL = 1 << 15  # elements of a result that is summed in parts …
PARTS = 16  # … so many, of about `LEAST` pixels or more
LEAST = 256


class Window(NamedTuple):
    """Taps of one phase that meet ``high`` rows of ``wide`` pixels.

    The rows lie ``apart``; the first result looks at the picture from (``top``, ``left``) on.
    """

    top: int
    left: int
    high: int
    wide: int
    apart: int


@lru_cache(maxsize=1024)
def windows(taps: Taps) -> tuple[Window, ...] | None:
    """The window of each phase, or None where taps are not rows of neighbouring pixels."""
    found = []
    for *_, first, last, _ in taps.phases.tolist():
        offset, wide = taps.offset[first:last], int(taps.run[first]) if last > first else 0
        if wide == 0 or (last - first) % wide:
            return None
        high = (last - first) // wide
        top, left = offset[0].tolist()
        apart = int(offset[wide, 0]) - top if high > 1 else 1
        grid = [[top + r * apart, left + s] for r in range(high) for s in range(wide)]
        if offset.tolist() != grid:
            return None
        found.append(Window(top, left, high, wide, apart))
    return tuple(found)


@lru_cache(maxsize=1024)
def serve(taps: Taps, c: int, groups: int) -> bool:
    """Whether these taps go line by line: few channels, and no pixel by itself, as 1×1 kernels do.

    Results also want a width that tiles cover well; their gradient sums over pixels, and does not.
    """
    return groups == 1 and 0 < c <= FEW and not taps.reads_each_pixel() and bool(windows(taps))


@lru_cache(maxsize=1024)
def covered_well(taps: Taps) -> bool:
    """Whether tiles that end with a row of results compute few in vain."""
    widths = taps.phases[:, 3].tolist()
    return sum(rows(width) for width in widths) <= IN_VAIN * sum(widths)


def _interleaved(window: Window, c: int) -> bool:
    return window.high > 1 and window.wide * c < PIECE


# -- forward ---------------------------------------------------------------------------------------


def along_taps(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray | None,
    taps: Taps,
    out: Pair,
    floor: float = -np.inf,
) -> np.ndarray:
    """max(floor, bias + x * w), (N, *out, K): arguments as in `im2col`, taps that are `serve`d."""
    n, c, k = len(x), by_tap.shape[1], by_tap.shape[2]
    y = workspace.empty((n, *out, k), x.dtype)
    if y.size == 0:
        return y
    plan = _plan(taps, n, c, k, x.dtype, nb.get_num_threads())
    merged = taps.order.shape[1]
    in_all = 1, plan.blocks, len(plan.order), c, plan.wide
    weights, room = workspace.together(x.dtype, in_all, plan.room)
    packing = in_blocks(by_tap, plan.order, 1, weights)
    start = np.zeros(plan.blocks * plan.wide, x.dtype)
    if bias is not None:
        start[: k * merged].reshape(merged, k)[...] = bias
    arguments = (
        strip_code(x.dtype), x, weights.reshape(-1), start, y, taps.phases, plan.windows,
        taps.in_stride, taps.out_stride, plan.work, room, plan.line,
        len(taps.order), plan.wide, half_vectors(x.dtype, plan.wide), lanes(x.dtype),
        taps.out_stride == (1, 1), x.dtype.type(floor),
        past_caches(y, k) and plan.wide % lanes(x.dtype) == 0,
    )  # fmt: skip
    _multiply_loop(tuple(packing), len(plan.work), arguments)
    return y


class Plan(NamedTuple):
    """What `along_taps` decides by the shapes alone: once for each layer.

    ``wide`` columns a block and so many ``blocks``; the ``order`` in which weights meet a line;
    ``windows`` as rows of (top, left, lines, rows interleaved in a line, rows apart, pixels of a
    row); the shape of the ``room`` for the threads, in which a ``line`` takes so many elements and
    results the rest; the ``work``: (phase, first and last + 1 of all pictures' rows) each.
    """

    wide: int
    blocks: int
    order: np.ndarray
    windows: np.ndarray
    room: Pair
    line: int
    work: np.ndarray


@lru_cache(maxsize=1024)
def _plan(taps: Taps, n: int, c: int, k: int, dtype: Any, threads: int) -> Plan:
    merged = taps.order.shape[1]
    wide = narrow_columns(dtype, k * merged)
    blocks = -(-k * merged // wide)
    order, table, pieces = taps.order.copy(), [], []
    line = edge = 0
    for f, window in enumerate(windows(taps) or ()):
        _, _, height, width, first, last, _ = taps.phases[f].tolist()
        top, left, high, across, apart = window
        together = high if _interleaved(window, c) else 1
        if together > 1:  # column by column
            grid = taps.order[first:last].reshape(high, across, merged)
            order[first:last] = grid.transpose(1, 0, 2).reshape(-1, merged)
        table.append((top, left, high // together, together, apart, across))
        line = max(line, ((rows(width) - 1) * taps.in_stride[1] + across) * together * c)
        count = min(n * height, PIECES * threads)
        edges = [n * height * i // count for i in range(count + 1)]
        pieces.append([(f, a, b) for a, b in zip(edges, edges[1:])])
        edge = max(edge, rows(width) * blocks * wide)
    # every thread gets one run of the list: its share of each phase, for phases differ in taps
    work = [
        piece
        for thread in range(threads)
        for phase in pieces
        for piece in phase[len(phase) * thread // threads : len(phase) * (thread + 1) // threads]
    ]
    line += lanes(dtype)
    return Plan(wide, blocks, order, np.array(table), (threads, line + edge), line, np.array(work))


@serial
def lay(x, image, top, apart, high, left, across, line, to, side):  # type: ignore[no-untyped-def]
    """A line: ``high`` rows of x, interleaved, from column ``left`` on, with zeros outside x.

    It begins at ``to``, and has room for a vector more: a few channels are copied as `FOUR` or as a
    whole vector, and what is copied too much is overwritten by the next ones.
    """
    _, h, w, c = x.shape
    flat, column = x.reshape(-1), high * c
    before = min(max(-left, 0), across)
    inside = max(min(across - before, w - left - before), 0)
    clear(line, to, before * column)
    to += before * column
    source = ((image * h + top) * w + left + before) * c
    if high == 1:
        if 0 <= top < h:
            copy(line, to, flat, source, inside * c)
        else:
            clear(line, to, inside * c)
        to += inside * c
    else:
        down, size = apart * w * c, FOUR if c <= FOUR else side
        whole = 0  # columns that can be copied so
        if c <= size and top >= 0 and top + (high - 1) * apart < h:
            whole = max(min(inside, (flat.size - size - source - (high - 1) * down) // c + 1), 0)
        for z in range(inside):
            here = source
            for r in range(high):
                if z < whole and c <= FOUR:
                    copy_four(line, to, flat, here)
                elif z < whole:
                    copy_vector(line, to, flat, here)
                elif 0 <= top + r * apart < h:
                    copy(line, to, flat, here, c)
                else:
                    clear(line, to, c)
                here += down
                to += c
            source += c
    clear(line, to, (across - before - inside) * column)


@serial
def _multiply_piece(  # type: ignore[no-untyped-def]
    item, code, x, weights, start, y, phases, all_windows, steps, out_steps, work, room, most,
    reads, wide, halves, side, dense, floor, past,
):  # fmt: skip
    f, begin, end = work[item]
    top, left, height, width, first, _, together = phases[f]
    above, beside, lines, high, apart, across = all_windows[f]
    c, k = x.shape[3], y.shape[3]
    mine, flat_y = room[nb.get_thread_id()], y.reshape(-1)
    line, edge = mine[:most], mine[most:]
    columns, column = (width - 1) * steps[1] + across, high * c
    length, total = across * column, together * k
    inner = dense and covered(width) == width
    blocks = (total + wide - 1) // wide
    straight = total // wide if inner else 0  # blocks that go to y at once
    clear(line, columns * column, most - columns * column)  # where the last tile hangs over
    for number in range(begin, end):
        image, i = number // height, number % height
        for n in range(lines):
            row = i * steps[0] + above + n * apart
            lay(x, image, row, apart, high, beside, columns, line, np.int64(0), side)
            last = n == lines - 1
            least = floor if last else x.dtype.type(-np.inf)
            for j in range(blocks):
                at = (j * reads + first) * c * wide + n * length * wide
                target, to, step = edge, j * wide, blocks * wide
                if j < straight:
                    target, to, step = flat_y, number * width * k + j * wide, k
                before, at_before, before_step = target, to, step
                if n == 0:
                    before, at_before, before_step = start, j * wide, 0
                strip(
                    code, line, 0, steps[1] * column, 1, weights, at, wide,
                    before, at_before, before_step, target, to, step, length, width, halves, least,
                    past and last and j < straight, 0,
                )  # fmt: skip
        to = ((image * y.shape[1] + top + i * out_steps[0]) * y.shape[2] + left) * k
        done = straight * wide
        if done < total:
            for m in range(width):
                here = to + m * out_steps[1] * k + done
                copy_row(flat_y, here, edge, m * blocks * wide + done, total - done)
    if past:
        fence()


@serial
def _multiply_loop(packing, count, arguments):  # type: ignore[no-untyped-def]
    share_out(pack_part, packing[0], packing[1])
    share_out(_multiply_piece, count, arguments)


# -- the gradient for the weights ------------------------------------------------------------------


def weight_along_taps(
    x: np.ndarray, dy: np.ndarray, taps: Taps, bias: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dw by tap (R·S, C, K) from x (N, H, W, C) and dL/dy (N, P, Q, K), of a convolution's taps.

    With it, if ``bias`` is asked for and K are whole vectors, dL/db (K,), summed of the same rows
    of dy while they are in the cache; else None.
    """
    c, k = x.shape[3], dy.shape[3]
    plan = _weight_plan(taps, len(dy), c, k, x.dtype, nb.get_num_threads())
    window, sums = plan.window, workspace.empty(plan.sums, x.dtype)
    summed = bias and k % lanes(x.dtype) == 0
    bias_sums = np.zeros((len(sums), k if summed else 0))
    threads, wide = nb.get_num_threads(), plan.wide
    arguments = (
        summing_code(x.dtype), x, dy, sums.reshape(-1), bias_sums, taps.in_stride, plan.work,
        workspace.empty((threads, plan.room), x.dtype),
        workspace.empty((threads, PIXELS * plan.sums[3] + k), x.dtype),
        workspace.empty((threads, PIXELS), np.dtype(np.int64)),
        tuple(window), plan.high, plan.sums[2], plan.sums[3], wide,
        half_vectors(x.dtype, wide), lanes(x.dtype),
    )  # fmt: skip
    _weight_loop(len(plan.work), arguments, sums.reshape(-1), len(sums))
    length = window.wide * plan.high * c  # S · rows of a line · C: more rows hang over
    total = sums[0, :, :length, :k].reshape(-1, window.wide, plan.high, c, k)
    by_tap = total.transpose(0, 2, 1, 3, 4)
    db = bias_sums.sum(axis=0).astype(x.dtype) if summed else None
    # a copy: a view would keep all parts as long as the gradient lives
    return np.array(by_tap, order="C").reshape(len(taps.order), c, k), db


class WeightPlan(NamedTuple):
    """What `weight_along_taps` decides by the shapes alone.

    The ``window`` of the taps, of which ``high`` rows are interleaved in a line; ``wide`` columns a
    block; the shape of the ``sums``: (parts, lines, rows, columns); how much ``room`` the lines of
    one piece take; the ``work``: (part, first and last + 1 of lines, of all pictures' rows) each.
    """

    window: Window
    high: int
    wide: int
    sums: tuple[int, int, int, int]
    room: int
    work: np.ndarray


@lru_cache(maxsize=1024)
def _weight_plan(taps: Taps, n: int, c: int, k: int, dtype: Any, threads: int) -> WeightPlan:
    (window,) = windows(taps) or ()
    _, _, height, width = taps.phases[0, :4].tolist()
    high = window.high if _interleaved(window, c) else 1
    lines, length = window.high // high, window.wide * high * c
    wide = narrow_columns(dtype, k)
    across, pixels = -(-k // wide) * wide, n * height * width
    small = lines * rows(length) * across <= SMALL
    parts = max(1, min(PARTS, pixels // LEAST, n * height)) if small else 1
    shares = min(lines, PIECES * threads)
    cuts = [n * height * part // parts for part in range(parts + 1)]
    ends = [lines * share // shares for share in range(shares + 1)]
    work = [
        (part, low, high, begin, end)
        for part, (begin, end) in enumerate(zip(cuts, cuts[1:]))
        for low, high in zip(ends, ends[1:])
    ]
    line = ((width - 1) * taps.in_stride[1] + window.wide) * high * c
    together = max(1, PIXELS // width)
    room = together * line + TALL + lanes(dtype)
    return WeightPlan(
        window, high, wide, (parts, lines, rows(length), across), room, np.array(work)
    )


@serial
def _weight_piece(  # type: ignore[no-untyped-def]
    item, code, x, dy, sums, bias_sums, steps, work, room, gradients, places, window, high,
    sum_rows, across, wide, halves, side,
):  # fmt: skip
    _, p, q, k = dy.shape
    part, low, up, begin, end = work[item]
    top, left, all_high, seen, apart = window
    lines, column, flat_dy = all_high // high, high * x.shape[3], dy.reshape(-1)
    length, columns = seen * column, (q - 1) * steps[1] + seen
    panel, gradient = room[nb.get_thread_id()], gradients[nb.get_thread_id()]
    at, row_sums = places[nb.get_thread_id()], len(gradient) - k
    base = part * lines * sum_rows * across
    clear(sums, base + low * sum_rows * across, (up - low) * sum_rows * across)
    clear(panel, 0, len(panel))  # the last tile hangs over what is laid there
    number, first = begin, 0  # of the row, and in it
    while number < end:
        together = min(max(1, PIXELS // q), end - number)  # rows, or part of one
        pieces = (q + PIXELS - 1) // PIXELS
        size = q if pieces == 1 else min((q + pieces - 1) // pieces, q - first)
        count = together * size
        for i in range(together):
            for j in range(size):
                at[i * size + j] = (i * columns + (first + j) * steps[1]) * column
        pixel = number * q + first
        source, start, step = flat_dy, pixel * k, k
        if across != k:  # a block of columns together, zeros beyond the last
            source, start, step = gradient, 0, across
            for m in range(count):
                copy_row(gradient, m * across, flat_dy, (pixel + m) * k, k)
                clear(gradient, m * across + k, across - k)
        if low == 0 and bias_sums.size:
            strip = gradient[row_sums:]
            add_rows(flat_dy, pixel * k, k, k, count, side, strip, bias_sums[part])
        for n in range(low, up):
            if first == 0 or lines > 1:
                for i in range(together):
                    row = (number + i) % p * steps[0] + top + n * apart
                    image, to = (number + i) // p, i * columns * column
                    lay(x, image, row, apart, high, left, columns, panel, to, side)
            for j in range(across // wide):
                to = base + n * sum_rows * across + j * wide
                summing_strip(
                    code, panel, 0, at, 0, source, start + j * wide, step, sums, to, across, count,
                    length, halves,
                )  # fmt: skip
        first += size
        if first >= q:
            number, first = number + together, 0


@serial
def _weight_loop(count, arguments, sums, parts):  # type: ignore[no-untyped-def]
    share_out(_weight_piece, count, arguments)
    if parts > 1:
        add_parts(sums, parts, sums)
