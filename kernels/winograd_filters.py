"""Winograd's weights: every channel's filters, transformed to G g Gᵀ.

Either for all threads and all columns at once (`weights_part`), or some columns by the thread that
multiplies them next (`filter_of`); `winograd` tells which when.
"""

from __future__ import annotations

import numpy as np

from minifcn.kernels.compiled import serial
from minifcn.kernels.pack import Jobs, contiguous
from minifcn.kernels.row import clear, copy
from minifcn.kernels.sandwich import Side, sandwich_of, twice
from minifcn.kernels.winograd_matrices import STRIDED, matrices

PART = 32  # channels of the weights that a thread transforms at a time, for all threads

# A module global, not a closure: otherwise Numba could not keep the callers' machine code on disk.
_filter = sandwich_of((Side(matrices(2)[1]), Side(matrices(4)[1])), twice(Side(STRIDED[1])))


def padded(by_tap: np.ndarray, groups: int, wide: int) -> tuple[np.ndarray, Jobs]:
    """by_tap as one row, each group's output channels filled up with zeros to ``wide``.

    With it come the jobs of `turn_band` that fill it.
    """
    taps, c, k = by_tap.shape
    if k == groups * wide:
        weights, turning = contiguous(by_tap)
        return weights.reshape(-1), turning
    filled = np.zeros((taps, c, groups, wide), by_tap.dtype)
    filled[:, :, :, : k // groups] = by_tap.reshape(taps, c, groups, k // groups)
    weights, nothing = contiguous(filled.reshape(taps, c, groups * wide))
    return weights.reshape(-1), nothing


@serial
def filter_of(  # type: ignore[no-untyped-def]
    by_tap, channels, k, c, column, kernel, part_row, part_column, edge, weights, to, n, step,
    vectors, width, four, strided, flipped,
):  # fmt: skip
    """G g Gᵀ of one channel's filters, some columns of them: frequencies ``step`` apart.

    g is a part of the kernel, 3×3 taps; those beyond its end are zeros, set in ``edge``.
    """
    tap, across = channels * k, -1 if flipped else 1
    down, r, s = across * kernel[1], 3 * part_row, 3 * part_column
    first = (kernel[0] - 1 - r) * kernel[1] + kernel[1] - 1 - s if flipped else r * kernel[1] + s
    source, at, row = by_tap, first * tap + c * k + column, down * tap
    across *= tap
    high, wide = min(3, kernel[0] - r), min(3, kernel[1] - s)
    if high < 3 or wide < 3:
        for i in range(3):
            for j in range(3):
                if i < high and j < wide:
                    copy(edge, (3 * i + j) * width, by_tap, at + i * row + j * across, width)
                else:
                    clear(edge, (3 * i + j) * width, width)
        source, at, row, across = edge, 0, 3 * width, width
    _filter(four, strided, source, at, row, across, weights, to, n * step, step, vectors)


@serial
def weights_at(ends, j, f, n, channels):  # type: ignore[no-untyped-def]
    """Where in a group's weights those of frequency f in block j begin; see `weights_part`."""
    return (channels + 1) * (n * n * ends[j] + f * (ends[j + 1] - ends[j]))


@serial
def weights_part(item, by_tap, weights, channels, ends, lanes, n, four, strided, flipped):  # type: ignore[no-untyped-def]
    """G g Gᵀ of every filter: (9, C, groups · K), each K of whole vectors, → block after block.

    A block is (n², C + 1, its columns); each group has its own.

    Block by block, so that each frequency's weights are written one after the other: the processor
    sees n² streams coming, and fetches their lines.
    """
    k, blocks = by_tap.size // (9 * channels), len(ends) - 1
    parts = (channels + PART - 1) // PART
    upper_left, tap = (8 * channels * k, -channels * k) if flipped else (0, channels * k)
    first, j, group = item % parts * PART, item // parts % blocks, item // parts // blocks
    wide, column = ends[j + 1] - ends[j], group * ends[-1] + ends[j]
    at = (channels + 1) * n * n * (group * ends[-1] + ends[j])
    step = (channels + 1) * wide
    for c in range(first, min(first + PART, channels)):
        _filter(
            four, strided, by_tap, upper_left + c * k + column, 3 * tap, tap, weights,
            at + c * wide, n * step, step, wide // lanes,
        )  # fmt: skip
