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

Where a row of results would end amid a tile, some rows lie one after the other in a line (`Group`).

With many channels im2col copies long runs, and that takes little beside the products; with few it
takes as long as they do. Phases of transposed convolutions are convolutions of a few taps, and go
the same way (see `taps`). The gradient for the weights is `lines_weight`.

Source: Cho and Brand, "MEC: Memory-efficient Convolution for Deep Neural Network", ICML 2017.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels import pack, workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.pack import in_blocks, pack_for_all, packed_weights
from minifcn.kernels.rooms import Rooms, own
from minifcn.kernels.row import FOUR, clear, copy, copy_four, copy_row, copy_vector
from minifcn.kernels.stream import fence, past_caches
from minifcn.kernels.strip import strip, strip_code
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tiling import PIECE, covered, half_vectors, narrow_columns, rows
from minifcn.kernels.vector import lanes

FEW = 32  # channels
IN_VAIN = 1.1  # of a row of results is computed, at most
TOGETHER = 8  # rows of results, at most, where one ends amid a tile
PIECES = 4  # of work for a thread, in each phase


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
    """Whether tiles that end with a row of results, or with some, compute few in vain."""
    widths, steps = taps.phases[:, 3].tolist(), taps.in_stride
    groups = (_group(width, w, steps) for width, w in zip(widths, windows(taps) or ()))
    return sum(g.computed / g.rows for g in groups) <= IN_VAIN * sum(widths)


class Group(NamedTuple):
    """So many ``rows`` of results in one line, the first of each so many results ``apart``.

    Those between are computed in vain, and so are those beyond the last: ``computed`` in all.
    """

    rows: int
    apart: int
    computed: int


def _group(width: int, window: Window, steps: Pair) -> Group:
    """The rows of ``width`` results that are computed together: the fewest with the least in vain.

    One, where that leaves little: if a row ends where a tile does, its results go to y at once.
    """
    apart = -(-((width - 1) * steps[1] + window.wide) // steps[1])
    found = [Group(g, apart, rows((g - 1) * apart + width)) for g in range(1, TOGETHER + 1)]
    if found[0].computed <= IN_VAIN * width:
        return found[0]
    return min(found, key=lambda group: group.computed / group.rows)


def interleaved(window: Window, c: int) -> bool:
    """Whether the rows under the kernel are interleaved to one line."""
    return window.high > 1 and window.wide * c < PIECE


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
    plan = _plan(taps, n, c, k, x.dtype, threads())
    packed, done, start, room = plan.rooms.arrays()
    if bias is None:
        start.fill(0)
    else:  # beside each other for merged phases; beyond, columns that nobody reads
        start[: plan.columns].reshape(-1, k)[...] = bias
    past = plan.vectors and past_caches(y, k)
    weights = in_blocks(by_tap, plan.order, packed, done)
    arguments = x, start, y, room, x.dtype.type(floor), past, *plan.settings
    _multiply_loop(weights, len(plan.work), arguments)
    return y


class Plan(NamedTuple):
    """What `along_taps` decides by the shapes alone: once for each layer.

    The ``order`` in which weights meet a line; ``columns`` of their matrix, merged phases beside
    each other, in blocks of whole ``vectors`` or not; ``rooms`` for the weights, the bias, and the
    threads; the ``work``: (phase, first and last + 1 of all pictures' rows) each; and ``settings``
    that `_multiply_piece` is given, windows among them as rows of (top, left, lines, rows
    interleaved in a line, rows apart, pixels of a row, rows of results together, results from the
    first of one of these to the next).
    """

    order: np.ndarray
    columns: int
    vectors: bool
    rooms: Rooms
    work: np.ndarray
    settings: tuple[Any, ...]


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
        together = high if interleaved(window, c) else 1
        if together > 1:  # column by column
            grid = taps.order[first:last].reshape(high, across, merged)
            order[first:last] = grid.transpose(1, 0, 2).reshape(-1, merged)
        group = _group(width, window, taps.in_stride)
        table.append((top, left, high // together, together, apart, across, *group[:2]))
        line = max(line, ((group.computed - 1) * taps.in_stride[1] + across) * together * c)
        count = min(n * height, PIECES * threads)
        edges = [n * height * i // count for i in range(count + 1)]
        pieces.append([(f, a, b) for a, b in zip(edges, edges[1:])])
        edge = max(edge, group.computed * blocks * wide)
    # every thread gets one run of the list: its share of each phase, for phases differ in taps
    work = [
        piece
        for thread in range(threads)
        for phase in pieces
        for piece in phase[len(phase) * thread // threads : len(phase) * (thread + 1) // threads]
    ]
    line = workspace.whole_lines(line + lanes(dtype), dtype)
    rooms = Rooms(
        threads,
        *pack.rooms((1, blocks, len(order), c, wide), dtype),
        (dtype, (blocks * wide,)),
        (dtype, (line + edge,), True),
    )
    every = np.array(work)
    settings = (
        strip_code(dtype), taps.phases, np.array(table), taps.in_stride, taps.out_stride, every,
        line, len(order), wide, half_vectors(dtype, wide), taps.out_stride == (1, 1),
    )  # fmt: skip
    return Plan(order, k * merged, wide % lanes(dtype) == 0, rooms, every, settings)


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
    item, by_tap, turned, order, packed, done, k, side, packs, x, start, y, room, floor, past, code,
    phases, all_windows, steps, out_steps, work, most, reads, wide, halves, dense,
):  # fmt: skip
    """One piece of the work, with the bias in ``start``.

    Of a thread's ``room`` the line takes ``most`` elements, and results the rest.
    """
    weights = packed_weights(by_tap, turned, order, packed, done, k, side, packs)
    f, begin, end = work[item]
    top, left, height, width, first, _, together = phases[f]
    above, beside, lines, high, apart, across, group, shift = all_windows[f]
    c = x.shape[3]
    mine, flat_y = own(room), y.reshape(-1)
    line, edge = mine[:most], mine[most:]
    columns, column = (width - 1) * steps[1] + across, high * c
    length, total = across * column, together * k
    inner = dense and group == 1 and covered(width) == width
    blocks = (total + wide - 1) // wide
    straight = total // wide if inner else 0  # blocks that go to y at once
    clear(line, 0, most)  # what lies between rows, and where the last tile hangs over
    for number in range(begin, end, group):
        beside_each = min(group, end - number)  # rows of results
        count = (beside_each - 1) * shift + width
        for n in range(lines):
            for g in range(beside_each):
                image, i = (number + g) // height, (number + g) % height
                row, at_line = i * steps[0] + above + n * apart, g * shift * steps[1] * column
                lay(x, image, row, apart, high, beside, columns, line, at_line, side)
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
                    before, at_before, before_step, target, to, step, length, count, halves, least,
                    past and last and j < straight, 0,
                )  # fmt: skip
        done = straight * wide
        for g in range(beside_each if done < total else 0):
            image, i = (number + g) // height, (number + g) % height
            to = ((image * y.shape[1] + top + i * out_steps[0]) * y.shape[2] + left) * k + done
            for m in range(width):
                at = (g * shift + m) * blocks * wide + done
                copy_row(flat_y, to + m * out_steps[1] * k, edge, at, total - done)
    if past:
        fence()


@kernel
def _multiply_loop(weights, count, arguments):  # type: ignore[no-untyped-def]
    pack_for_all(*weights)
    share_out(_multiply_piece, count, weights + arguments)
