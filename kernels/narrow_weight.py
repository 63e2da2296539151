"""The weight gradient of a narrow 1×1 layer: its filters are the rows of the tile.

    dw[c, k] = Σ_m x[m, c] · dy[m, k]        m runs over all pixels

A tile is two vectors wide, so 21 filters as columns leave a third of it idle. But tiles make every
multiple of 4 in height. So here the filters are the rows and the channels the columns, in which a
tile finds x as it lies: dwᵀ = dyᵀ · x takes 24 rows for those 21. What comes out is turned about.

Threads share the channels and, of many pixels, some fixed parts, which are added in order at the
end: the bits do not depend on the number of threads.
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
from minifcn.kernels.row import copy
from minifcn.kernels.strip import strip, strip_code
from minifcn.kernels.taps import Taps
from minifcn.kernels.tiling import columns, half_vectors, rows
from minifcn.kernels.turn import turn
from minifcn.kernels.vector import lanes

PIXELS = 256  # whose x stays in the second-level cache while all filters meet it
SHARE = 64  # channels of a piece of work
PARTS = 16  # of many pixels, …
LEAST = 1024  # … of so many or more


@lru_cache(maxsize=256)
def serves(taps: Taps, c: int, k: int, groups: int, dtype: Any) -> bool:
    """Whether k filters fill the tiles better as rows, and c channels whole ones as columns."""
    wide = columns(dtype, k)
    narrow = rows(k) < -(-k // wide) * wide and c % (2 * lanes(dtype)) == 0
    return groups == 1 and c > 0 and narrow and taps.reads_each_pixel()


def weight(
    x: np.ndarray, dy: np.ndarray, bias: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dw (1, C, K) from x (N, H, W, C) and dL/dy (N, H, W, K); with ``bias`` dL/db (K,) too."""
    c, k = x.shape[3], dy.shape[3]
    plan = _plan(dy.size // k, c, k, x.dtype, threads())
    sums, edges, bias_sums = plan.rooms.arrays()
    by_tap, db = workspace.empty((1, c, k), x.dtype), np.empty(k if bias else 0, x.dtype)
    arguments = x, dy, sums, edges, bias_sums, bias, *plan.settings
    flat, side = sums.reshape(-1), lanes(x.dtype)
    _weight_loop(len(plan.work), arguments, flat, bias_sums, c, k, by_tap, db, side)
    return by_tap, db if bias else None


class Plan(NamedTuple):
    """What `weight` decides by the shapes alone: once for each layer.

    ``rooms`` for the sums of the parts, for edges and for the parts' sums for the bias; the
    ``work``: (part, first channel, last + 1, first pixel, last + 1) each; ``settings`` that
    `_weight_piece` is given: the work, zeros of a tile's row, the code of `strip`, a tile's columns
    and their halves of vectors.
    """

    rooms: Rooms
    work: np.ndarray
    settings: tuple[Any, ...]


@lru_cache(maxsize=256)
def _plan(pixels: int, c: int, k: int, dtype: Any, threads: int) -> Plan:
    shares = -(-c // SHARE)
    parts = max(1, min(PARTS // shares, pixels // LEAST))
    work = [
        (part, low, min(low + SHARE, c), pixels * part // parts, pixels * (part + 1) // parts)
        for part in range(parts)
        for low in range(0, c, SHARE)
    ]
    height, wide = rows(k), 2 * lanes(dtype)
    over = -(-height // k) - 1  # pixels at the end, from which a tile that hangs over reads beyond
    rooms = Rooms(
        threads,
        (dtype, (parts, height, c)),
        (dtype, (max(1, over * height),), True),
        (np.float64, (parts, 1, workspace.whole_lines(k, np.float64))),
    )
    table, zeros = np.array(work, np.int64), np.zeros(wide, dtype)
    settings = table, zeros, strip_code(dtype), wide, half_vectors(dtype, wide)
    return Plan(rooms, table, settings)


@serial
def _weight_piece(item, x, dy, sums, edges, bias_sums, bias, work, zeros, code, wide, halves):  # type: ignore[no-untyped-def]
    flat_x, flat_dy, flat_sums = x.reshape(-1), dy.reshape(-1), sums.reshape(-1)
    _, height, c = sums.shape
    k, nothing = dy.shape[3], x.dtype.type(-np.inf)
    edge, pixels = own(edges), dy.size // k
    over = len(edge) // height
    part, low, high, begin, end = work[item]
    if low == 0 and bias:
        bias_sums[part, 0, :k] = 0
    for first in range(begin, end, PIXELS):
        count = min(PIXELS, end - first)
        # a tile that hangs over reads of the next pixels; at the end there are none
        whole = min(max(pixels - over - first, 0), count)
        for m in range(count - whole):
            copy(edge, m * height, flat_dy, (first + whole + m) * k, k)
        for j in range(low, high, wide):
            to = part * height * c + j
            before, at_before, before_row = flat_sums, to, c
            if first == begin:
                before, at_before, before_row = zeros, 0, 0
            strip(
                code, flat_dy, first * k, 1, k, flat_x, first * c + j, c,
                before, at_before, before_row, flat_sums, to, c,
                whole, k, halves, nothing, False, 0,
            )  # fmt: skip
            if whole < count:
                strip(
                    code, edge, 0, 1, height, flat_x, (first + whole) * c + j, c,
                    flat_sums, to, c, flat_sums, to, c, count - whole, k, halves, nothing, False, 0,
                )  # fmt: skip
        if low == 0 and bias:
            of_bias = bias_sums[part, 0]
            for m in range(first, first + count):
                for e in range(k):
                    of_bias[e] += flat_dy[m * k + e]


@kernel
def _weight_loop(count, arguments, sums, bias_sums, c, k, by_tap, db, side):  # type: ignore[no-untyped-def]
    share_out(_weight_piece, count, arguments)
    nowhere = np.int64(0)
    if len(bias_sums) > 1:
        add_parts(sums, len(bias_sums), sums)
    turn(sums, nowhere, c, k, c, by_tap.reshape(-1), nowhere, k, side)
    add_bias(bias_sums, db)
