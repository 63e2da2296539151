"""Rooms: arrays that a kernel needs while it runs, the same memory at every call.

Each of the threads that share a kernel's jobs has a memory of its own, the same for all kernels, so
that what it writes there stays in the caches of its processor. Side by side in one array, a
thread's room would lie where another's lay in the kernel before, and its lines come from that
processor: on two threads weight gradients of small layers took 5 to 25 % longer so.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from threading import local
from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from minifcn.kernels import workspace
from minifcn.kernels.compiled import serial
from minifcn.kernels.workspace import LINE

OWN = 1 << 22  # bytes of a thread's own memory, and of that for what all threads see
HUGE = 1 << 21  # bytes of a large page, where the system has them: a kernel then meets few pages
GAP = 7 * LINE  # bytes from room to room, so that few begin at the same lines of a page
MADE = 1 << 12  # plans whose rooms a calling thread remembers


class Room(NamedTuple):
    """One of them: an array that all threads see or, where it says if they are ``apart``, several.

    Of those `own` gives a thread its own or, if they are not, one and the same for all.
    """

    kind: np.dtype
    shape: tuple[int, ...]
    apart: bool | None = None


class Rooms:
    """What a kernel's plan says once of the arrays that it needs.

    Each is wanted as ``(dtype, shape)`` or, see `Room`, as ``(dtype, shape, apart)``. `arrays`
    gives them, uninitialised and side by side; a call then costs no search for a place. (More than
    `OWN` bytes are looked for as those of `workspace.empty` are.) Each begins with a cache line:
    two threads that write to one line take it from each other every time.

    Attributes:
        seen: bytes that all threads see.
        apart: bytes that each of ``threads`` threads has apart from the others.
        threads: how many.
        kept: whether the rooms lie in the calling thread's own memory.
    """

    def __init__(self, threads: int, *wanted: tuple[Any, ...]) -> None:
        self.threads = threads
        self.wanted = [Room(np.dtype(dtype), *how) for dtype, *how in wanted]
        self._starts: list[int] = []
        self.seen = self.apart = 0  # bytes
        for room in self.wanted:
            size = -(-prod(room.shape) * room.kind.itemsize // LINE) * LINE + GAP
            self._starts.append(self.apart if room.apart else self.seen)
            if room.apart:
                self.apart += size
            else:
                self.seen += size
        self.kept = max(self.seen, self.apart) <= OWN

    def arrays(self) -> list[np.ndarray]:
        """The arrays; of one thread, the kernel that asks next is given the same memory."""
        if not self.kept:
            seen = workspace.lease(self.seen)
            arrays = self._made(seen, _rows(workspace.lease, self.threads, self.apart))
        else:
            made = _own.made
            arrays = made.get(self)
            if arrays is None:
                if len(made) >= MADE:
                    made.clear()
                arrays = made[self] = self._made(_own.seen, _own.apart)
        if workspace.poisoned:
            for array in arrays:
                if array.dtype.kind == "f":
                    array.fill(np.nan)
        return arrays

    def _made(self, seen: np.ndarray, apart: np.ndarray) -> list[np.ndarray]:
        arrays = []
        for room, start in zip(self.wanted, self._starts):
            memory, step = (apart, apart.shape[1]) if room.apart else (seen, 0)
            array = np.ndarray(room.shape, room.kind, memory, start)
            if room.apart is not None:
                # two at least: of one, NumPy would say that it lies without gaps, and that is
                # another type for Numba, which would compile the kernel once more
                shape, strides = (max(2, self.threads), *room.shape), (step, *array.strides)
                array = np.ndarray(shape, room.kind, memory, start, strides)
            arrays.append(array)
        return arrays


def _rows(memory: Callable[[int], np.ndarray], threads: int, size: int) -> np.ndarray:
    """Memory for each thread, two at least: of one row nobody could tell where a next would be."""
    count = max(2, threads)
    return memory(count * size)[: count * size].view(np.ndarray).reshape(count, size)


def _huge(size: int) -> np.ndarray:
    return workspace.aligned(size, HUGE)


class _Own(local):
    """A calling thread's memory for rooms, and the arrays that were made of it.

    Of the memory, only what is used is ever touched; it ends with the thread.
    """

    def __init__(self) -> None:
        self.seen = _huge(OWN)
        self.apart = _rows(_huge, nb.config.NUMBA_NUM_THREADS, OWN)
        self.made: dict[Rooms, list[np.ndarray]] = {}


_own = _Own()


@serial
def own(rooms):  # type: ignore[no-untyped-def]
    """The room of the thread that asks, as an array without gaps."""
    return _of_thread(rooms, nb.get_thread_id())


@intrinsic
def _of_thread(typing, rooms, thread):  # type: ignore[no-untyped-def]
    room = rooms.copy(ndim=rooms.ndim - 1, layout="C")

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        rooms = make_array(signature.args[0])(context, builder, args[0])
        step, *strides = cgutils.unpack_tuple(builder, rooms.strides)
        view = make_array(signature.return_type)(context, builder)
        populate_array(
            view,
            data=cgutils.pointer_add(builder, rooms.data, builder.mul(step, args[1])),
            shape=cgutils.unpack_tuple(builder, rooms.shape)[1:],
            strides=strides,
            itemsize=rooms.itemsize,
            meminfo=None,
        )
        return view._getvalue()

    return room(rooms, types.int64), code
