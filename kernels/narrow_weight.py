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
from typing import Any

import numba as nb
import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.compiled import serial
from minifcn.kernels.jobs import share_out
from minifcn.kernels.parts import add_parts
from minifcn.kernels.row import copy
from minifcn.kernels.taps import Taps
from minifcn.kernels.tile import columns, half_vectors, lanes, rows, strip, strip_code
from minifcn.kernels.turn import turn

PIXELS = 256  # whose x stays in the second-level cache while all filters meet it
SHARE = 256  # channels of a piece of work
PARTS = 16  # of many pixels, …
LEAST = 1024  # … of so many or more


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
    parts, work = _shares(dy.size // k, c)
    wide, height = 2 * lanes(x.dtype), rows(k)
    sums, by_tap = (workspace.empty(shape, x.dtype) for shape in ((parts, height, c), (1, c, k)))
    over = -(-height // k) - 1  # pixels at the end, from which a tile that hangs over reads beyond
    edges = np.zeros((nb.get_num_threads(), over, height), x.dtype)
    bias_sums = np.zeros((parts, k if bias else 0))
    arguments = (
        strip_code(x.dtype), x, dy, sums, bias_sums, np.zeros(wide, x.dtype), edges, work, wide,
        half_vectors(x.dtype, wide),
    )  # fmt: skip
    _weight_loop(len(work), arguments, sums.reshape(-1), parts, c, k, by_tap, lanes(x.dtype))
    return by_tap, bias_sums.sum(axis=0).astype(x.dtype) if bias else None


@lru_cache(maxsize=256)
def _shares(pixels: int, c: int) -> tuple[int, np.ndarray]:
    """How many parts, and the work: (part, first channel, last + 1, first pixel, last + 1) each."""
    shares = -(-c // SHARE)
    parts = max(1, min(PARTS // shares, pixels // LEAST))
    work = [
        (part, low, min(low + SHARE, c), pixels * part // parts, pixels * (part + 1) // parts)
        for part in range(parts)
        for low in range(0, c, SHARE)
    ]
    return parts, np.array(work, np.int64)


@serial
def _weight_piece(item, code, x, dy, sums, bias_sums, zeros, edges, work, wide, halves):  # type: ignore[no-untyped-def]
    flat_x, flat_dy, flat_sums = x.reshape(-1), dy.reshape(-1), sums.reshape(-1)
    _, height, c = sums.shape
    k, nothing = dy.shape[3], x.dtype.type(-np.inf)
    over, pixels = edges.shape[1], dy.size // k
    edge = edges[nb.get_thread_id()].reshape(-1)
    part, low, high, begin, end = work[item]
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
        if low == 0 and bias_sums.size:
            own = bias_sums[part]
            for m in range(first, first + count):
                for e in range(k):
                    own[e] += flat_dy[m * k + e]


@serial
def _weight_loop(count, arguments, sums, parts, c, k, by_tap, side):  # type: ignore[no-untyped-def]
    share_out(_weight_piece, count, arguments)
    if parts > 1:
        add_parts(sums, parts, sums)
    nowhere = np.int64(0)
    turn(sums, nowhere, c, k, c, by_tap.reshape(-1), nowhere, k, side)
