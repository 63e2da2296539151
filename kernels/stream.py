"""Writing a large result past the caches.

A store to memory that is in no cache first reads the line that it falls into. Where a kernel writes
a whole line once and for all, nobody looks at what was read; and a result larger than the last
cache will not be found there later either. A *streaming* store then writes the line to memory
alone. It pays for Winograd's results, and for sums short enough to be written once (a first
layer's); where `strip.strip` adds piece after piece to a result, only the last piece streams, and
that neither helps nor harms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from minifcn.kernels.vector import VECTOR_BYTES, lanes

LARGE = 16 << 20  # bytes: more than most processors keep of one result until it is read again


def past_caches(result: np.ndarray, channels: int) -> bool:
    """Whether a C-contiguous result (…, groups · channels) is to be written past the caches.

    It is large, and every vector of each group's channels starts where a streaming store may.
    """
    if result.nbytes < LARGE or channels % lanes(result.dtype):
        return False
    return bool(result.ctypes.data % VECTOR_BYTES == 0)


@intrinsic
def fence(typing):  # type: ignore[no-untyped-def]
    """Let all streaming stores before it be done before any store after it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
