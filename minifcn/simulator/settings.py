"""How kernels run: fast or checked, in which order the threads go; and what was counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minifcn.simulator.report import Report

ASCENDING, DESCENDING = 0, 1


@dataclass
class Settings:
    """Of the simulated device, now."""

    checked: bool = False
    order: int = ASCENDING


@dataclass
class Counts:
    """What happened under `counting`."""

    #: the kernels launched, in order
    launches: list[str] = field(default_factory=list)
    #: bytes of device memory in use: at the beginning, now, and the most at once
    bytes_before: int = 0
    bytes_now: int = 0
    bytes_peak: int = 0


current = Settings()
_reports: list[list[Report]] = []
_counts: list[Counts] = []
_bytes_in_use = 0


@contextmanager
def checked(enabled: bool = True) -> Iterator[list[Report]]:
    """Run kernels in the checked build, inside the block.

    Yields:
        A list that receives one `Report` for each launch.
    """
    reports: list[Report] = []
    before, current.checked = current.checked, enabled
    _reports.append(reports)
    try:
        yield reports
    finally:
        current.checked = before
        _reports[:] = [other for other in _reports if other is not reports]


@contextmanager
def thread_order(seed: int) -> Iterator[None]:
    """Let the threads of a block go in another order, inside the block.

    Args:
        seed: 0 ascending, 1 descending (blocks, too); from 2 on shuffled anew between any two
            barriers.
    """
    before, current.order = current.order, seed
    try:
        yield
    finally:
        current.order = before


@contextmanager
def counting() -> Iterator[Counts]:
    """Count launches and device memory, inside the block."""
    counts = Counts([], _bytes_in_use, _bytes_in_use, _bytes_in_use)
    _counts.append(counts)
    try:
        yield counts
    finally:
        _counts[:] = [other for other in _counts if other is not counts]


def bytes_in_use() -> int:
    """Bytes of device memory that arrays hold now."""
    return _bytes_in_use


def launched(kernel: str) -> None:
    """Note a launch."""
    for counts in _counts:
        counts.launches.append(kernel)


def reported(report: Report) -> None:
    """Hand a launch's report to those who asked."""
    for reports in _reports:
        reports.append(report)


def allocated(size: int) -> None:
    """Note that an array took this many bytes, or gave them back (negative)."""
    global _bytes_in_use
    _bytes_in_use += size
    for counts in _counts:
        counts.bytes_now = _bytes_in_use
        counts.bytes_peak = max(counts.bytes_peak, _bytes_in_use)
