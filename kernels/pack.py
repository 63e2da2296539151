"""Weights as the kernels read them: (taps, C, K), output channels side by side.

The layers keep their weights that way (as (R, S, C, K) in memory); the gradient for the input needs
them with C and K exchanged. The tiles read them in blocks of as many columns as a tile has.

What is made here is not made at once, so that Python calls once for both: `in_blocks` gives what a
kernel tells `pack_for_all` before its own work, or, of a small layer, each thread when it asks for
`packed_weights`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from minifcn.kernels import address
from minifcn.kernels.compiled import serial
from minifcn.kernels.jobs import share_out
from minifcn.kernels.rooms import own
from minifcn.kernels.row import clear, copy
from minifcn.kernels.turn import turn
from minifcn.kernels.vector import LLVM_FLOAT, lanes

CHANNELS = 64  # of a tap's weights that a thread brings into blocks at a time
APART = 1 << 16  # bytes of weights in blocks, up to which each thread has its own


def in_memory(by_tap: np.ndarray) -> tuple[np.ndarray, bool]:
    """by_tap (taps, C, K) as a C-contiguous array, and whether C and K are exchanged in it."""
    if by_tap.flags.c_contiguous:
        return by_tap, False
    turned = by_tap.transpose(0, 2, 1)
    if turned.flags.c_contiguous:
        return turned, True
    return np.ascontiguousarray(by_tap), False  # weights that no layer made, (K, C, R, S) in memory


def rooms(shape: tuple[int, ...], dtype: Any) -> tuple[tuple[Any, ...], ...]:
    """What `in_blocks` wants of a plan's `Rooms`, for weights of ``shape``.

    That is (groups, blocks, reads, C, columns of a block). With them, whether they are packed.
    """
    apart = prod(shape) * np.dtype(dtype).itemsize <= APART
    return (dtype, shape, apart), (np.int64, (1,), apart)


def in_blocks(
    by_tap: np.ndarray, order: np.ndarray, packed: np.ndarray, done: np.ndarray
) -> tuple[Any, ...]:
    """What `pack_for_all` and `packed_weights` are told: weights, and the `rooms` for them.

    Where phases were merged, a block's columns are the channels of one after the other.
    """
    weights, turned = in_memory(by_tap)
    k = by_tap.shape[2] // packed.shape[1]
    side, code = lanes(by_tap.dtype), _pack_code(by_tap.dtype)
    return weights.reshape(-1), int(turned), order, packed, done, k, side, code


def _pack(  # type: ignore[no-untyped-def]
    by_tap, at, order, first, packed, to, turned, groups, blocks, reads, c, wide, merged, k, side,
    begin, end,
):  # fmt: skip
    """Parts ``begin`` … ``end`` − 1: some channels of a tap's weights, in one block, each."""
    parts = (c + CHANNELS - 1) // CHANNELS
    for part in range(begin, end):
        place, low = part // parts, part % parts * CHANNELS
        high = min(c, low + CHANNELS)
        g, j, t = place // (blocks * reads), place // reads % blocks, place % reads
        used = min(wide, merged * k - j * wide)
        if used < wide:
            clear(packed, to + (place * c + low) * wide, (high - low) * wide)
        column = 0
        while column < used:
            phase, channel = (j * wide + column) // k, (j * wide + column) % k
            count = min(k - channel, used - column)
            tap = order[first + t * merged + phase] * c * groups * k
            here = to + (place * c + low) * wide + column
            if turned != 0:  # (taps, groups · K, C) in memory
                source = at + tap + (g * k + channel) * c + low
                turn(by_tap, source, c, count, high - low, packed, here, wide, side)
            else:
                source = at + tap + (low * groups + g) * k + channel
                for d in range(high - low):
                    copy(packed, here + d * wide, by_tap, source + d * groups * k, count)
            column += count


@lru_cache
def _pack_code(dtype: np.dtype) -> int:
    """The address of its machine code for an element type: two loops of each kernel call it."""
    number = types.float32 if dtype == np.float32 else types.float64
    array, n = types.CPointer(number), types.int64
    signature = types.void(array, n, types.CPointer(n), n, array, *[n] * 12)
    return int(address.machine_code(_pack, signature).address)


@intrinsic
def _parts_packed(  # type: ignore[no-untyped-def]
    typing, code, by_tap, at, order, first, packed, to, turned, groups, blocks, reads, c, wide,
    merged, k, side, begin, end,
):  # fmt: skip
    if by_tap.dtype != packed.dtype or by_tap.dtype not in LLVM_FLOAT:
        return None
    n = types.int64
    signature = types.void(n, by_tap, n, order, n, packed, *[n] * 12)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        address.call(context, builder, signature, args)
        return context.get_dummy_value()

    return signature, generate


@serial
def _pack_parts(begin, end, by_tap, turned, order, packed, k, side, code):  # type: ignore[no-untyped-def]
    groups, blocks, reads, c, wide = packed.shape
    _parts_packed(
        code, by_tap, 0, order, 0, packed, 0, turned, groups, blocks, reads, c, wide,
        order.shape[1], k, side, begin, end,
    )  # fmt: skip


@serial
def _pack_part(item, by_tap, turned, order, packed, k, side, code):  # type: ignore[no-untyped-def]
    _pack_parts(item, item + 1, by_tap, turned, order, packed, k, side, code)


@serial
def pack_for_all(by_tap, turned, order, packed, done, k, side, code):  # type: ignore[no-untyped-def]
    """The weights in blocks, as the tiles read them; if few, each thread will pack its own."""
    done[:, 0] = 0
    if _for_all(packed):
        whole = own(packed)
        arguments = by_tap, turned, order, whole, k, side, code
        share_out(_pack_part, _parts(whole), arguments)


@serial
def packed_weights(by_tap, turned, order, packed, done, k, side, code):  # type: ignore[no-untyped-def]
    """Those that all threads packed; or this thread's own, which it packs when it first asks.

    To fetch what another has just written takes longer than to pack a small layer's weights.
    """
    weights, is_done = own(packed), own(done)
    if not _for_all(packed) and is_done[0] == 0:
        is_done[0] = 1
        _pack_parts(0, _parts(weights), by_tap, turned, order, weights, k, side, code)
    return weights.reshape(-1)


@serial
def _for_all(packed):  # type: ignore[no-untyped-def]
    """Whether all threads have the same room."""
    return packed.strides[0] == 0


@serial
def _parts(packed):  # type: ignore[no-untyped-def]
    groups, blocks, reads, c, _ = packed.shape
    return groups * blocks * reads * ((c + CHANNELS - 1) // CHANNELS)
