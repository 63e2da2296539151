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
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn.kernels.vector import LLVM_FLOAT, VECTOR_BYTES, Emitter, lanes, pointer

LARGE = 32 << 20  # bytes: more than the last cache of most processors


def past_caches(result: np.ndarray) -> bool:
    """Whether a C-contiguous result (…, K) is to be written past the caches.

    It is large, and every vector of a row's channels starts where a streaming store may.
    """
    whole = result.shape[-1] % lanes(result.dtype) == 0
    return bool(result.nbytes >= LARGE and whole and result.ctypes.data % VECTOR_BYTES == 0)


@intrinsic
def copy_past(typing, target, to, source, start, vectors):  # type: ignore[no-untyped-def]
    """target[to : …] = source[start : …], so many whole vectors, by streaming stores."""
    if target.dtype != source.dtype or target.dtype not in LLVM_FLOAT:
        return None
    signature = types.void(target, types.int64, source, types.int64, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, target.dtype)
        to, start = (pointer(context, builder, signature, args, which) for which in (0, 2))
        with cgutils.for_range(builder, args[4]) as loop:
            at = builder.mul(loop.index, emit.integer(emit.width))
            emit.stream(emit.load(emit.at(start, at)), emit.at(to, at))
        return context.get_dummy_value()

    return signature, code


@intrinsic
def fence(typing):  # type: ignore[no-untyped-def]
    """Let all streaming stores before it be done before any store after it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
