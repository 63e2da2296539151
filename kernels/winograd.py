"""Winograd's convolution: F(2×2, 3×3) and F(4×4, 3×3), one of stride 2, larger kernels in parts.

A tile of m × m results reads a patch d of n × n pixels, n = m + 2. With the matrices below,

    Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A

where ⊙ is element by element: n² multiplications instead of 9 m², that is 16 for 36 with m = 2 and
36 for 144 with m = 4. Summed over channels, each of the n² elements ("frequencies") is a matrix
product of (tiles, C) with (C, K), which the register tile does; the transforms are additions and a
few multiplications by constants.

The gradient for w is the same with the roles exchanged: `winograd_weight`.

Where a picture has many tiles, threads share those (`_some_tiles`), and the weights are transformed
first, for all of them. Patches then stay in a thread's second-level cache while all weights pass
by, or, if they are too many for it, those of one frequency do while some blocks of columns pass by.
Where there are few tiles and many weights, writing and reading the transformed weights would take
most of the time: there threads share the columns (`_some_columns`), and each transforms the weights
of a few just before they are multiplied. It does so some channels at a time, whose patches, weights
and products share a second-level cache.

A kernel larger than 3×3 is several of 3×3 beside each other, filled up with zeros: each looks at
the picture three pixels further on, and their products are summed before they are transformed back.

Of stride 2, a tile of 2 × 2 results reads 5 × 5 pixels and takes 25 multiplications for 36; turned
round for the gradient for x, 4 × 4 pixels of it come from 3 × 3 of dy. `winograd_matrices` tells
where the matrices come from.

With dilation d, the pixels d apart are d² pictures by themselves, each with an ordinary
convolution. Groups are so many convolutions beside each other.

Arrays as in `conv2d`; weights come by tap, (R·S, C/groups, K). Infinity in the input becomes NaN in
the results around it (∞ − ∞), here as in every fast convolution; NaN and infinity also reach as far
as the zeros of a kernel in parts.

Sources: Winograd, "Arithmetic Complexity of Computations", SIAM 1980; Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.algorithm import FEW_TILES
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.rooms import Rooms, own
from minifcn.kernels.row import copy
from minifcn.kernels.sandwich import Side, finished_sandwich_of
from minifcn.kernels.stream import fence, past_caches
from minifcn.kernels.strip import strip, strip_code
from minifcn.kernels.taps import Pair
from minifcn.kernels.tiling import PIECE, TALL, blocks, rows
from minifcn.kernels.vector import lanes
from minifcn.kernels.winograd_filters import (
    BAND,
    PART,
    filters_of,
    padded,
    weights_at,
    weights_part,
)
from minifcn.kernels.winograd_matrices import STRIDED, TURNED, matrices
from minifcn.kernels.winograd_tile import (
    count_tiles,
    place,
    tile_of,
    transformed,
    whole_vectors,
)

PATCHES_BYTES = 640 * 1024  # transformed patches of one thread: most of a second-level cache
TOGETHER = 8  # blocks of columns that patches of more than twice that meet together
BESIDE = 32  # pairs of vectors of columns: products a thread keeps between a kernel's parts
DEPTH = 2 * PIECE  # channels at a time then; whole pieces, so that the sums are the same ones


(_A2, _, _), (_A4, _, _) = matrices(2), matrices(4)
(_AS, _, _), (_AT, _) = STRIDED, TURNED
# A module global, not a closure: otherwise Numba could not keep the callers' machine code on disk.
_result = finished_sandwich_of((Side(_A2), Side(_A4)), (Side(_AS), Side(_AT)))


def conv(
    x: np.ndarray,
    by_tap: np.ndarray,
    bias: np.ndarray | None,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
    m: int,
    floor: float = -np.inf,
    flipped: bool = False,
    stride: int = 1,
    kernel: Pair = (3, 3),
    gate: np.ndarray | None = None,
) -> np.ndarray:
    """max(floor, b + x * w), (N, *out, K); with a ``gate`` like it, 0 where that is not positive.

    x is (N, H, W, C), by_tap (R·S, C/groups, K) of a ``kernel`` (R, S), and bias (K,) or None.
    ``padding`` is above and to the left, and may be negative (rows and columns that are left out).
    ``flipped`` takes the taps in the opposite order: the last meets the upper left pixel. With a
    ``stride`` of 2, which serves 3×3 kernels alone, that is the adjoint, a transposed convolution,
    and ``padding`` is cut off its result.
    """
    n, c, k = x.shape[0], by_tap.shape[1], by_tap.shape[2] // groups
    plan = _plan(
        n, c, k, padding, dilation, groups, out, m, flipped, stride, kernel, x.dtype,
        threads(),
    )  # fmt: skip
    y = workspace.empty((n, *out, groups * k), x.dtype)
    filters, turned = padded(by_tap, groups, plan.across)
    weights, start, patches, products, edges, turns = plan.rooms.arrays()
    if bias is None:
        start.fill(0)
    else:  # beyond, columns that nobody reads
        start[:, :k] = bias.reshape(groups, k)
    past = past_caches(y, k)
    gated, gate = gate is not None, y if gate is None else gate
    arguments = (
        x, weights, start, y, gate, patches, products, edges, x.dtype.type(floor), past, gated,
        *plan.settings,
    )  # fmt: skip
    if plan.shares:
        every = *arguments, filters, turned, turns, kernel, plan.owned, flipped
        _columns_loop(plan.chunks * plan.shares, every)
    else:
        of_weights = filters, turned, weights, edges, turns, *plan.of_weights
        _tiles_loop(plan.parts, of_weights, plan.chunks, arguments)
    return y


class Plan(NamedTuple):
    """What `conv` decides by the shapes alone: once for each layer.

    Attributes:
        across: columns of a group, in whole vectors.
        chunks: of tiles, in all groups.
        shares: into which the columns fall, where threads share those; 0 where they share tiles.
        owned: the first block of columns of each share, and the end of the last.
        parts: of the weights, which the threads transform before they share the tiles.
        rooms: for transformed weights, the bias, patches, products, edges, and turned taps.
        of_weights: what `weights_part` is told of them.
        settings: what `_some_tiles` and `_some_columns` are: the code of `strip` and zeros of a
            block's row; padding above and to the left of the first tile, rows and columns of the
            first tiles' results that lie before y, and the dilation; the tiles that cover y, those
            that a thread takes at a time, and the blocks of columns that meet these tiles' patches
            before results are written; C, K, the ends of a group's blocks, and a vector's lanes;
            the tile's lengths, whether it has four results a row, and whether it is `STRIDED`.
    """

    across: int
    chunks: int
    shares: int
    owned: np.ndarray
    parts: int
    rooms: Rooms
    of_weights: tuple[Any, ...]
    settings: tuple[Any, ...]


@lru_cache(maxsize=1024)
def _plan(
    n: int,
    c: int,
    k: int,
    padding: Pair,
    dilation: Pair,
    groups: int,
    out: Pair,
    m: int,
    flipped: bool,
    stride: int,
    kernel: Pair,
    dtype: Any,
    threads: int,
) -> Plan:
    deep, across = whole_vectors(c, dtype), whole_vectors(k, dtype)
    number = np.dtype(dtype).itemsize
    pairs, line = -(-across // (2 * lanes(dtype))), workspace.LINE // number
    tile, cut = tile_of(m, stride, flipped), (0, 0)
    frequencies = tile.n**2
    if stride == 2 and flipped:
        # a tile begins with a pixel that meets tap 1: every other one, from that before the
        # picture on if the padding is even
        cut = 1 - padding[0] % 2, 1 - padding[1] % 2
        padding = (1 - padding[0] + cut[0]) // 2, (1 - padding[1] + cut[1]) // 2
    tiles = count_tiles(n, (out[0] + cut[0], out[1] + cut[1]), dilation, tile.results)
    few = tiles <= FEW_TILES and groups * pairs >= threads
    # weights get one row more than needed: streams a power of two apart would share a cache set
    if max(kernel) > 3 or few:
        chunk = max(1, min(tiles, FEW_TILES))
        if tiles > threads * chunk:
            chunk = _even(tiles, chunk, threads)
        shares = min(pairs, max(threads if tiles < threads * chunk else 1, -(-pairs // BESIDE)))
        ends, owned = blocks(dtype, k, shares)
        wide, together = int(max(np.diff(ends))), int(max(np.diff(owned)))
        deep, weights = min(deep, DEPTH), (frequencies, min(c, DEPTH) + 1, wide)
        for_weights: tuple[Any, ...] = dtype, weights, True
    else:
        ends, owned = blocks(dtype, k)
        wide, shares = int(max(np.diff(ends))), 0
        for_weights = dtype, (groups * frequencies * (c + 1) * across,)
        size = frequencies * number * (deep + wide)
        chunk = max(PATCHES_BYTES // size, min(96, c // 4), TALL)
        chunk = _even(tiles, chunk, threads)
        large = frequencies * number * deep * chunk > 2 * PATCHES_BYTES
        together = min(len(ends) - 1, TOGETHER) if large else 1
    room = rows(chunk) + TALL
    rooms = Rooms(
        threads,
        for_weights,
        (dtype, (groups, across)),
        (dtype, (frequencies, room * deep + line), True),
        (dtype, (frequencies, together * (room * wide + line)), True),
        (dtype, (frequencies * max(deep, wide),), True),
        (dtype, (9 * BAND * wide,), True),
    )
    four, strided = tile.results == 4, None if stride == 1 else True
    of_weights = c, ends, lanes(dtype), tile.n, four, strided, flipped
    settings = (
        strip_code(dtype), np.zeros(wide, dtype), padding, cut, dilation, tiles, chunk, together, c,
        k, ends, lanes(dtype), tuple(tile), four, strided,
    )  # fmt: skip
    chunks, parts = groups * -(-tiles // chunk), groups * (len(ends) - 1) * -(-c // PART)
    return Plan(across, chunks, shares, owned, parts, rooms, of_weights, settings)


def _even(tiles: int, chunk: int, threads: int) -> int:
    """A chunk of about this size that gives every thread the same number of chunks."""
    rounds = max(1, -(-tiles // (chunk * threads)))
    even = -(-tiles // (rounds * threads))
    return max(1, -(-even // 4) * 4)


@serial
def _patches_of(  # type: ignore[no-untyped-def]
    x, first, count, reached, padding, dilation, channel, depth, deep, edge, patch, apart, tile,
    vectors, four, strided,
):  # fmt: skip
    """Bᵀ d B of ``count`` tiles from number ``first`` on, of ``depth`` channels, tile by tile.

    ``deep`` are the channels with those that fill up a vector.
    """
    _, _, step, m = tile
    for t in range(count):
        image, row, column = place(first + t, *reached, dilation, m)
        transformed(
            x, image, row * step // m - padding[0], column * step // m - padding[1], dilation,
            channel, depth, deep, vectors, edge, patch, t * deep, apart, tile, four, strided,
        )  # fmt: skip


@serial
def _write_results(  # type: ignore[no-untyped-def]
    y, gate, product, here, between, first, count, reached, cut, dilation, channel, used, wide,
    vectors, start, at, edge, tile, four, strided, floor, past, gated,
):  # fmt: skip
    """max(floor, Aᵀ M A + start) of ``count`` tiles, into ``used`` channels of y.

    If ``gated``, 0 where the gate is not positive.
    """
    _, p, q, all_k = y.shape
    flat_y, flat_gate, (n, _, _, m) = y.reshape(-1), gate.reshape(-1), tile
    for t in range(count):
        image, row, column = place(first + t, *reached, dilation, m)
        row, column = row - cut[0], column - cut[1]
        last_row, last_column = row + (m - 1) * dilation[0], column + (m - 1) * dilation[1]
        inside = row >= 0 and column >= 0 and last_row < p and last_column < q
        inside = inside and used == wide
        target, to, to_row, to_column = edge, 0, m * wide, wide
        if inside:
            target, to = flat_y, ((image * p + row) * q + column) * all_k + channel
            to_row, to_column = dilation[0] * q * all_k, dilation[1] * all_k
        _result(
            four, strided, product, here + t * wide, n * between, between, target, to, to_row,
            to_column, vectors, start, at, floor, past and inside, flat_gate, to, gated and inside,
        )  # fmt: skip
        if not inside:
            for r in range(m):
                for s in range(m):
                    i, e = row + r * dilation[0], column + s * dilation[1]
                    if 0 <= i < p and 0 <= e < q:
                        to = ((image * p + i) * q + e) * all_k + channel
                        copy(flat_y, to, edge, (r * m + s) * wide, used)
                        if gated:
                            for c in range(to, to + used):
                                flat_y[c] = flat_y[c] if flat_gate[c] > 0 else flat_y.dtype.type(0)


@serial
def _some_tiles(  # type: ignore[no-untyped-def]
    item, x, weights, start, y, gate, patches, products, edges, floor, past, gated, code, zeros,
    padding, cut, dilation, tiles, chunk, together, c, k, ends, lanes, tile, four, strided,
):  # fmt: skip
    """All columns of a chunk of tiles, with weights that were transformed for all."""
    _, p, q, _ = y.shape
    count_blocks, across, reached = len(ends) - 1, ends[-1], (p + cut[0], q + cut[1])
    chunks = (tiles + chunk - 1) // chunk
    group, first = item // chunks, item % chunks * chunk
    count = min(chunk, tiles - first)
    patch, product, edge, starts = own(patches), own(products), own(edges), start.reshape(-1)
    apart, between, n = patch.shape[1], product.shape[1], tile[0]
    flat_patch, flat_product = patch.reshape(-1), product.reshape(-1)
    deep, room = (c + lanes - 1) // lanes * lanes, between // together
    of_group = group * (c + 1) * n * n * across
    _patches_of(
        x, first, count, reached, padding, dilation, group * c, c, deep, edge, flat_patch, apart,
        tile, deep // lanes, four, strided,
    )  # fmt: skip
    for j in range(count_blocks):
        if j % together == 0:
            beside = min(together, count_blocks - j)
            for f in range(n * n):
                for e in range(beside):
                    wide = ends[j + e + 1] - ends[j + e]
                    at = weights_at(ends, j + e, f, n, c)
                    met_next = (j + e + 1, f) if e < beside - 1 else (j, f + 1)
                    after = weights_at(ends, *met_next, n, c) - at
                    strip(
                        code, flat_patch, f * apart, deep, 1,
                        weights, of_group + at, wide, zeros, 0, 0,
                        flat_product, f * between + e * room, wide, c, count, 2 * wide // lanes,
                        x.dtype.type(-np.inf), False, after,
                    )  # fmt: skip
        low, wide = ends[j], ends[j + 1] - ends[j]
        _write_results(
            y, gate, flat_product, j % together * room, between, first, count, reached, cut,
            dilation, group * k + low, min(wide, k - low), wide, wide // lanes, starts,
            group * across + low, edge, tile, four, strided, floor, past, gated,
        )  # fmt: skip
    if past:
        fence()


@serial
def _some_columns(  # type: ignore[no-untyped-def]
    item, x, weights, start, y, gate, patches, products, edges, floor, past, gated, code, zeros,
    padding, cut, dilation, tiles, chunk, together, c, k, ends, lanes, tile, four, strided, by_tap,
    turned, turns, kernel, owned, flipped,
):  # fmt: skip
    """Some columns of a chunk of tiles: weights are transformed on the way, `DEPTH` channels."""
    _, p, q, all_k = y.shape
    groups, across, reached, n = all_k // k, ends[-1], (p + cut[0], q + cut[1]), tile[0]
    chunks = (tiles + chunk - 1) // chunk
    shares = len(owned) - 1
    share, group = item % shares, item // shares // chunks
    first = item // shares % chunks * chunk
    count = min(chunk, tiles - first)
    patch, product, edge, starts = own(patches), own(products), own(edges), start.reshape(-1)
    apart, between = patch.shape[1], product.shape[1]
    flat_patch, flat_product = patch.reshape(-1), product.reshape(-1)
    low_block, high_block = owned[share], owned[share + 1]
    room = between // together  # for the products of a block
    weight = own(weights)  # of each frequency, so many channels and one more
    flat_weight, step = weight.reshape(-1), weight.shape[1] * weight.shape[2]
    parts, depths = ((kernel[0] + 2) // 3, (kernel[1] + 2) // 3), (c + DEPTH - 1) // DEPTH
    for piece in range(parts[0] * parts[1] * depths):
        part_row, part_column = piece // depths // parts[1], piece // depths % parts[1]
        low = piece % depths * DEPTH
        depth = min(DEPTH, c - low)
        deep = (depth + lanes - 1) // lanes * lanes
        above = padding[0] - 3 * part_row * dilation[0]
        beside = padding[1] - 3 * part_column * dilation[1]
        _patches_of(
            x, first, count, reached, (above, beside), dilation, group * c + low, depth, deep,
            edge, flat_patch, apart, tile, deep // lanes, four, strided,
        )  # fmt: skip
        for j in range(low_block, high_block):
            here, wide = (j - low_block) * room, ends[j + 1] - ends[j]
            filters_of(
                by_tap, turned, c, groups * across, low, depth, group * across + ends[j], kernel,
                part_row, part_column, edge, own(turns), flat_weight, np.int64(0), n, step,
                wide // lanes, wide, four, strided, flipped,
            )  # fmt: skip
            for f in range(n * n):
                before, at_before, before_row = zeros, 0, 0
                if piece > 0:
                    before, at_before, before_row = flat_product, f * between + here, wide
                strip(
                    code, flat_patch, f * apart, deep, 1, flat_weight, f * step, wide,
                    before, at_before, before_row, flat_product, f * between + here, wide,
                    depth, count, 2 * wide // lanes, x.dtype.type(-np.inf), False, 0,
                )  # fmt: skip
    for j in range(low_block, high_block):
        wide = ends[j + 1] - ends[j]
        _write_results(
            y, gate, flat_product, (j - low_block) * room, between, first, count, reached, cut,
            dilation, group * k + ends[j], min(wide, k - ends[j]), wide, wide // lanes, starts,
            group * across + ends[j], edge, tile, four, strided, floor, past, gated,
        )  # fmt: skip
    if past:
        fence()


@kernel
def _tiles_loop(parts, of_weights, chunks, arguments):  # type: ignore[no-untyped-def]
    share_out(weights_part, parts, of_weights)
    share_out(_some_tiles, chunks, arguments)


@kernel
def _columns_loop(count, arguments):  # type: ignore[no-untyped-def]
    share_out(_some_columns, count, arguments)
