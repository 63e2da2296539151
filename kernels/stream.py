"""Writing a large result past the caches.

A store to memory that is in no cache first reads the line that it falls into. A kernel that writes
whole lines never looks at what it read, and where the result is larger than the last cache it will
not be found there later either: then a *streaming* store, which writes the line to memory alone,
saves half of the traffic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from minifcn.kernels.vector import VECTOR_BYTES, lanes

LARGE = 32 << 20  # bytes: more than the last cache of most processors


def past_caches(result: np.ndarray) -> bool:
    """Whether a C-contiguous result (…, K) is to be written past the caches.

    It is large, and every vector of a row's channels starts where a streaming store may.
    """
    whole = result.shape[-1] % lanes(result.dtype) == 0
    return bool(result.nbytes >= LARGE and whole and result.ctypes.data % VECTOR_BYTES == 0)


@intrinsic
def fence(typing):  # type: ignore[no-untyped-def]
    """Let all streaming stores before it be done before any store after it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
