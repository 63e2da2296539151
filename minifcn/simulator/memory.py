"""Device memory: each array's own, poisoned when fresh, with guard zones around it.

Fresh memory holds NaN (in an array of integers a large odd number), so that reading what nothing
has written shows in the result. The bits of that NaN come from no arithmetic: the checked build
tells by them that it reads what was never written. A guard zone that changed betrays a kernel that
wrote outside its array.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minifcn.simulator import settings

ALIGNED = 256  # bytes, as cudaMalloc
GUARD = 256  # bytes before and behind
GUARDING = 0xA5
FRESH_FLOAT, FRESH_INTEGER = 0xFF, 0xCB
ROUND = 512  # CuPy's pool hands out multiples of this many bytes


class Memory:
    """The bytes of one array and of all its views; counted while it lives."""

    def __init__(self, size: int, fresh: int) -> None:
        self.size = size
        self._counted = -(-size // ROUND) * ROUND
        whole = np.empty(size + 2 * GUARD + ALIGNED, np.uint8)
        start = GUARD + -(whole.ctypes.data + GUARD) % ALIGNED
        self.bytes = whole[start : start + size]
        self._guards = whole[start - GUARD : start], whole[start + size : start + size + GUARD]
        for guard in self._guards:
            guard.fill(GUARDING)
        self.bytes.fill(fresh)
        self.address = whole.ctypes.data + start
        settings.allocated(self._counted)

    def is_intact(self) -> bool:
        """Whether nobody wrote into the guard zones."""
        return all((guard == GUARDING).all() for guard in self._guards)

    def __del__(self) -> None:
        if hasattr(self, "address") and getattr(settings, "allocated", None):  # not as Python ends
            settings.allocated(-self._counted)


def allocate(shape: tuple[int, ...], dtype: Any) -> tuple[Memory, np.ndarray]:
    """Fresh memory, and the host's view of it as an array."""
    kind = np.dtype(dtype)
    memory = Memory(prod(shape) * kind.itemsize, FRESH_FLOAT if kind.kind == "f" else FRESH_INTEGER)
    return memory, memory.bytes.view(kind).reshape(shape)
