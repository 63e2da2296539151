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

Phases of one row whose taps read the same pixels can be *merged*: their results lie side by side in
memory, as if one pixel had so many times the channels. With kernel 2n that is half a row's phases
at once, and the matrix product under them is that much wider.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)  # equal only to itself, so that plans can be kept for it
class Taps:
    """Where a convolution reads and writes.

    Attributes:
        order: for each read, the kernel elements r·S + s that it meets: one a merged phase,
            (reads, merged).
        offset: for each of them (row, column) of the first pixel that it reads, (reads, 2).
        phases: (phases, 7): first output row and column, rows and columns of its grid, its first
            and last + 1 position in ``offset``, and how many phases were merged in it.
        run: how many reads from each one on, in its phase, take neighbouring pixels of a row: a run
            of n at pixel z is n·C contiguous elements of the picture, (reads,).
        in_stride: pixels between the reads of neighbouring results of one phase.
        out_stride: pixels between neighbouring results of one phase.
    """

    order: np.ndarray
    offset: np.ndarray
    phases: np.ndarray
    run: np.ndarray
    in_stride: Pair
    out_stride: Pair

    def reads_each_pixel(self) -> bool:
        """Whether the one read of each result is the pixel at its own place, as 1×1 kernels do."""
        return len(self.order) == 1 and not self.offset.any() and self.in_stride == (1, 1)


@lru_cache(maxsize=1024)  # a net asks for the same few at every step
def convolution(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> Taps:
    """The taps of a convolution with ``kernel`` (R, S) and output size ``out`` (P, Q)."""
    rows = np.arange(kernel[0]) * dilation[0] - padding[0]
    columns = np.arange(kernel[1]) * dilation[1] - padding[1]
    offset = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    phases = np.array([[0, 0, *out, 0, len(offset), 1]], np.int64)
    order = np.arange(len(offset))[:, None]
    return Taps(order, offset, phases, _runs(offset, phases), stride, (1, 1))


@lru_cache(maxsize=1024)
def transposed(
    kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair, merged: bool = False
) -> Taps:
    """The taps of a transposed convolution: ``kernel`` (R, S) and output size ``out`` (H, W)."""

    def reads(axis: int, phase: int) -> list[Pair]:
        """(tap, first input pixel) of the taps that this phase uses along one axis."""
        at = [(r, phase + padding[axis] - r * dilation[axis]) for r in range(kernel[axis])]
        used = [(r, distance // stride[axis]) for r, distance in at if distance % stride[axis] == 0]
        return used[::-1]  # from left to right in the picture

    together = _together([reads(1, b) for b in range(min(stride[1], out[1]))], out, stride, merged)
    order: list[list[int]] = []
    offset: list[Pair] = []
    phases: list[list[int]] = []
    most = max(len(columns) for _, columns in together)
    for a in range(min(stride[0], out[0])):
        rows = reads(0, a)
        for b, columns in together:
            first = len(order)
            for r, y in rows:
                for tap in range(len(columns[0])):
                    elements = [r * kernel[1] + column[tap][0] for column in columns]
                    order.append(elements + [0] * (most - len(elements)))
                    offset.append((y, columns[0][tap][1]))
            grid = -(-(out[0] - a) // stride[0]), -(-(out[1] - b) // stride[1])
            phases.append([a, b, *grid, first, len(order), len(columns)])
    table = np.array(offset, np.int64).reshape(-1, 2)
    grids = np.array(phases, np.int64).reshape(-1, 7)
    elements = np.array(order, np.int64).reshape(-1, most)
    return Taps(elements, table, grids, _runs(table, grids), (1, 1), stride)


def _together(
    columns: list[list[Pair]], out: Pair, stride: Pair, merged: bool
) -> list[tuple[int, list[list[Pair]]]]:
    """Column phases, those that read the same pixels and have grids of one width side by side."""
    found: list[tuple[int, list[list[Pair]]]] = []
    for b, column in enumerate(columns):
        width = -(-(out[1] - b) // stride[1])
        if merged and found:
            start, group = found[-1]
            alike = [z for _, z in group[0]] == [z for _, z in column]
            if alike and width == -(-(out[1] - start) // stride[1]):
                group.append(column)
                continue
        found.append((b, [column]))
    return found


def _runs(offset: np.ndarray, phases: np.ndarray) -> np.ndarray:
    run = np.ones(len(offset), np.int64)
    starts = set(phases[:, 4].tolist())
    for t in range(len(offset) - 2, -1, -1):
        if t + 1 not in starts and (offset[t + 1] - offset[t]).tolist() == [0, 1]:
            run[t] = run[t + 1] + 1
    return run
