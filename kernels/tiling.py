"""How a matrix is cut into register tiles: their kinds, and which cover its rows and columns.

A tile's sums, a row of B and an A[i, k] repeated must fit the registers. With 32 of them a tile is
12 rows of two vectors, or better 8 rows of three: of as many sums, 8 × 3 reads 11 numbers and
vectors in a step where 12 × 2 reads 14, and so waits less for the caches. With 16 registers it is 6
rows of two vectors. `blocks` cuts a matrix into such columns.

21 classes would leave a third of two vectors unused, so a row can also be one vector and a half:
`narrow_columns` tells where that pays.

Tiles come in two heights, which together make every multiple of 4 from 8 on (of 2 from 4 on where
there are 16 registers; with three vectors every multiple of 4): channels and pixels seldom leave
rows over that would be computed in vain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels.compiled import serial
from minifcn.kernels.vector import HALVES, REGISTERS, lanes

#: rows of the two tiles of one or two vectors
TALL, SHORT = (12, 8) if REGISTERS == 32 else (6, 4)

#: rows of the two tiles of three vectors, for which 16 registers are too few
WIDE_TALL, WIDE_SHORT = 8, 4

#: the kinds of tiles: their rows, and halves of a vector
NARROW = tuple((r, halves) for r in (TALL, SHORT) for halves in ((2, 3, 4) if HALVES else (2, 4)))
WIDE = ((WIDE_TALL, 6), (WIDE_SHORT, 6)) if REGISTERS == 32 else ()

#: vectors of the widest
MOST = 3 if WIDE else 2

#: products that are summed before they are added to what is there
PIECE = 32

#: products after which the next rows come to the same B
PANEL = 4 * PIECE


def columns(dtype: Any, wanted: int) -> int:
    """The columns of a tile for a matrix of ``wanted`` columns: two vectors, or one if enough."""
    return lanes(dtype) if wanted <= lanes(dtype) else 2 * lanes(dtype)


class Blocks(NamedTuple):
    """A matrix's columns in blocks, each as wide as a tile.

    Attributes:
        ends: the first column of each block, and the end of the last: whole vectors.
        shares: the first block of each of some even shares, and the end of the last.
    """

    ends: np.ndarray
    shares: np.ndarray


def blocks(dtype: Any, wanted: int, shares: int = 1) -> Blocks:
    """The blocks of ``wanted`` columns, as `block` makes them in each of so many shares."""
    vectors = -(-wanted // lanes(dtype))
    ends, owned = [0], [0]
    for share in range(shares):
        end = vectors * (share + 1) // shares
        while ends[-1] < end:
            ends.append(ends[-1] + block.py_func(end - ends[-1], 1))
        owned.append(len(ends) - 1)
    return Blocks(np.array(ends) * lanes(dtype), np.array(owned))


@serial
def block(left, lanes):  # type: ignore[no-untyped-def]
    """The columns of the next block, of whole vectors that are left: three, two or one of them.

    Three make the fastest tile; of four, two and two are faster than three and one.
    """
    return 2 * lanes if left == 4 * lanes else min(left, MOST * lanes)


def narrow_columns(dtype: Any, wanted: int) -> int:
    """As `columns`, but one vector and a half if that takes no more tiles, and less time.

    For 21 classes that is 24 columns, not 32. Where a wide vector is taken in two halves, as AMD's
    processors of the fourth generation do, that saves an eighth to a quarter. Elsewhere it saves
    nothing, and each A[i, k] is read twice, for a whole vector and for half of one.
    """
    tiles = -(-wanted // (2 * lanes(dtype)))
    middle = lanes(dtype) * 3 // 2
    narrow = HALVES and lanes(dtype) < wanted <= tiles * middle
    return middle if narrow else columns(dtype, wanted)


def half_vectors(dtype: Any, wide: int) -> int:
    """What `strip` is told of a tile of ``wide`` columns: 2, 3, 4 or 6 halves of a vector."""
    return 2 * wide // lanes(dtype)


def rows(wanted: int) -> int:
    """How many rows `strip` computes at most where ``wanted`` are: the last tile may hang over."""
    talls, shorts, tall, short = tiles.py_func(wanted, 4)
    return int(talls * tall + shorts * short)


@serial
def tiles(wanted, halves):  # type: ignore[no-untyped-def]
    """(talls, shorts, rows of a tall one, of a short one) that cover ``wanted`` rows.

    The fewest rows over, then the fewest tiles, of so many ``halves`` of a vector.
    """
    if halves > 4:  # all by constants: divisions would take long, and a strip waits for them
        units = (wanted + WIDE_SHORT - 1) // WIDE_SHORT
        return units // 2, units % 2, WIDE_TALL, WIDE_SHORT
    best_talls, best_shorts, best = 0, 0, 1 << 62
    for shorts in range(3):
        talls = max(0, (wanted - shorts * SHORT + TALL - 1) // TALL)
        covered = talls * TALL + shorts * SHORT
        if covered >= wanted and covered < best:
            best_talls, best_shorts, best = talls, shorts, covered
    return best_talls, best_shorts, TALL, SHORT


@serial
def covered(wanted):  # type: ignore[no-untyped-def]
    """`rows`, for compiled code."""
    talls, shorts, tall, short = tiles(wanted, np.int64(4))
    return talls * tall + shorts * short
