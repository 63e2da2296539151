"""The gradient of Winograd's convolution for the weights: see `winograd` for the algorithm.

    dg = Gᵀ [ Σ_tiles (Bᵀ d B) ⊙ (A dy Aᵀ) ] G

Each frequency is a matrix product, (C, tiles) with (tiles, K). What takes the time beside its
multiplications is to write patches and sums to some cache and to read them again, and where that
is best depends on the channels:

- **A few**, or a `PIECE` of tiles in all: a thread takes all frequencies of a share of the channels
  and a part of the tiles. Its sums stay in its second-level cache; patches come and go there.
- **Many**: the sums would not fit. All threads transform some hundred tiles into the last cache,
  and then share the frequencies: a tile of the sums stays in the first cache for all of them.

One loop does both. It goes through a list of jobs, made by the shapes alone; see `Work`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.parts import add_bias, add_parts
from minifcn.kernels.rooms import Rooms, own
from minifcn.kernels.sandwich import Side, sandwich_of, summed_sandwich_of, twice
from minifcn.kernels.strip import strip, strip_code
from minifcn.kernels.taps import Pair
from minifcn.kernels.tiling import MOST, PIECE, TALL, block
from minifcn.kernels.vector import lanes
from minifcn.kernels.winograd_matrices import STRIDED, matrices
from minifcn.kernels.winograd_tile import (
    copied_patch,
    count_tiles,
    place,
    tile_of,
    transformed,
    whole_vectors,
)

FEW_FILTERS = 1 << 13  # C·K up to which sums stay in a second-level cache, share by share
SHARE = 64  # channels of such a share
JOBS = 16  # such shares, about, where there are tiles enough: work for so many threads
FEW = 4  # shares, about, where each part has few tiles: its sums are transformed and added, too
LEAST = 4 * PIECE  # tiles of a part where there are more
MANY_BYTES = 16 << 20  # transformed patches of all threads, in the last cache
TOGETHER = 400  # tiles of them, about, at most
ROWS = 64  # channels of a frequency that a thread multiplies at a time
PIECES = 32  # of a round in which threads share tiles or channels

(_A2, _G2, _), (_A4, _G4, _), (_AS, _GS, _) = matrices(2), matrices(4), STRIDED
# Module globals, not closures: otherwise Numba could not keep the callers' machine code on disk.
_gradient = summed_sandwich_of((Side(_A2.T, 2), Side(_A4.T, 4)), twice(Side(_AS.T, 2)))
_kernel = sandwich_of((Side(_G2.T), Side(_G4.T)), twice(Side(_GS.T)))


def weight(
    x: np.ndarray,
    dy: np.ndarray,
    padding: Pair,
    dilation: Pair,
    groups: int,
    m: int,
    stride: int = 1,
    bias: bool = False,
) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dw by tap (9, C/groups, K) from x (N, H, W, C) and dL/dy = dy (N, P, Q, K).

    With ``bias`` also the sums of dy over all pixels (K,): each tile's is a by-product of its
    transform, in dy's precision, and float64 adds up the tiles'.
    """
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    plan = _plan(
        len(x), dy.shape[1:3], c, k, padding, dilation, groups, m, stride, x.dtype,
        threads(),
    )  # fmt: skip
    by_tap = workspace.empty((plan.parts, 9, c, groups * plan.across), x.dtype)
    total = by_tap[0] if plan.parts == 1 else workspace.empty(by_tap.shape[1:], x.dtype)
    db = np.empty(groups * k if bias else 0, x.dtype)
    bias_sums, *rooms = plan.rooms.arrays()
    arguments = x, dy, by_tap, bias_sums, *rooms, bias, *plan.settings
    ends = by_tap.reshape(-1), plan.parts, total.reshape(-1), bias_sums, db
    _weight_loop(plan.rounds, arguments, *ends)
    if k != plan.across:
        total = total.reshape(9, c, groups, plan.across)[:, :, :, :k].reshape(9, c, groups * k)
    return total, db if bias else None


class Plan(NamedTuple):
    """What `weight` decides by the shapes alone: once for each layer.

    Attributes:
        across: K filled up to whole vectors.
        parts: into which all tiles fall; each gives a gradient, and they are added up in the end.
        rounds: how the jobs follow one another: those of a round at the same time, (rounds, 2).
        rooms: for sums for the bias, patches, gradients, sums, and edges.
        settings: what `_weight_job` is told: padding, dilation and groups; the jobs, the channels
            and the filters of `Work`, whether one round is all, and its chunk; zeros of a block's
            row, and a vector's lanes; the code of `strip`; the tile's lengths, whether it has four
            results a row, and whether it is `STRIDED`.
    """

    across: int
    parts: int
    rounds: np.ndarray
    rooms: Rooms
    settings: tuple[Any, ...]


