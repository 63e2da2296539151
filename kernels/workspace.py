"""Memory for results, used again: a fresh page costs more than the arithmetic on it.

The system hands out memory in pages of 4 KiB and clears each on first touch, which takes about as
long as a kernel takes to fill it. A training step asks for the same sizes again and again; so when
an array dies, its memory is kept here, and the next array of that size gets it, pages and all; or
one of another size, if it is at least half as large: so a step takes a seventh less memory.
"""

from __future__ import annotations

from collections import OrderedDict
from math import prod
from typing import Any

import numpy as np

SMALL = 1 << 16  # bytes; below this the system's own allocator reuses memory well
LINE = 64  # bytes of a cache line, and of the longest vector
KEPT = 1 << 29  # bytes kept for reuse at most; what was unused longest goes first

#: fill new arrays with NaN: a test that a kernel writes every element sets this
poisoned = False

_free: OrderedDict[int, np.ndarray] = OrderedDict()  # id → memory, oldest first
_by_size: dict[int, list[int]] = {}  # bytes → ids
_kept = 0


class Lease(np.ndarray):
    """A view of the memory that all arrays made of it refer to; when it dies, that is free."""

    memory: np.ndarray | None = None  # of the lease alone: views of it do not inherit it

    def __del__(self) -> None:
        if self.memory is not None:
            _release(self.memory)


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
    """Give all memory that is kept for reuse back to the system."""
    global _kept
    _free.clear()
    _by_size.clear()
    _kept = 0


def _lease(size: int) -> np.ndarray:
    global _kept
    ids = _by_size.get(size) or _by_size.get(_next_larger(size))
    if ids:
        memory = _free.pop(ids.pop())
        _kept -= memory.size
    else:
        memory = _aligned(size)
    lease = memory.view(Lease)
    lease.memory = memory
    return lease


def _next_larger(size: int) -> int:
    """The smallest size that is kept and large enough, but not over twice as large; 0 for none."""
    return min((s for s, ids in _by_size.items() if ids and size <= s <= 2 * size), default=0)


def _aligned(size: int) -> np.ndarray:
    """Fresh bytes from the start of a cache line on, so that no vector lies across two of them."""
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size]


def _release(memory: np.ndarray) -> None:
    global _kept
    if memory.size > KEPT:
        return
    _free[id(memory)] = memory
    _by_size.setdefault(memory.size, []).append(id(memory))
    _kept += memory.size
    while _kept > KEPT:
        oldest, unused = _free.popitem(last=False)
        _by_size[unused.size].remove(oldest)
        _kept -= unused.size
