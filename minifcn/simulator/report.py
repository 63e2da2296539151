"""What a checked launch found: its faults, and its memory traffic by source line."""

from __future__ import annotations

from dataclasses import dataclass

SECTOR = 32


@dataclass(frozen=True)
class Line:
    """The loads, or the stores, that one source line makes in one kind of memory."""

    file: str
    line: int
    space: str  # "global" or "shared"
    kind: str  # "load" or "store"
    #: instructions of whole warps
    requests: int
    #: that the lanes asked for
    bytes: int
    #: of 32 bytes, different ones in each request (global memory)
    sectors: int
    #: different bytes in each request, of those sectors
    used: int
    #: passes of shared memory beyond the first of each request
    conflicts: int

    @property
    def bytes_a_sector(self) -> float:
        """Bytes used of each sector's 32, request by request."""
        return self.used / self.sectors if self.sectors else 0.0


@dataclass(frozen=True)
class Buffer:
    """The traffic of one array (or of several that overlap)."""

    #: the first of the kernel's parameters that it was passed as
    parameter: int
    #: different bytes read before this launch wrote them
    read: int
    #: different bytes written
    written: int
    #: 32 for each sector that a block reads: what it touches again comes from its cache
    moved_read: int
    #: 32 for each sector that a block writes
    moved_written: int


@dataclass(frozen=True)
class Report:
    """One launch in the checked build."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    lines: tuple[Line, ...]
    buffers: tuple[Buffer, ...]
    #: sentences; empty for a kernel without fault
    faults: tuple[str, ...] = ()

    @property
    def moved(self) -> int:
        """Bytes between the blocks and memory, whole sectors, each once a block."""
        return sum(buffer.moved_read + buffer.moved_written for buffer in self.buffers)

    @property
    def least(self) -> int:
        """The least possible traffic: each byte needed is read once, each result written once."""
        return sum(buffer.read + buffer.written for buffer in self.buffers)

    @property
    def requested(self) -> int:
        """Bytes that all lanes asked global memory for."""
        return sum(line.bytes for line in self.lines if line.space == "global")

    @property
    def sectors(self) -> int:
        """Sectors of all requests to global memory, before any cache."""
        return sum(line.sectors for line in self.lines if line.space == "global")

    @property
    def bytes_a_sector(self) -> float:
        """Bytes used of each sector's 32 over all requests to global memory."""
        used = sum(line.used for line in self.lines if line.space == "global")
        return used / self.sectors if self.sectors else 0.0

    @property
    def conflicts(self) -> int:
        """Extra passes of shared memory."""
        return sum(line.conflicts for line in self.lines)

    def intensity(self, flops: float) -> float:
        """Operations for each byte moved."""
        return flops / self.moved if self.moved else float("inf")
