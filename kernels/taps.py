"""A convolution as a list of taps, so that one loop serves every kind of it.

A tap is one element (r, s) of the kernel. In a convolution, output pixel (p, q) reads through tap
(r, s) the input pixel

    (p·stride + r·dilation − padding,  q·stride + s·dilation − padding)

In a transposed convolution with stride n, output row h receives from input row p through tap r
where p·n + r·dilation − padding = h. So the output rows h = a + n·i of one *phase* a = 0 … n−1 use
only the taps with (a + padding − r·dilation) divisible by n, and read

    p = i + (a + padding − r·dilation) / n

Each phase is an ordinary convolution of stride 1 with a few of the taps, whose results lie n pixels
apart ("sub-pixel convolution", Shi et al. 2016): nothing is scattered and no zero is multiplied.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

Pair = tuple[int, int]


class Taps(NamedTuple):
    """Where a convolution reads and writes.

    Attributes:
        order: the taps r·S + s in the order in which the phases use them, (R·S,).
        offset: for each of them (row, column) of the first pixel that it reads, (R·S, 2).
        phases: (phases, 6): first output row and column, rows and columns of its grid, and its
            taps' first and last + 1 position in ``order``.
        run: how many taps from each one on, in its phase, read neighbouring pixels of a row: a run
            of n taps at pixel z is n·C contiguous elements of the picture, (R·S,).
        in_stride: pixels between the reads of neighbouring results of one phase.
        out_stride: pixels between neighbouring results of one phase.
    """

    order: np.ndarray
    offset: np.ndarray
    phases: np.ndarray
    run: np.ndarray
    in_stride: Pair
    out_stride: Pair


@lru_cache(maxsize=1024)  # a net asks for the same few at every step
def convolution(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> Taps:
    """The taps of a convolution with ``kernel`` (R, S) and output size ``out`` (P, Q)."""
    rows = np.arange(kernel[0]) * dilation[0] - padding[0]
    columns = np.arange(kernel[1]) * dilation[1] - padding[1]
    offset = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    phases = np.array([[0, 0, *out, 0, len(offset)]], np.int64)
    return Taps(np.arange(len(offset)), offset, phases, _runs(offset, phases), stride, (1, 1))


@lru_cache(maxsize=1024)
def transposed(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> Taps:
    """The taps of a transposed convolution: ``kernel`` (R, S) and output size ``out`` (H, W)."""

    def reads(axis: int, phase: int) -> list[Pair]:
        """(tap, first input pixel) of the taps that this phase uses along one axis."""
        at = [(r, phase + padding[axis] - r * dilation[axis]) for r in range(kernel[axis])]
        used = [(r, distance // stride[axis]) for r, distance in at if distance % stride[axis] == 0]
        return used[::-1]  # from left to right in the picture

    order: list[int] = []
    offset: list[Pair] = []
    phases: list[list[int]] = []
    columns = [reads(1, b) for b in range(min(stride[1], out[1]))]
    for a in range(min(stride[0], out[0])):
        rows = reads(0, a)
        for b, in_columns in enumerate(columns):
            first = len(order)
            order += [r * kernel[1] + s for r, _ in rows for s, _ in in_columns]
            offset += [(y, x) for _, y in rows for _, x in in_columns]
            grid = -(-(out[0] - a) // stride[0]), -(-(out[1] - b) // stride[1])
            phases.append([a, b, *grid, first, len(order)])
    table = np.array(offset, np.int64).reshape(-1, 2)
    grids = np.array(phases, np.int64).reshape(-1, 6)
    return Taps(np.array(order, np.int64), table, grids, _runs(table, grids), (1, 1), stride)


def _runs(offset: np.ndarray, phases: np.ndarray) -> np.ndarray:
    run = np.ones(len(offset), np.int64)
    starts = set(phases[:, 4].tolist())
    for t in range(len(offset) - 2, -1, -1):
        if t + 1 not in starts and (offset[t + 1] - offset[t]).tolist() == [0, 1]:
            run[t] = run[t + 1] + 1
    return run
