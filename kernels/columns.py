"""The grids of the CUDA loops over rows of pixels (M, C): beside `columns.cuh`, which says how."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minifcn.kernels.taps import Pair

THREADS = 256
STEPS = 20  # tiles that a block takes at least, so that a channel's own numbers are read seldom
PARTS = 512  # parts of the rows that are summed apart, at most


class Columns(NamedTuple):
    """How a matrix is shared out.

    Attributes:
        rows: whole rows of a tile.
        across: tiles side by side, 1 unless the matrix is wider than a tile.
        tiles: tiles one below the other.
    """

    rows: int
    across: int
    tiles: int

    @property
    def grid(self) -> Pair:
        """Blocks for a loop that takes each element by itself."""
        return min(-(-self.tiles // STEPS), 1 << 14), self.across

    @property
    def parts(self) -> int:
        """How many parts the sums have: by the shape alone, so that it fixes every bit."""
        share = -(-self.tiles // min(PARTS, -(-self.tiles // STEPS)))
        return -(-self.tiles // share)


def columns(shape: Pair, dtype: np.dtype) -> Columns:
    """The tiles of a matrix (M, C): a multiple of 8 rows where so many fit, for whole sectors."""
    m, c = shape
    tile = THREADS * 16 // dtype.itemsize
    fitting = max(tile // c, 1)
    rows = fitting - fitting % 8 if fitting > 8 else fitting
    return Columns(rows, -(-c // tile), -(-m // rows))


def lanes(c: int) -> Pair:
    """The grid that adds the parts of C columns, 32 a block of 32 × 8 threads."""
    return -(-c // 32), 1
