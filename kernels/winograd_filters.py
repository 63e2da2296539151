"""Winograd's weights: every channel's filters, transformed to G g Gᵀ.

Either for all threads and all columns at once (`weights_part`), or some columns by the thread that
multiplies them next (`filters_of`); `winograd` tells which when.

The gradient for x needs weights with C and K exchanged: the taps of a few channels are turned about
just before they are transformed. A copy of all that was turned first would be written by one thread
and read by another, and to fetch a line that another processor wrote takes long.
"""

from __future__ import annotations

import numpy as np

from minifcn.kernels.compiled import serial
from minifcn.kernels.pack import in_memory
from minifcn.kernels.rooms import own
from minifcn.kernels.row import clear, copy
from minifcn.kernels.sandwich import Side, sandwich_of, twice
from minifcn.kernels.turn import turn
from minifcn.kernels.winograd_matrices import STRIDED, matrices

PART = 32  # channels of the weights that a thread transforms at a time, for all threads
BAND = 16  # of which it turns the taps about at a time

# A module global, not a closure: otherwise Numba could not keep the callers' machine code on disk.
_filter = sandwich_of((Side(matrices(2)[1]), Side(matrices(4)[1])), twice(Side(STRIDED[1])))


def padded(by_tap: np.ndarray, groups: int, wide: int) -> tuple[np.ndarray, bool]:
    """by_tap (taps, C, K) as one row, and whether C and K are exchanged in it.

    Each group's output channels are filled up with zeros to ``wide``.
    """
    taps, c, k = by_tap.shape
    if k != groups * wide:
        filled = np.zeros((taps, c, groups, wide), by_tap.dtype)
        filled[:, :, :, : k // groups] = by_tap.reshape(taps, c, groups, k // groups)
        by_tap = filled.reshape(taps, c, groups * wide)
    weights, turned = in_memory(by_tap)
    return weights.reshape(-1), turned


@serial
def filters_of(  # type: ignore[no-untyped-def]
    by_tap, turned, channels, k, low, count, column, kernel, part_row, part_column, edge, brought,
    weights, to, n, step, vectors, width, four, strided, flipped,
):  # fmt: skip
    """G g Gᵀ of ``count`` channels' filters from ``low`` on, some columns of them.

    A channel's are ``width`` elements apart from the next one's, a frequency's ``step``. g is a
    part of the kernel, 3×3 taps; those beyond its end are zeros, set in ``edge``. If weights are
    ``turned``, taps go by way of ``brought``.
    """
    across = -1 if flipped else 1
    down, r, s = across * kernel[1], 3 * part_row, 3 * part_column
    first = (kernel[0] - 1 - r) * kernel[1] + kernel[1] - 1 - s if flipped else r * kernel[1] + s
    high, wide = min(3, kernel[0] - r), min(3, kernel[1] - s)
    for begin in range(0, count, BAND):
        some = min(BAND, count - begin)
        for tap in range(9 if turned else 0):  # (taps, K, C) in memory
            i, j = tap // 3, tap % 3
            if i < high and j < wide:
                at = ((first + i * down + j * across) * k + column) * channels + low + begin
                turn(
                    by_tap, at, channels, width, some, brought, tap * some * width, width,
                    width // vectors,
                )  # fmt: skip
            else:
                clear(brought, tap * some * width, some * width)
        for e in range(some):
            source, at, row, beside = brought, e * width, 3 * some * width, some * width
            if not turned:
                source, beside = by_tap, across * channels * k
                at = (first * channels + low + begin + e) * k + column
                row = down * channels * k
                if high < 3 or wide < 3:
                    for i in range(3):
                        for j in range(3):
                            here = (3 * i + j) * width
                            if i < high and j < wide:
                                copy(edge, here, by_tap, at + i * row + j * beside, width)
                            else:
                                clear(edge, here, width)
                    source, at, row, beside = edge, 0, 3 * width, width
            _filter(
                four, strided, source, at, row, beside, weights, to + (begin + e) * width,
                n * step, step, vectors,
            )  # fmt: skip


@serial
def weights_at(ends, j, f, n, channels):  # type: ignore[no-untyped-def]
    """Where in a group's weights those of frequency f in block j begin; see `weights_part`."""
    return (channels + 1) * (n * n * ends[j] + f * (ends[j + 1] - ends[j]))


@serial
def weights_part(  # type: ignore[no-untyped-def]
    item, by_tap, turned, weights, edges, turns, channels, ends, lanes, n, four, strided, flipped,
):  # fmt: skip
    """G g Gᵀ of every filter: (9, C, groups · K), each K of whole vectors, → block after block.

    A block is (n², C + 1, its columns); each group has its own.

    Block by block, so that each frequency's weights are written one after the other: the processor
    sees n² streams coming, and fetches their lines.
    """
    k, blocks = by_tap.size // (9 * channels), len(ends) - 1
    parts = (channels + PART - 1) // PART
    first, j, group = item % parts * PART, item // parts % blocks, item // parts // blocks
    wide, nothing = ends[j + 1] - ends[j], np.int64(0)
    at = (channels + 1) * n * n * (group * ends[-1] + ends[j])
    filters_of(
        by_tap, turned, channels, k, first, min(PART, channels - first),
        group * ends[-1] + ends[j], (3, 3), nothing, nothing, own(edges), own(turns), weights,
        at + first * wide, n, (channels + 1) * wide, wide // lanes, wide, four, strided, flipped,
    )  # fmt: skip
