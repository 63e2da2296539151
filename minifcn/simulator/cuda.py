"""Streams and pinned memory, as `cupy.cuda` has them: a copy is late until somebody waits for it.

What is put on a stream of its own runs here at the last moment that the waits allow. So a program
that forgets a wait reads memory that is not yet written, on every machine and in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Device:
    """A card, by its number."""

    id: int = 0


class Event:
    """A place in a stream: after what was put there before."""

    def __init__(self, stream: Stream, place: int) -> None:
        self._stream, self._place = stream, place

    def synchronize(self) -> None:
        """Wait until all before it is done."""
        self._stream._run(self._place)


class Stream:
    """Work in its own order; the null stream, on which kernels run, does all of it at once."""

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self._null = null
        self._waiting: list[Callable[[], None]] = []
        self._done = 0

    def put(self, work: Callable[[], None]) -> None:
        """Add work to the stream."""
        self._waiting.append(work)
        if self._null:
            self.synchronize()

    def record(self, event: None = None) -> Event:
        """Mark this place."""
        return Event(self, self._done + len(self._waiting))

    def wait_event(self, event: Event) -> None:
        """What is put here from now on runs after the event."""
        self.put(event.synchronize)

    def synchronize(self) -> None:
        """Wait until all is done."""
        self._run(self._done + len(self._waiting))

    def _run(self, place: int) -> None:
        while self._done < place:
            self._done += 1
            self._waiting.pop(0)()

    def __enter__(self) -> Stream:
        _current.append(self)
        return self

    def __exit__(self, *failure: object) -> None:
        _current.pop()


_current = [Stream(null=True)]


def get_current_stream() -> Stream:
    """The stream that work goes to when none is named."""
    return _current[-1]


def alloc_pinned_memory(size: int) -> Any:
    """Memory of the host that a device can read by itself; here it is like any other."""
    return np.full(size, 0xFF, np.uint8)
