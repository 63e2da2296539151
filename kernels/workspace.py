"""Memory for results and for kernels, used again: a fresh page costs more than to compute it.

The system hands out memory in pages of 4 KiB and clears each on first touch, which takes about as
long as a kernel takes to fill it. A training step asks for the same sizes again and again; so when
an array dies, its memory is kept here for the next one.

The memory comes from the system in large regions, of which only what is used is ever touched. An
array gets the first place that holds it, by address in the oldest region, and a place that comes
back joins free neighbours. So what one large activation leaves serves several small ones after it,
and the highest address in use stays low.

What a kernel needs while it runs lies elsewhere: see `rooms`.

Source: Knuth, "The Art of Computer Programming", vol. 1, section 2.5, "Dynamic storage allocation".
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from math import prod
from threading import Lock
from typing import Any

import numpy as np

from minifcn import device

SMALL = 1 << 16  # bytes; below this the system's own allocator reuses memory well
BYTE = np.dtype(np.uint8)
LINE = 64  # bytes of a cache line, and of the longest vector
REGION = 1 << 28  # bytes asked of the system at a time
KEPT = 1 << 31  # bytes; whole regions beyond go back to the system, at the next request

Place = tuple[int, int]

#: fill new arrays with NaN: a test that a kernel writes every element sets this
poisoned = False


def aligned(size: int, to: int = LINE) -> np.ndarray:
    """``size`` bytes from a multiple of ``to`` on; of a line's, no vector lies across two."""
    memory = np.empty(size + to, np.uint8)
    start = -memory.ctypes.data % to
    return memory[start : start + size]


# An address counts bytes, from number · 2^BITS on in each region: older regions come first, and
# none ends where another begins.
BITS = 48
_regions: dict[int, Lease] = {}  # by number, the bytes that the system gave in one piece
_numbers = count()
_starts: list[int] = []  # the addresses of free places, ascending; no two touch
_sizes: list[int] = []  # bytes of each
_returned: deque[Place] = deque()  # by arrays that died, which may be at any time, in any thread
_lock = Lock()


class Lease(np.ndarray):
    """The bytes of a place, which all arrays made of it refer to; when it dies, the place is free.

    NumPy lets a view refer past its base to the base's base, if that is a plain array. So a
    region is of this class too, with no place, and no plain array refers past a lease.
    """

    place: Place | None = None  # address and bytes

    def __del__(self) -> None:
        if self.place is not None:
            _returned.append(self.place)


def empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised C-contiguous array."""
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    if size < SMALL:
        array = np.empty(shape, kind)
    else:
        array = np.ndarray(shape, kind, lease(size))
    if poisoned and kind.kind == "f":
        array.fill(np.nan)
    return array


def whole_lines(count: int, dtype: Any) -> int:
    """The fewest elements, ``count`` or more, that fill whole cache lines."""
    line = LINE // np.dtype(dtype).itemsize
    return -(-count // line) * line


def copy(array: np.ndarray, dtype: Any = None) -> np.ndarray:
    """A copy without gaps, its axes in the same order in memory, in another dtype if one is given.

    A GPU's array is copied into its own memory, which CuPy keeps as this file does the host's.
    """
    if device.is_gpu(array):
        return array.copy(order="K") if dtype is None else array.astype(dtype)
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    new = empty(tuple(array.shape[axis] for axis in axes), dtype or array.dtype)
    new = new.transpose(np.argsort(axes)) if axes else new
    np.copyto(new, array, casting="unsafe")
    return new


def free_bytes() -> int:
    """How many bytes of the regions no array holds."""
    return sum(_sizes) + sum(size for _, size in _returned)


def clear() -> None:
    """Give all regions in which no array lies back to the system."""
    with _lock:
        _take_back()
        _give_back(0)


@contextmanager
def apart() -> Iterator[None]:
    """Inside the block arrays lie in regions of its own, as in a process that has just begun."""
    global _starts, _sizes, _returned
    before, others = (_starts, _sizes, _returned), set(_regions)
    _starts, _sizes, _returned = [], [], deque()
    try:
        yield
    finally:
        with _lock:
            _take_back()
            for number in set(_regions) - others:
                del _regions[number]
            outer = [place for place in zip(_starts, _sizes) if place[0] >> BITS in others]
            _starts, _sizes, _returned = before
            _returned.extend(outer)


def lease(size: int) -> Lease:
    """The bytes of a place, ``size`` or a few more; the place is free when nothing refers to it."""
    size = -(-size // SMALL) * SMALL
    with _lock:
        if _returned:
            _take_back()
        number = 0
        for room in _sizes:
            if room >= size:
                break
            number += 1
        else:
            room = max(size, REGION)
            region = next(_numbers)
            _regions[region] = aligned(room).view(Lease)
            _starts.append(region << BITS)
            _sizes.append(room)
        address = _starts[number]
        if room == size:
            del _starts[number], _sizes[number]
        else:
            _starts[number], _sizes[number] = address + size, room - size
        start = address & (1 << BITS) - 1
        leased = _regions[address >> BITS][start : start + size]
    leased.place = address, size
    return leased


def _take_back() -> None:
    """Free the places of the arrays that have died, each joined with those that it touches."""
    whole = False
    while _returned:
        address, size = _returned.popleft()
        if address >> BITS not in _regions:
            continue  # it ends with its last array: `apart` is over
        number = bisect_left(_starts, address)
        if number < len(_starts) and address + size == _starts[number]:
            size += _sizes[number]  # the one that lies there grows towards the front
            _starts[number], _sizes[number] = address, size
        else:
            _starts.insert(number, address)
            _sizes.insert(number, size)
        if number > 0 and _starts[number - 1] + _sizes[number - 1] == address:
            size += _sizes[number - 1]
            _sizes[number - 1] = size
            del _starts[number], _sizes[number]
        whole = whole or size >= REGION
    if whole and sum(_sizes) > KEPT:
        _give_back(KEPT)


def _give_back(kept: int) -> None:
    """Give regions in which no array lies back to the system, while more than ``kept`` is free."""
    excess, places = sum(_sizes) - kept, list(zip(_starts, _sizes))
    for address, size in places:
        if excess > 0 and size == len(_regions[address >> BITS]):
            number = _starts.index(address)
            del _starts[number], _sizes[number], _regions[address >> BITS]
            excess -= size


def _unlock() -> None:
    """A forked process lacks the thread that may have held the lock, so none would give it up."""
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
