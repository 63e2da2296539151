"""Sums that were taken in parts, one after the other in memory, added up in their order.

A gradient of few weights is a sum over many pixels: threads share those, each sums a part, and what
is left to do is to add the parts. NumPy does it on one thread: that took a tenth of a small layer's
gradient, and after a kernel has filled the caches even one part of 512 numbers took it 40 µs.
"""

from __future__ import annotations

from minifcn.kernels.compiled import serial
from minifcn.kernels.jobs import share_out

BLOCK = 1 << 12  # elements of a part that a thread adds at a time, in its first cache


@serial
def _add_block(block, parts, count, total):  # type: ignore[no-untyped-def]
    size = len(parts) // count
    first, last = block * BLOCK, min((block + 1) * BLOCK, size)
    sums, own = total[first:last], parts[first:last]
    for i in range(len(sums)):
        sums[i] = own[i]
    for part in range(1, count):
        others = parts[part * size + first : part * size + last]  # counted from 0: it vectorises
        for i in range(len(sums)):
            sums[i] += others[i]


@serial
def add_parts(parts, count, total):  # type: ignore[no-untyped-def]
    """total = the sum of ``count`` equal parts, flat arrays; ``total`` may be the first of them."""
    blocks = (len(parts) // count + BLOCK - 1) // BLOCK
    share_out(_add_block, blocks, (parts, count, total))


@serial
def add_bias(parts, total):  # type: ignore[no-untyped-def]
    """total[g·K + k] = Σ parts[:, g, k], the sums for the bias: few numbers, so on one thread.

    The parts (parts, groups, K or more) are float64, and rounded once.
    """
    count, groups, _ = parts.shape
    k = len(total) // groups
    for g in range(groups):
        for e in range(k):
            one = parts[0, g, e]
            for part in range(1, count):
                one += parts[part, g, e]
            total[g * k + e] = one
