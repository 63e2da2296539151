"""Memory for results, used again: a fresh page costs more than the arithmetic on it.

The system hands out memory in pages of 4 KiB and clears each on first touch, which takes about as
long as a kernel takes to fill it. A training step asks for the same sizes again and again; so when
an array dies, its memory is kept here for the next one.

What is kept lies in blocks. An array gets the smallest one that holds it, and what is over stays
behind as a block of its own; a block that comes back joins free neighbours. So the memory of one
large activation serves several small ones after it, and is one again for the next picture.

Source: Knuth, "The Art of Computer Programming", vol. 1, section 2.5, "Dynamic storage allocation".
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from itertools import count
from math import prod
from threading import Lock
from typing import Any

import numpy as np

SMALL = 1 << 16  # bytes; below this the system's own allocator reuses memory well
LINE = 64  # bytes of a cache line, and of the longest vector
KEPT = 1 << 29  # bytes kept for reuse at most

#: fill new arrays with NaN: a test that a kernel writes every element sets this
poisoned = False


class Block:
    """Some bytes of a region, which the system gave in one piece, and the blocks beside them."""

    __slots__ = ("after", "before", "free", "region", "serial", "size", "start")

    def __init__(self, region: np.ndarray, start: int, size: int) -> None:
        self.region, self.start, self.size = region, start, size
        self.before: Block | None = None
        self.after: Block | None = None
        self.free = False
        self.serial = next(_serials)  # so that blocks of one size have an order


_serials = count()
_free: list[tuple[int, int, Block]] = []  # by size
_kept = 0  # bytes in them
_returned: deque[Block] = deque()  # by arrays that died, which may be at any time, in any thread
_lock = Lock()


class Lease(np.ndarray):
    """A view of a block that all arrays made of it refer to; when it dies, the block is free."""

    block: Block | None = None  # of the lease alone: views of it do not inherit it

    def __del__(self) -> None:
        if self.block is not None:
            _returned.append(self.block)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array."""
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    if size < SMALL:
        array = np.empty(shape, kind)
    else:
        # NumPy lets a view refer past its base to the base's base, if that is a plain array; a
        # slice of the lease stands between, so that the lease lives as long as the view
        array = np.ndarray(shape, kind, buffer=_lease(-(-size // SMALL) * SMALL)[:])
    if poisoned and kind.kind == "f":
        array.fill(np.nan)
    return array


def copy(array: np.ndarray) -> np.ndarray:
    """A copy without gaps, its axes in the same order in memory."""
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    new = empty(tuple(array.shape[axis] for axis in axes), array.dtype)
    new = new.transpose(np.argsort(axes)) if axes else new
    new[...] = array
    return new


def clear() -> None:
    """Give all memory that is kept for reuse, and that no array shares, back to the system."""
    with _lock:
        _take_back()
        for _, _, block in list(_free):
            if block.before is None and block.after is None:
                _remove(block)


def _lease(size: int) -> np.ndarray:
    with _lock:
        _take_back()
        place = bisect_left(_free, (size,))
        if place < len(_free):
            block = _free[place][2]
            _remove(block)
            if block.size > size:
                _insert(_cut(block, size))
        else:
            block = Block(_aligned(size), 0, size)
    lease = block.region[block.start : block.start + size].view(Lease)
    lease.block = block
    return lease


def _take_back() -> None:
    """Free the blocks of the arrays that have died, and drop whole regions if too much is kept."""
    while _returned:
        block = _returned.popleft()
        if block.before is not None and block.before.free:
            _remove(block.before)
            block = _joined(block.before, block)
        if block.after is not None and block.after.free:
            _remove(block.after)
            block = _joined(block, block.after)
        _insert(block)
    while _kept > KEPT:
        whole = [b for _, _, b in _free if b.before is None and b.after is None]
        if not whole:
            break
        _remove(min(whole, key=lambda b: b.serial))


def _cut(block: Block, size: int) -> Block:
    """Shorten a block to ``size``; what is left over is a block behind it."""
    rest = Block(block.region, block.start + size, block.size - size)
    rest.before, rest.after, block.after, block.size = block, block.after, rest, size
    if rest.after is not None:
        rest.after.before = rest
    return rest


def _joined(first: Block, second: Block) -> Block:
    """Two neighbours as one."""
    first.size += second.size
    first.after = second.after
    if first.after is not None:
        first.after.before = first
    return first


def _insert(block: Block) -> None:
    global _kept
    block.free = True
    insort(_free, (block.size, block.serial, block))
    _kept += block.size


def _remove(block: Block) -> None:
    global _kept
    block.free = False
    del _free[bisect_left(_free, (block.size, block.serial))]
    _kept -= block.size


def _aligned(size: int) -> np.ndarray:
    """Fresh bytes from the start of a cache line on, so that no vector lies across two of them."""
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]
