"""Watches Numba compile, so that the first steps of a first run explain themselves."""

from __future__ import annotations

import time
from collections.abc import Callable

from numba.core import event


class CompileWatch(event.Listener):
    """Counts the kernels compiled inside a `with` block, and the time that took.

    A kernel that is compiled for another one's sake is part of that one. Kernels read from the
    disk cache do not count: they take milliseconds.

    Attributes:
        count: kernels compiled.
        seconds: time spent in it.
        current: name of the kernel being compiled now, or "".
        kept: whether all of them went into the disk cache.
        on_first: called when the first kernel begins to compile.
    """

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.current = ""
        self.kept = True
        self.on_first: Callable[[], object] = lambda: None
        self._depth = 0
        self._since = 0.0

    def __enter__(self) -> CompileWatch:
        event.register("numba:compile", self)
        return self

    def __exit__(self, *failure: object) -> None:
        event.unregister("numba:compile", self)

    def on_start(self, event: event.Event) -> None:
        """Numba begins to compile a function."""
        self._depth += 1
        if self._depth == 1:
            if self.count == 0:
                self.on_first()
            self._since = time.perf_counter()
            self.current = event.data["dispatcher"].py_func.__name__.strip("_")
            self.current = self.current.removesuffix("_numba")

    def on_end(self, event: event.Event) -> None:
        """Numba is done with a function."""
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._since
            self.count += 1
            self.current = ""
            self.kept &= event.data["dispatcher"].stats.cache_path is not None

    def summary(self) -> str:
        """One line for people, or "" when nothing was compiled."""
        if self.count == 0:
            return ""
        plural = "kernel" if self.count == 1 else "kernels"
        kept = " (kept on disk for next time)" if self.kept else ""
        return f"compiled {self.count} {plural} in {self.seconds:.0f} s{kept}"