@lru_cache(maxsize=256)  # some are long
def _plan(
    n: int,
    out: Pair,
    c: int,
    k: int,
    padding: Pair,
    dilation: Pair,
    groups: int,
    m: int,
    stride: int,
    dtype: Any,
    threads: int,
) -> Plan:
    side, number = lanes(dtype), np.dtype(dtype).itemsize
    whole, line = whole_vectors(k, dtype), workspace.LINE // number
    tile = tile_of(m, stride)
    frequencies = tile.n**2
    tiles = count_tiles(n, out, dilation, tile.results)
    if c * k <= FEW_FILTERS or tiles <= PIECE:
        work, apart = _in_shares(tiles, c, whole, groups, frequencies, side), True
    else:
        pair = frequencies * number * (whole_vectors(c, dtype) + whole)
        rounds = -(-tiles // min(max(MANY_BYTES // pair, 64), TOGETHER))
        chunk = -(-tiles // (rounds * PIECE)) * PIECE  # whole pieces
        work, apart = _together(tiles, c, whole, groups, frequencies, side, chunk), False
    most, across = work.most, work.across
    # the last tile may hang over its channels, in what it reads and in what it adds to; and one
    # row more: streams a power of two apart would share a cache set
    rooms = Rooms(
        threads,
        (np.float64, (work.bias_sums, groups, whole)),
        (dtype, (frequencies, work.chunk * most + TALL + line), apart),
        (dtype, (frequencies, work.chunk * across + line), apart),
        (dtype, (frequencies, (most + TALL + 1) * across), apart),
        (dtype, (frequencies * max(most, across),), True),
    )
    settings = (
        padding, dilation, groups, work.jobs, work.channels, work.filters, len(work.rounds) == 1,
        work.chunk, np.zeros(MOST * side, dtype), side, strip_code(dtype),
        tuple(tile), m == 4, None if stride == 1 else True,
    )  # fmt: skip
    return Plan(whole, work.parts, work.rounds, rooms, settings)


class Work(NamedTuple):
    """Who does what.

    Attributes:
        jobs: each takes the tiles of a ``chunk`` after the other from ``begin`` to ``end``,
            transforms some of a chunk's tiles, multiplies some frequencies of some channels, and
            makes the weights' gradient of some channels of the sums: a row of (part, group, number
            of its share in ``channels`` and in ``filters``, begin, end, then first and last + 1 of
            tiles in the chunk, of frequencies, of channels multiplied, of channels made). The part
            says to which of several sums it adds: for the weights, or where it transforms tiles
            alone, for the bias.
        rounds: how the jobs follow one another: those of a round at the same time, (rounds, 2).
        channels: shares of C: first, and how many with those that fill up a vector.
        filters: shares of K, filled up to whole vectors.
        most: channels of the largest share.
        across: filters of the largest share.
        chunk: tiles that are transformed before they are multiplied.
        parts: into which all tiles fall; each gives a gradient, and they are added up in the end.
        bias_sums: how many sums for the bias there are, to be added up: one for each part or, where
            all threads share a round's tiles, for each piece of them.
    """

    jobs: np.ndarray
    rounds: np.ndarray
    channels: np.ndarray
    filters: np.ndarray
    most: int
    across: int
    chunk: int
    parts: int
    bias_sums: int


def _work(
    jobs: list[tuple[int, ...]],
    rounds: list[Pair],
    channels: list[Pair],
    filters: list[Pair],
    chunk: int,
    parts: int,
    bias_sums: int,
) -> Work:
    most, across = (max(count for _, count in shares) for shares in (channels, filters))
    tables = (np.array(table, np.int64) for table in (jobs, rounds, channels, filters))
    return Work(*tables, most, across, chunk, parts, bias_sums)


def _in_shares(tiles: int, c: int, whole: int, groups: int, frequencies: int, side: int) -> Work:
    """Each job is a share of the channels, of one part of the tiles, from beginning to end."""
    channels, filters = _shares(-(-c // side) * side, side), _shares(whole, side)
    # so many parts that there is work for many threads; on small maps, at least for some
    shares = groups * len(channels) * len(filters)
    parts = min(JOBS // shares, max(tiles // LEAST, min(FEW // shares, tiles // PIECE)))
    parts = max(1, parts)
    jobs = [
        (part, group, i, j, begin, end,
         0, PIECE, 0, frequencies, 0, own, 0, min(own, c - first))
        for part, (begin, end) in enumerate(_parts(tiles, parts))
        for group in range(groups)
        for i, (first, own) in enumerate(channels)
        for j in range(len(filters))
    ]  # fmt: skip
    return _work(jobs, [(0, len(jobs))], channels, filters, PIECE, parts, parts)


def _parts(tiles: int, count: int) -> list[Pair]:
    """The first of the tiles and the last + 1 of each part.

    Of many parts, the last of each half of them are shorter: a thread without work takes from the
    end of another's, and both are then done at nearly the same time.
    """
    lengths = [(3, 3, 2, 1)[part * 8 // count % 4] if count >= 8 else 1 for part in range(count)]
    ends = [tiles * sum(lengths[:part]) // sum(lengths) for part in range(count + 1)]
    return list(zip(ends, ends[1:]))


def _together(
    tiles: int, c: int, whole: int, groups: int, frequencies: int, side: int, chunk: int
) -> Work:
    """Rounds: all threads transform a chunk, then all multiply it, … then all make the gradient."""
    channels = [(0, -(-c // side) * side)]
    jobs: list[tuple[int, ...]] = []
    rounds = []

    def a_round(
        group: int, begin: int, end: int, works: list[tuple[int, ...]], apart: bool = False
    ) -> None:
        rounds.append((len(jobs), len(jobs) + len(works)))
        for part, work in enumerate(works):
            jobs.append((part if apart else 0, group, 0, 0, begin, end, *work))

    nothing = 0, 0
    for group in range(groups):
        for begin in range(0, max(tiles, 1), chunk):
            end = min(begin + chunk, tiles)
            a_round(group, begin, end, [
                (*some, *nothing, *nothing, *nothing) for some in _pieces(end - begin)
            ], apart=True)  # fmt: skip
            a_round(group, begin, end, [
                (*nothing, f, f + 1, low, min(low + ROWS, c), *nothing)
                for f in range(frequencies)
                for low in range(0, c, ROWS)
            ])  # fmt: skip
        made = [(*nothing, *nothing, *nothing, *some) for some in _pieces(c)]
        a_round(group, 0, 0, made)
    return _work(jobs, rounds, channels, [(0, whole)], chunk, 1, len(_pieces(min(chunk, tiles))))


def _shares(channels: int, least: int) -> list[Pair]:
    """Channels in even shares of at most SHARE, multiples of ``least``: first and how many each."""
    blocks = channels // least
    count = -(-channels // max(SHARE, least))
    edges = [blocks * i // count * least for i in range(count + 1)]
    return [(a, b - a) for a, b in zip(edges, edges[1:])]


def _pieces(count: int) -> list[Pair]:
    """From 0 to ``count``: first and last + 1 of each of some pieces."""
    edges = [count * i // PIECES for i in range(PIECES + 1)]
    return [(a, b) for a, b in zip(edges, edges[1:]) if a < b]


@serial
def _both_transformed(  # type: ignore[no-untyped-def]
    x, dy, number, t, padding, dilation, channels, filters, edge, patches, apart, gradients,
    between, chunk, lanes, tile, four, strided,
):  # fmt: skip
    """Bᵀ d B and A dy Aᵀ of tile ``number``, as the t-th of a ``chunk``.

    ``channels`` of x are the first one, how many there are, and how many with those that fill up a
    vector; ``filters`` the same of dy. The sums of dy are left in
    ``edge``, behind the place of a tile.
    """
    _, p, q, all_k = dy.shape
    n, _, hop, m = tile
    first_c, c, own_c = channels
    first_k, k, own_k = filters
    image, row, column = place(number, p, q, dilation, m)
    top, left = row * hop // m - padding[0], column * hop // m - padding[1]
    transformed(
        x, image, top, left, dilation, first_c, c, own_c, own_c // lanes, edge, patches, t * own_c,
        apart, tile, four, strided,
    )  # fmt: skip
    source, at = dy.reshape(-1), ((image * p + row) * q + column) * all_k + first_k
    down, across = dilation[0] * q * all_k, dilation[1] * all_k
    inside = row + (m - 1) * dilation[0] < p and column + (m - 1) * dilation[1] < q
    if not inside or k != own_k:
        copied_patch(dy, image, row, column, dilation, m, first_k, k, edge, own_k)
        source, at, down, across = edge, 0, m * own_k, own_k
    low = 0
    while low < own_k:
        wide = block(own_k - low, lanes)
        _gradient(
            four, strided, source, at + low, down, across, gradients, low * chunk + t * wide,
            n * between, between, wide // lanes, edge, m * m * own_k + low,
        )  # fmt: skip
        low += wide


@serial
def _met_next(  # type: ignore[no-untyped-def]
    f, channel, column, wide, own_c, own_k, chunk, apart, between, patches_from
):
    """How far behind a block of frequency f's gradients lies what `strip` shall fetch meanwhile.

    The first channels meet each block for the first time, so that is the block after it, or the
    next frequency's first. Those after them find the blocks in the cache; so each `ROWS` of them
    fetch as much as these hold of the next frequency's patches; patches begin ``patches_from``
    elements behind the gradients.
    """
    if channel == 0:
        return wide * chunk if column + wide < own_k else between - column * chunk
    patches = ((channel // ROWS - 1) * own_k + column) * chunk
    if patches >= own_c * chunk:
        return 0
    return patches_from + (f + 1) * apart + patches - (f * between + column * chunk)


@serial
def _weight_job(  # type: ignore[no-untyped-def]
    number, first_job, x, dy, by_tap, bias_sums, patches, gradients, sums, edges, bias, padding,
    dilation, groups, jobs, all_channels, all_filters, complete, chunk, zeros, lanes, code,
    tile, four, strided,
):  # fmt: skip
    c, k, n, m = x.shape[3] // groups, dy.shape[3] // groups, tile[0], tile[3]
    row = by_tap.shape[3]  # the elements of all output channels
    flat_taps, tap = by_tap.reshape(-1), c * by_tap.shape[3]
    all_patches, all_gradients, all_sums, edge = own(patches), own(gradients), own(sums), own(edges)
    patch, gradient = all_patches.reshape(-1), all_gradients.reshape(-1)
    total = all_sums.reshape(-1)
    apart, between, step = all_patches.shape[1], all_gradients.shape[1], all_sums.shape[1]
    bytes_from = np.int64(patch.ctypes.data) - np.int64(gradient.ctypes.data)
    patches_from = bytes_from // patch.itemsize  # elements
    job = jobs[first_job + number]
    part, group, i, j, begin, end = job[:6]
    first_t, last_t, first_f, last_f, first_c, last_c, first_e, last_e = job[6:]
    low, own_c = all_channels[i]
    left, own_k = all_filters[j]
    channels = group * c + low, min(own_c, c - low), own_c
    filters = group * k + left, min(own_k, k - left), own_k
    bias = bias and low == 0 and last_t > 0  # once for all shares of the channels
    own_sums = bias_sums[part if bias else 0, group, left : left + own_k]
    if bias and (begin == 0 or complete):
        own_sums[:] = 0
    for first in range(begin, max(end, begin + 1), chunk):
        count = min(chunk, end - first)
        for t in range(first_t, min(last_t, count)):
            _both_transformed(
                x, dy, first + t, t, padding, dilation, channels, filters, edge, patch,
                apart, gradient, between, chunk, lanes, tile, four, strided,
            )  # fmt: skip
            if bias:
                for e in range(own_k):
                    own_sums[e] += edge[m * m * own_k + e]
        fresh = first == begin and (begin == 0 or complete)
        for f in range(first_f, last_f):
            column = 0
            while column < own_k:
                wide = block(own_k - column, lanes)
                to = f * step + first_c * own_k + column
                before, at_before, before_row = total, to, own_k
                if fresh:
                    before, at_before, before_row = zeros, 0, 0
                after = 0  # a share has all in its cache
                if not complete:
                    after = _met_next(
                        f, first_c, column, wide, own_c, own_k, chunk, apart, between, patches_from
                    )
                strip(
                    code, patch, f * apart + first_c, 1, own_c,
                    gradient, f * between + column * chunk, wide,
                    before, at_before, before_row, total, to, own_k,
                    count, last_c - first_c, 2 * wide // lanes, x.dtype.type(-np.inf), False,
                    after,
                )  # fmt: skip
                column += wide
    for e in range(first_e, last_e):
        to = (part * 9 * c + low + e) * row + group * (row // groups) + left
        _kernel(
            four, strided, total, e * own_k, n * step, step, flat_taps, to, 3 * tap, tap,
            own_k // lanes,
        )  # fmt: skip


@kernel
def _weight_loop(rounds, arguments, by_tap, parts, total, bias_sums, db):  # type: ignore[no-untyped-def]
    for first, last in rounds:
        share_out(_weight_job, last - first, (first,) + arguments)
    if parts > 1:
        add_parts(by_tap, parts, total)
    add_bias(bias_sums, db)
