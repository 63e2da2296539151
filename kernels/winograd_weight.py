"""The gradient of Winograd's convolution for the weights: see `winograd` for the algorithm.

    dg = Gᵀ [ Σ_tiles (Bᵀ d B) ⊙ (A dy Aᵀ) ] G

Each frequency is a matrix product, (C, tiles) with (tiles, K). What takes the time beside its
multiplications is to write patches and sums to some cache and to read them again, and where that
is best depends on the channels:

- **A few**: a thread takes all frequencies of a share of the channels and a part of the tiles. Its
  sums stay in its second-level cache; patches come and go there, a `PIECE` of tiles at a time.
- **Many**: the sums would not fit. All threads transform some hundred tiles into the last cache,
  and then share the frequencies: a tile of the sums stays in the first cache for all of them.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numba import prange

from minifcn.kernels import workspace
from minifcn.kernels.compiled import parallel, serial
from minifcn.kernels.sandwich import Side, sandwich_of, twice
from minifcn.kernels.taps import Pair
from minifcn.kernels.tile import (
    PIECE,
    TALL,
    columns,
    half_vectors,
    lanes,
    strip,
    strip_code,
)
from minifcn.kernels.winograd import (
    copied_patch,
    count_tiles,
    place,
    tile_of,
    transformed,
    whole_vectors,
)
from minifcn.kernels.winograd_matrices import STRIDED, matrices

FEW_FILTERS = 1 << 14  # C·K up to which sums stay in a second-level cache, share by share
SHARE = 64  # channels of such a share
JOBS = 16  # such shares at least, where there are tiles enough
MANY_BYTES = 16 << 20  # transformed patches of all threads, in the last cache

(_A2, _G2, _), (_A4, _G4, _), (_AS, _GS, _) = matrices(2), matrices(4), STRIDED
# Module globals, not closures: otherwise Numba could not keep the callers' machine code on disk.
_gradient = sandwich_of((Side(_A2.T, 2), Side(_A4.T, 4)), twice(Side(_AS.T, 2)))
_kernel = sandwich_of((Side(_G2.T), Side(_G4.T)), twice(Side(_GS.T)))


def weight(
    x: np.ndarray,
    dy: np.ndarray,
    padding: Pair,
    dilation: Pair,
    groups: int,
    m: int,
    stride: int = 1,
) -> np.ndarray:
    """dL/dw by tap (9, C/groups, K) from x (N, H, W, C) and dL/dy = dy (N, P, Q, K)."""
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    compute = _in_shares if c * k <= FEW_FILTERS else _together
    by_tap = compute(x, dy, padding, dilation, groups, m, stride)
    whole = by_tap.shape[2] // groups  # with the columns that fill up a tile
    if k == whole:
        return by_tap
    return by_tap.reshape(9, c, groups, whole)[:, :, :, :k].reshape(9, c, groups * k)


def _in_shares(
    x: np.ndarray, dy: np.ndarray, padding: Pair, dilation: Pair, groups: int, m: int, stride: int
) -> np.ndarray:
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    wide = columns(x.dtype, k)
    whole, line = -(-k // wide) * wide, workspace.LINE // x.itemsize
    tile, strided = tile_of(m, stride), None if stride == 1 else True
    frequencies, threads = tile.n**2, nb.get_num_threads()
    low, left = _shares(whole_vectors(c, x.dtype), lanes(x.dtype)), _shares(whole, wide)
    # so many parts that there is work for many threads; by the shapes alone, as they fix the bits
    parts = JOBS // (groups * len(low) * len(left))
    parts = max(1, min(parts, count_tiles(len(x), dy.shape[1:3], dilation, tile.results) // PIECE))
    most, across = int(max(low[:, 1])), int(max(left[:, 1]))
    # the last tile may hang over its channels, in what it reads and in what it adds to; and one
    # row more: streams a power of two apart would share a cache set
    patches = workspace.empty((threads, frequencies, PIECE * most + TALL + line), x.dtype)
    gradients = workspace.empty((threads, frequencies, PIECE * across + line), x.dtype)
    sums = workspace.empty((threads, frequencies, (most + TALL + 1) * across), x.dtype)
    edges = workspace.empty((threads, frequencies * max(most, across)), x.dtype)
    by_tap = workspace.empty((parts, 9, c, groups * whole), x.dtype)
    _share_loop(
        strip_code(x.dtype), x, dy, patches, gradients, sums, edges, by_tap, padding, dilation,
        groups, low, left, wide, half_vectors(x.dtype, wide), tuple(tile), m == 4, strided,
    )  # fmt: skip
    return by_tap[0]


def _shares(channels: int, least: int) -> np.ndarray:
    """Channels in even shares of at most SHARE, multiples of ``least``: first and how many each."""
    blocks = channels // least
    count = -(-channels // max(SHARE, least))
    edges = [blocks * i // count * least for i in range(count + 1)]
    return np.array([(a, b - a) for a, b in zip(edges, edges[1:])], np.int64)


def _together(
    x: np.ndarray, dy: np.ndarray, padding: Pair, dilation: Pair, groups: int, m: int, stride: int
) -> np.ndarray:
    n, c, k = x.shape[0], x.shape[3] // groups, dy.shape[3] // groups
    wide = columns(x.dtype, k)
    blocks, deep, line = -(-k // wide), whole_vectors(c, x.dtype), workspace.LINE // x.itemsize
    tile, strided = tile_of(m, stride), None if stride == 1 else True
    frequencies = tile.n**2
    chunk = MANY_BYTES // (frequencies * x.itemsize * (deep + blocks * wide))
    chunk = min(max(chunk, 64), 256, count_tiles(n, dy.shape[1:3], dilation, tile.results))
    patches = workspace.empty((frequencies, chunk * deep + TALL + line), x.dtype)
    gradients = workspace.empty((frequencies, blocks * chunk * wide + line), x.dtype)
    sums = workspace.empty((frequencies, (c + TALL + 1) * blocks * wide), x.dtype)
    edges = workspace.empty((nb.get_num_threads(), frequencies * max(deep, blocks * wide)), x.dtype)
    by_tap = np.empty((9, c, groups * blocks * wide), x.dtype)
    for group in range(groups):
        _together_loop(
            strip_code(x.dtype), x, dy, patches, gradients, sums, edges, by_tap, padding, dilation,
            group, groups, chunk, wide, half_vectors(x.dtype, wide), tuple(tile), m == 4, strided,
        )  # fmt: skip
    return by_tap


@serial
def _both_transformed(  # type: ignore[no-untyped-def]
    x, dy, number, t, padding, dilation, channels, columns, edge, patches, apart, gradients,
    between, chunk, wide, lanes, tile, four, strided,
):  # fmt: skip
    """Bᵀ d B and A dy Aᵀ of tile ``number``, as the t-th of a ``chunk``.

    ``channels`` of x are the first one, how many there are, and how many with those that fill up a
    vector; ``columns`` the same of dy, filled up to whole blocks.
    """
    _, p, q, all_k = dy.shape
    _, _, hop, m = tile
    n = tile[0]
    first_c, c, own_c = channels
    first_k, k, own_k = columns
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
    for j in range(own_k // wide):
        _gradient(
            four, strided, source, at + j * wide, down, across, gradients,
            (j * chunk + t) * wide, n * between, between, wide // lanes,
        )  # fmt: skip


@parallel
def _share_loop(  # type: ignore[no-untyped-def]
    code, x, dy, patches, gradients, sums, edges, by_tap, padding, dilation, groups, low, left,
    wide, halves, tile, four, strided,
):  # fmt: skip
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    images, p, q, _ = dy.shape
    n, _, _, m = tile
    down = ((p + dilation[0] - 1) // dilation[0] + m - 1) // m
    across = ((q + dilation[1] - 1) // dilation[1] + m - 1) // m
    tiles = images * dilation[0] * dilation[1] * down * across
    lanes = 2 * wide // halves
    parts, _, _, row = by_tap.shape  # the elements of a row of all output channels
    flat_taps, tap, shares = by_tap.reshape(-1), c * row, len(low) * len(left)
    for job in prange(parts * groups * shares):
        part, group, share = job // shares // groups, job // shares % groups, job % shares
        (first_c, own_c), (first_k, own_k) = low[share // len(left)], left[share % len(left)]
        channels = group * c + first_c, min(own_c, c - first_c), own_c
        columns = group * k + first_k, min(own_k, k - first_k), own_k
        patch = patches[nb.get_thread_id()].reshape(-1)
        gradient = gradients[nb.get_thread_id()].reshape(-1)
        total = sums[nb.get_thread_id()].reshape(-1)
        edge, zeros = edges[nb.get_thread_id()], np.zeros(wide, x.dtype)
        apart, between, step = patches.shape[2], gradients.shape[2], sums.shape[2]
        begin, end = tiles * part // parts, tiles * (part + 1) // parts
        for first in range(begin, max(end, begin + 1), PIECE):
            count = min(PIECE, end - first)
            for t in range(count):
                _both_transformed(
                    x, dy, first + t, t, padding, dilation, channels, columns, edge, patch, apart,
                    gradient, between, PIECE, wide, lanes, tile, four, strided,
                )  # fmt: skip
            for f in range(n * n):
                for j in range(own_k // wide):
                    to = f * step + j * wide
                    before, at_before, before_row = zeros, 0, 0
                    if first > begin:
                        before, at_before, before_row = total, to, own_k
                    strip(
                        code, patch, f * apart, 1, own_c,
                        gradient, f * between + j * PIECE * wide, wide,
                        before, at_before, before_row, total, to, own_k,
                        count, own_c, halves, x.dtype.type(-np.inf), False, 0,
                    )  # fmt: skip
        for e in range(channels[1]):
            to = (part * 9 * c + first_c + e) * row + group * (row // groups) + first_k
            _kernel(
                four, strided, total, e * own_k, n * step, step, flat_taps, to, 3 * tap, tap,
                own_k // lanes,
            )  # fmt: skip
    for at in prange(9 * c):
        whole = flat_taps[at * row : (at + 1) * row]
        for part in range(1, parts):
            start = (part * 9 * c + at) * row
            some = flat_taps[start : start + row]
            for j in range(row):
                whole[j] += some[j]


@parallel
def _together_loop(  # type: ignore[no-untyped-def]
    code, x, dy, patches, gradients, sums, edges, by_tap, padding, dilation, group, groups, chunk,
    wide, halves, tile, four, strided,
):  # fmt: skip
    c, k = x.shape[3] // groups, dy.shape[3] // groups
    images, p, q, _ = dy.shape
    n, _, _, m = tile
    down = ((p + dilation[0] - 1) // dilation[0] + m - 1) // m
    across = ((q + dilation[1] - 1) // dilation[1] + m - 1) // m
    tiles = images * dilation[0] * dilation[1] * down * across
    lanes = 2 * wide // halves
    deep = (c + lanes - 1) // lanes * lanes
    whole_k = by_tap.shape[2] // groups
    channels, columns = (group * c, c, deep), (group * k, k, whole_k)
    flat_sums = sums.reshape(-1)
    flat_patches, flat_gradients = patches.reshape(-1), gradients.reshape(-1)
    apart, between, step = patches.shape[1], gradients.shape[1], sums.shape[1]
    work = 4 * TALL  # rows of a piece of work
    pieces = (c + work - 1) // work
    for block in range((tiles + chunk - 1) // chunk):
        first, count = block * chunk, min(chunk, tiles - block * chunk)
        for t in prange(count):
            _both_transformed(
                x, dy, first + t, t, padding, dilation, channels, columns,
                edges[nb.get_thread_id()], flat_patches, apart, flat_gradients, between, chunk,
                wide, lanes, tile, four, strided,
            )  # fmt: skip
        for piece in prange(n * n * pieces):
            zeros = np.zeros(wide, x.dtype)
            f, low = piece // pieces, piece % pieces * work
            for j in range(whole_k // wide):
                to = f * step + low * whole_k + j * wide
                before, at_before, before_row = zeros, 0, 0
                if block > 0:
                    before, at_before, before_row = flat_sums, to, whole_k
                strip(
                    code, flat_patches, f * apart + low, 1, deep,
                    flat_gradients, f * between + j * chunk * wide, wide,
                    before, at_before, before_row, flat_sums, to, whole_k,
                    count, min(work, c - low), halves, x.dtype.type(-np.inf), False, 0,
                )  # fmt: skip
    flat_taps = by_tap.reshape(-1)
    for e in prange(c):
        to = (e * groups + group) * whole_k
        tap = c * groups * whole_k
        _kernel(
            four, strided, flat_sums, e * whole_k, n * step, step, flat_taps, to, 3 * tap, tap,
            whole_k // lanes,
        )  # fmt: skip
