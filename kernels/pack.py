"""Weights as the kernels read them: (taps, C, K), output channels side by side.

The layers keep their weights that way (as (R, S, C, K) in memory); the gradient for the input needs
them with C and K exchanged. The tiles read them in blocks of as many columns as a tile has.

What is made here is not made at once: the functions give `Jobs`, which a kernel does before its
own, so that Python calls once for both.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.compiled import serial
from minifcn.kernels.row import clear, copy
from minifcn.kernels.turn import turn
from minifcn.kernels.vector import lanes

BAND = 64  # rows and columns that are turned together, in the first cache: some lines of each
CHANNELS = 64  # of a tap's weights that a thread brings into blocks at a time


class Jobs(NamedTuple):
    """How many there are, and their arguments: what `jobs.share_out` is told beside the function.

    It takes a plain tuple: ``tuple(jobs)``.
    """

    count: int
    arguments: tuple[Any, ...]


def in_memory(by_tap: np.ndarray) -> tuple[np.ndarray, bool]:
    """by_tap (taps, C, K) as a C-contiguous array, and whether C and K are exchanged in it."""
    if by_tap.flags.c_contiguous:
        return by_tap, False
    turned = by_tap.transpose(0, 2, 1)
    if turned.flags.c_contiguous:
        return turned, True
    return np.ascontiguousarray(by_tap), False  # weights that no layer made, (K, C, R, S) in memory


def contiguous(by_tap: np.ndarray) -> tuple[np.ndarray, Jobs]:
    """by_tap (taps, C, K), any view, as a C-contiguous array, and the jobs of `turn_band`.

    It is by_tap itself, and there are no jobs, where that is one.
    """
    weights, turned = in_memory(by_tap)
    if not turned:
        nothing = np.empty((0, 0, 0), by_tap.dtype)
        return weights, Jobs(0, (nothing, nothing, lanes(by_tap.dtype)))
    taps, a, _ = weights.shape
    target = workspace.empty(by_tap.shape, by_tap.dtype)
    return target, Jobs(taps * -(-a // BAND), (weights, target, lanes(by_tap.dtype)))


def in_blocks(by_tap: np.ndarray, order: np.ndarray, groups: int, packed: np.ndarray) -> Jobs:
    """The jobs of `pack_part` that bring weights into blocks of columns, as the tiles read them.

    ``packed`` is where: (groups, blocks, reads, C, wide), not written yet. Where phases were
    merged, a block's columns are the channels of one after the other.
    """
    weights, turned = in_memory(by_tap)
    c, k = by_tap.shape[1], by_tap.shape[2] // groups
    arguments = weights.reshape(-1), turned, order, packed, k, lanes(by_tap.dtype)
    return Jobs(prod(packed.shape[:3]) * -(-c // CHANNELS), arguments)


@serial
def turn_band(item, source, target, side):  # type: ignore[no-untyped-def]
    """Some rows of a tap's weights, turned about."""
    taps, a, b = source.shape
    down = (a + BAND - 1) // BAND
    flat, result = source.reshape(-1), target.reshape(-1)
    t, top = item // down, item % down * BAND
    height = min(BAND, a - top)
    for left in range(0, b, BAND):
        at, to = (t * a + top) * b + left, (t * b + left) * a + top
        turn(flat, at, b, height, min(BAND, b - left), result, to, a, side)


@serial
def pack_part(item, by_tap, turned, order, packed, k, side):  # type: ignore[no-untyped-def]
    """Some channels of a tap's weights, in one block."""
    groups, blocks, reads, c, wide = packed.shape
    merged = order.shape[1]
    flat = packed.reshape(-1)
    parts = (c + CHANNELS - 1) // CHANNELS
    place, low = item // parts, item % parts * CHANNELS
    high = min(c, low + CHANNELS)
    g, j, t = place // (blocks * reads), place // reads % blocks, place % reads
    used = min(wide, merged * k - j * wide)
    if used < wide:
        clear(flat, (place * c + low) * wide, (high - low) * wide)
    column = 0
    while column < used:
        phase, channel = (j * wide + column) // k, (j * wide + column) % k
        count = min(k - channel, used - column)
        tap, to = order[t, phase] * c * groups * k, (place * c + low) * wide + column
        if turned:  # (taps, groups · K, C) in memory
            source = tap + (g * k + channel) * c + low
            turn(by_tap, source, c, count, high - low, flat, to, wide, side)
        else:
            source = tap + (low * groups + g) * k + channel
            for d in range(high - low):
                copy(flat, to + d * wide, by_tap, source + d * groups * k, count)
        column += count
