"""Convolution of any kind as a matrix product: im2col in panels, multiplied by register tiles.

The pixels under the kernel, laid out as one row an output pixel (im2col), make a convolution a
product of (pixels, R·S·C) with (R·S·C, K). The whole column matrix would be R·S times the
activation (1.05 GiB for VGG's conv1_2 at 500×500); so it is made a *panel* at a time: some pixels,
and of their columns those of some taps. A panel stays in the cache of its thread, is multiplied at
once by all weights that meet it, and is overwritten by the next.

A kernel of one pixel and stride 1 needs no panel: the picture is that matrix already, and the tiles
read it where it lies. With few channels `lines` need none either.

Results do not depend on the number of threads: each element is one sum in one order.
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
from minifcn.kernels.row import clear, copy, copy_vector
from minifcn.kernels.stream import fence, past_caches
from minifcn.kernels.strip import strip, strip_code
from minifcn.kernels.taps import Pair, Taps
from minifcn.kernels.tiling import TALL, covered, half_vectors, narrow_columns, rows
from minifcn.kernels.vector import VECTOR_BYTES, lanes

DEPTH = 768  # columns of a panel, about: rows of weights that stay in the second-level cache
PANEL_BYTES = 256 * 1024  # of one thread's second-level cache; the rest is for the weights


def along_taps(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray | None,
    taps: Taps,
    groups: int,
    out: Pair,
    floor: float = -np.inf,
) -> np.ndarray:
    """max(floor, bias + x * w), (N, *out, K).

    x is (N, H, W, C), by_tap (R·S, C/groups, K) and bias (K,) or None; by_tap may be any view,
    a transposed one for instance: it is packed first.
    """
    n, c, k = x.shape[0], by_tap.shape[1], by_tap.shape[2] // groups
    y = workspace.empty((n, *out, groups * k), x.dtype)
    if y.size == 0:
        return y
    plan = _plan(taps, n, x.shape[1:3] == out, groups, c, k, x.dtype, threads())
    packed, done, start, room = plan.rooms.arrays()
    if bias is None:
        start.fill(0)
    else:  # beside each other for merged phases; beyond, columns that nobody reads
        start[:, : plan.columns].reshape(groups, -1, k)[...] = bias.reshape(groups, 1, k)
    past = plan.vectors and past_caches(y, k)
    weights = in_blocks(by_tap, taps.order, packed, done)
    arguments = x, start, y, room, x.dtype.type(floor), past, *plan.settings
    _multiply_loop(weights, len(plan.work), arguments)
    return y


class Plan(NamedTuple):
    """What `along_taps` decides by the shapes alone: once for each layer.

    ``columns`` of a group's matrix, merged phases beside each other, in blocks of whole ``vectors``
    or not; ``rooms`` for the weights, the bias, and the threads; the ``work``, see `_shares`; and
    ``settings`` that `_multiply_piece` is given.
    """

    columns: int
    vectors: bool
    rooms: Rooms
    work: np.ndarray
    settings: tuple[Any, ...]


@lru_cache(maxsize=1024)
def _plan(
    taps: Taps, n: int, same_size: bool, groups: int, c: int, k: int, dtype: Any, threads: int
) -> Plan:
    merged = taps.order.shape[1]
    wide = narrow_columns(dtype, k * merged)
    blocks = -(-k * merged // wide)
    as_it_is = taps.reads_each_pixel() and groups == 1 and same_size
    most = int((taps.phases[:, 5] - taps.phases[:, 4]).max(initial=0))
    depth = max(1, most if as_it_is else min(most, _taps_at_once(c))) * c
    size = max(8 * TALL, PANEL_BYTES // (depth * np.dtype(dtype).itemsize) // TALL * TALL)
    work = _shares(taps, n, groups, k, wide, size, threads)
    size = int(work[:, 3].max()) + 2 * TALL
    panel = workspace.whole_lines(size * (depth + wide), dtype)
    edge = workspace.whole_lines(size * blocks * wide, dtype)
    rooms = Rooms(
        threads,
        *pack.rooms((groups, blocks, len(taps.order), c, wide), dtype),
        (dtype, (groups, blocks * wide)),
        (dtype, (panel + edge,), True),
    )
    settings = (
        strip_code(dtype), taps.offset, taps.run, taps.phases, taps.in_stride, taps.out_stride,
        work, panel, blocks, wide, half_vectors(dtype, wide), taps.out_stride == (1, 1),
        as_it_is, _taps_at_once(c),
    )  # fmt: skip
    return Plan(k * merged, wide % lanes(dtype) == 0, rooms, work, settings)


def _taps_at_once(c: int) -> int:
    """How many taps of ``c`` channels a panel holds."""
    return max(1, DEPTH // max(c, 1))


def _shares(
    taps: Taps, n: int, groups: int, k: int, wide: int, size: int, threads: int
) -> np.ndarray:
    """The work in pieces: (group, phase, first pixel, pixels, first block, last block + 1) each.

    Where pieces of pixels are few, threads share the blocks of columns, or else there are as many
    pieces for each. Every thread gets one run of the list: its share of each phase's pieces, for
    phases differ in their taps.
    """
    pixels = (n * taps.phases[:, 2] * taps.phases[:, 3]).tolist()
    blocks = (-(-k * taps.phases[:, 6] // wide)).tolist()
    counts = [-(-total // size) for total in pixels]
    few = groups * sum(counts) < 4 * threads
    by_columns = few and all(count % threads == 0 for count in blocks)
    if few and not by_columns:
        counts = [-(-count // threads) * threads for count in counts]
    pieces = []
    for share in range(threads if by_columns else 1):
        for g in range(groups):
            for f, (total, count, all_blocks) in enumerate(zip(pixels, counts, blocks)):
                width = all_blocks // threads if by_columns else all_blocks
                even = rows(-(-total // max(1, count)))  # pieces of about one size
                pieces += [
                    (g, f, pixel, min(even, total - pixel), share * width, (share + 1) * width)
                    for pixel in range(0, total, max(1, even))
                ]
    if not by_columns:
        pieces = [piece for thread in range(threads) for piece in pieces[thread::threads]]
    return np.array(pieces, np.int64)


@serial
def fill_panel(x, c0, c, offset, run, first, last, grid, steps, pixel, count, panel, row):  # type: ignore[no-untyped-def]
    """im2col of ``count`` pixels of the grid, from number ``pixel`` on, ``row`` elements apart.

    A row has room for one vector more than its taps: short runs are copied as whole vectors, and
    what is copied too much is overwritten by the next run, or lies in that room.
    """
    _, h, w, channels = x.shape
    (height, width), (step_y, step_x) = grid, steps
    flat = x.reshape(-1)
    joined = c == channels  # neighbouring taps read neighbouring memory
    short = VECTOR_BYTES // x.itemsize
    done = 0
    while done < count:  # one row of the grid after the other
        image, at = (pixel + done) // (height * width), (pixel + done) % (height * width)
        i, j = at // width, at % width
        here = min(width - j, count - done)
        t = first
        while t < last:
            taps = min(run[t], last - t) if joined else 1
            length = taps * c
            to = done * row + (t - first) * c
            y, z = i * step_y + offset[t, 0], j * step_x + offset[t, 1]
            source = ((image * h + y) * w + z) * channels + c0
            for _ in range(here):
                if y < 0 or y >= h:
                    clear(panel, to, length)
                elif z < 0 or z + taps > w:
                    before = min(max(-z, 0), taps)  # taps left of the picture, and inside it
                    inside = max(min(taps, w - z) - before, 0)
                    clear(panel, to, before * c)
                    copy(panel, to + before * c, flat, source + before * c, inside * c)
                    clear(panel, to + (before + inside) * c, (taps - before - inside) * c)
                elif length <= short and source + short <= flat.size:
                    copy_vector(panel, to, flat, source)
                else:
                    copy(panel, to, flat, source, length)
                to += row
                z += step_x
                source += step_x * channels
            t += taps
        done += here


@serial
def _multiply_piece(  # type: ignore[no-untyped-def]
    item, by_tap, turned, order, packed, done, k, side, packs, x, starts, y, room, floor, past,
    code, offset, run, phases, steps, out_steps, work, most, blocks, wide, halves, dense, as_it_is,
    taps_at_once,
):  # fmt: skip
    """One piece of the work, with the bias in ``starts``.

    Of a thread's ``room`` the panel takes ``most`` elements, and edges the rest.
    """
    weights = packed_weights(by_tap, turned, order, packed, done, k, side, packs)
    start, (out_y, out_x) = starts.reshape(-1), out_steps
    all_k, c = y.shape[3], x.shape[3] // (y.shape[3] // k)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    reads = len(offset)
    g, f, pixel, count, low, high = work[item]
    top, left, height, width, first, last, together = phases[f]
    mine = own(room)
    panel, edge = mine[:most], mine[most:]
    inner = dense and covered(count) == count
    first_column, total = low * wide, min(high * wide, together * k) - low * wide
    across = (high - low) * wide  # of a row of edge
    pieces = max(1, (last - first + taps_at_once - 1) // taps_at_once)
    for piece in range(pieces):
        begin = first + (last - first) * piece // pieces
        end = first + (last - first) * (piece + 1) // pieces
        depth = (end - begin) * c
        read = as_it_is and covered(count) == count  # a tile that hangs over would leave x
        if not read:
            fill_panel(
                x, g * c, c, offset, run, begin, end, (height, width), steps, pixel, count,
                panel, depth + wide,
            )  # fmt: skip
        source, at, a_row = (flat_x, pixel * c, c) if read else (panel, 0, depth + wide)
        finishes = piece == pieces - 1
        least = floor if finishes else x.dtype.type(-np.inf)
        for j in range(low, high):
            at_weights = ((g * blocks + j) * reads + begin) * c * wide
            straight = inner and (j + 1) * wide <= k
            target, to, row = edge, (j - low) * wide, across
            if straight:
                target, to, row = flat_y, pixel * all_k + g * k + j * wide, all_k
            before, at_before, before_row = target, to, row
            if piece == 0:
                before, at_before, before_row = start, (g * blocks + j) * wide, 0
            strip(
                code, source, at, a_row, 1, weights, at_weights, wide,
                before, at_before, before_row, target, to, row, depth, count, halves, least,
                past and straight and finishes, 0,
            )  # fmt: skip
    if past:
        fence()
    if inner and total == across:
        return
    image, i, j = pixel // (height * width), pixel // width % height, pixel % width
    for m in range(count):
        to = ((image * y.shape[1] + top + i * out_y) * y.shape[2] + left + j * out_x) * all_k
        j += 1
        if j == width:
            i, j = i + 1, 0
            if i == height:
                image, i = image + 1, 0
        if together == 1:
            done = total // wide * wide if inner else 0  # whole blocks are in y already
            here = to + g * k + first_column + done
            copy(flat_y, here, edge, m * across + done, total - done)
        elif all_k == k:
            copy(flat_y, to + first_column, edge, m * across, total)
        else:  # merged phases of several groups: the channels of one phase at a time
            for phase in range(first_column // k, (first_column + total + k - 1) // k):
                a = max(phase * k, first_column)
                b = min((phase + 1) * k, first_column + total)
                here = to + phase * all_k + g * k + a - phase * k
                copy(flat_y, here, edge, m * across + a - first_column, b - a)


@kernel
def _multiply_loop(weights, count, arguments):  # type: ignore[no-untyped-def]
    pack_for_all(*weights)
    share_out(_multiply_piece, count, weights + arguments)
