"""Memory for results, used again: a fresh page costs more than the arithmetic on it.

The system hands out memory in pages of 4 KiB and clears each on first touch, which takes about as
long as a kernel takes to fill it. A training step asks for the same sizes again and again; so when
an array dies, its memory is kept here for the next one.

The memory comes from the system in large regions, of which only what is used is ever touched. An
array gets the first place that holds it, by address in the oldest region, and a place that comes
back joins free neighbours. So what one large activation leaves serves several small ones after it,
and the highest address in use stays low.

Source: Knuth, "The Art of Computer Programming", vol. 1, section 2.5, "Dynamic storage allocation".
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from math import prod
from operator import attrgetter
from threading import Lock
from typing import Any

import numpy as np

from minifcn import device

SMALL = 1 << 16  # bytes; below this the system's own allocator reuses memory well
BYTE = np.dtype(np.uint8)
LINE = 64  # bytes of a cache line, and of the longest vector
REGION = 1 << 28  # bytes asked of the system at a time
KEPT = 1 << 31  # bytes; whole regions beyond go back to the system, at the next request

#: fill new arrays with NaN: a test that a kernel writes every element sets this
poisoned = False


class Region:
    """Bytes that the system gave in one piece.

    Its ``address`` is not the system's but counts: older regions come first, and none ends where
    another begins.
    """

    def __init__(self, size: int) -> None:
        self.address = next(_addresses)
        memory = np.empty(size + LINE, np.uint8)
        # from the start of a cache line on, so that no vector lies across two of them
        start = -memory.ctypes.data % LINE
        self.memory, self.size = memory[start : start + size].view(Lease), size


@dataclass(slots=True, eq=False)
class Place:
    """``size`` bytes of a region from an address on."""

    region: Region
    address: int
    size: int


_addresses = count(step=1 << 48)
_free: list[Place] = []  # by address; no two touch
_returned: deque[Place] = deque()  # by arrays that died, which may be at any time, in any thread
_address = attrgetter("address")
_lock = Lock()


class Lease(np.ndarray):
    """The bytes of a place, which all arrays made of it refer to; when it dies, the place is free.

    NumPy lets a view refer past its base to the base's base, if that is a plain array. So a
    region's memory is of this class too, with no place, and no plain array refers past a lease.
    """

    place: Place | None = None

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
        array = np.ndarray(shape, kind, _lease(-(-size // SMALL) * SMALL))
    if poisoned and kind.kind == "f":
        array.fill(np.nan)
    return array


def together(dtype: Any, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Several uninitialised arrays in one memory, each some whole cache lines after the first.

    For a kernel's own rooms: to find one place takes Python less time than to find four.
    """
    kind, ends = np.dtype(dtype), [0]
    for shape in shapes:
        ends.append(ends[-1] + -(-prod(shape) * kind.itemsize // LINE) * LINE)
    memory = empty((ends[-1] // kind.itemsize,), kind)
    return [np.ndarray(shape, kind, memory, start) for shape, start in zip(shapes, ends)]


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


def clear() -> None:
    """Give all regions in which no array lies back to the system."""
    with _lock:
        _take_back()
        _free[:] = [place for place in _free if place.size < place.region.size]


@contextmanager
def apart() -> Iterator[None]:
    """Inside the block arrays lie in regions of its own, as in a process that has just begun."""
    global _free, _returned
    before, _free, _returned = (_free, _returned), [], deque()
    try:
        yield
    finally:
        _free, _returned = before


def _lease(size: int) -> Lease:
    with _lock:
        if _returned:
            _take_back()
        for number, place in enumerate(_free):  # noqa: B007
            if place.size >= size:
                break
        else:
            region = Region(max(size, REGION))
            number = _insert(Place(region, region.address, region.size))
            place = _free[number]
        if place.size == size:
            del _free[number]
        else:
            place, rest = Place(place.region, place.address, size), place
            rest.address += size
            rest.size -= size
    region = place.region
    lease = Lease((size,), BYTE, region.memory, place.address - region.address)
    lease.place = place
    return lease


def _take_back() -> None:
    """Free the places of the arrays that have died."""
    whole = False
    while _returned:
        place = _free[_insert(_returned.popleft())]
        whole = whole or place.size == place.region.size
    if not whole:
        return
    excess = sum(place.size for place in _free) - KEPT
    if excess > 0:
        for place in [place for place in _free if place.size == place.region.size]:
            if excess > 0:
                _free.remove(place)
                excess -= place.size


def _insert(place: Place) -> int:
    """Add a free place, joined with those that it touches; give its number."""
    address, size = place.address, place.size
    number = bisect_left(_free, address, key=_address)
    if number < len(_free) and address + size == _free[number].address:
        after = _free[number]  # the one that lies there grows towards the front
        after.address, after.size = address, size + after.size
    else:
        _free.insert(number, place)
    if number > 0:
        before = _free[number - 1]
        if before.address + before.size == address:
            before.size += _free.pop(number).size
            return number - 1
    return number


def _unlock() -> None:
    """A forked process lacks the thread that may have held the lock, so none would give it up."""
    global _lock
    _lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
