"""Winograd's tiles: how long they are, where they lie, and their patches transformed.

What `winograd` and `winograd_weight` share. Tiles of m × m results cover a picture; each reads a
patch, whose transform Bᵀ d B both multiply. With dilation, the pixels so far apart are a picture by
themselves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minifcn.kernels.compiled import serial
from minifcn.kernels.row import clear, copy
from minifcn.kernels.sandwich import Side, sandwich_of
from minifcn.kernels.taps import Pair
from minifcn.kernels.vector import lanes
from minifcn.kernels.winograd_matrices import STRIDED, TURNED, matrices

# A module global, not a closure: otherwise Numba could not keep the callers' machine code on disk.
_picture = sandwich_of(
    (Side(matrices(2)[2], 2), Side(matrices(4)[2], 4)), (Side(STRIDED[2], 4), Side(TURNED[1], 2))
)


class Tile(NamedTuple):
    """The lengths of a tile along one axis.

    ``n`` frequencies, from a patch of ``size`` pixels, the next of which lies ``step`` further; so
    many ``results``.
    """

    n: int
    size: int
    step: int
    results: int


def tile_of(m: int, stride: int, flipped: bool = False) -> Tile:
    """The tile of F(m×m, 3×3), or of the one of stride 2, which ``flipped`` turns round."""
    if stride == 1:
        return Tile(m + 2, m + 2, m, m)
    return Tile(5, 3, 2, 4) if flipped else Tile(5, 5, 4, 2)


def count_tiles(n: int, out: Pair, dilation: Pair, m: int) -> int:
    """How many tiles there are: with dilation d, the pixels d apart are a picture by themselves."""
    tiles = n
    for size, apart in zip(out, dilation, strict=True):
        own = -(-size // apart)
        tiles *= apart * -(-own // m)
    return tiles


def whole_vectors(channels: int, dtype: np.dtype) -> int:
    """Channels rounded up to whole vectors."""
    return -(-channels // lanes(dtype)) * lanes(dtype)


@serial
def place(tile, p, q, dilation, m):  # type: ignore[no-untyped-def]
    """The picture and the first row and column of the results of a tile."""
    down = ((p + dilation[0] - 1) // dilation[0] + m - 1) // m
    across = ((q + dilation[1] - 1) // dilation[1] + m - 1) // m
    phase, at = tile // (down * across), tile % (down * across)
    image, phase = phase // (dilation[0] * dilation[1]), phase % (dilation[0] * dilation[1])
    row = phase // dilation[1] + at // across * m * dilation[0]
    return image, row, phase % dilation[1] + at % across * m * dilation[1]


@serial
def copied_patch(x, image, top, left, dilation, size, channel, c, edge, deep):  # type: ignore[no-untyped-def]
    """size × size pixels from (top, left) on, zeros outside x, in ``edge`` (size, size, deep)."""
    _, h, w, channels = x.shape
    flat = x.reshape(-1)
    for i in range(size):
        y = top + i * dilation[0]
        for j in range(size):
            z = left + j * dilation[1]
            at = (i * size + j) * deep
            if y < 0 or y >= h or z < 0 or z >= w:
                clear(edge, at, deep)
            else:
                copy(edge, at, flat, ((image * h + y) * w + z) * channels + channel, c)
                clear(edge, at + c, deep - c)


@serial
def transformed(  # type: ignore[no-untyped-def]
    x, image, top, left, dilation, channel, c, deep, vectors, edge, target, to, apart, tile, four,
    strided,
):  # fmt: skip
    """Bᵀ d B of one patch, its frequencies ``apart``: from x where all of it lies inside."""
    _, h, w, channels = x.shape
    n, size, _, _ = tile
    last_row, last_column = top + (size - 1) * dilation[0], left + (size - 1) * dilation[1]
    source, at = x.reshape(-1), ((image * h + top) * w + left) * channels + channel
    row, column = dilation[0] * w * channels, dilation[1] * channels
    if top < 0 or left < 0 or last_row >= h or last_column >= w or c != deep:
        copied_patch(x, image, top, left, dilation, size, channel, c, edge, deep)
        source, at, row, column = edge, 0, size * deep, deep
    _picture(four, strided, source, at, row, column, target, to, n * apart, apart, vectors)
