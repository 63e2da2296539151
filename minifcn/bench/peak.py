"""The multiply-add rate that this processor reaches at all, measured.

A fused multiply-add computes a·x + y of a whole vector register in one instruction, counted as two
operations a lane. Its result is there only some cycles later, so a core reaches its full rate when
enough of them are under way that do not wait for each other::

    acc0 ← acc0·x + y    acc1 ← acc1·x + y    …    acc11 ← acc11·x + y    and round again

Twelve chains cover four cycles of two, or of three, and with x and y still fit the 16 registers of
AVX2. No memory is touched, so nothing that reads its operands from anywhere can be faster, and what
a convolution lacks to this rate is what it spends on anything but arithmetic. (Winograd's
algorithm exceeds it by the usual count, for it needs fewer multiplications than the count assumes.)

A loop that LLVM vectorises by itself keeps such sums in memory, so the chains are written as LLVM
code, as in `kernels/tile.py`.
"""

from __future__ import annotations

import time
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minifcn.kernels.vector import Emitter, lanes

CHAINS = 12


@intrinsic
def _chains(typing, x, y, count):  # type: ignore[no-untyped-def]
    """CHAINS vectors, each taken through v ← v·x + y ``count`` times; their sum's first lane."""
    signature = types.float32(types.float32, types.float32, types.int64)

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, types.float32)
        x, y = emit.repeat(args[0]), emit.repeat(args[1])
        with builder.goto_entry_block():
            chains = [builder.alloca(emit.vector) for _ in range(CHAINS)]  # become registers
        for i, chain in enumerate(chains):  # different starts, or LLVM would compute one of them
            builder.store(emit.constant(i), chain)
        with cgutils.for_range(builder, args[2]):
            for chain in chains:
                builder.store(emit.multiply_add(builder.load(chain), x, y), chain)
        total = builder.load(chains[0])
        for chain in chains[1:]:
            total = builder.fadd(total, builder.load(chain))
        return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))

    return signature, code


@numba.njit(parallel=True, cache=True)
def _on_threads(threads: int, x: Any, y: Any, count: int) -> Any:
    sums = np.empty(threads, np.float32)  # used, so that the work is not left out
    for t in numba.prange(threads):
        sums[t] = _chains(x, y, count)  # type: ignore[call-arg]
    return sums


def gflops(threads: int | None = None, seconds: float = 1.5) -> float:
    """10⁹ additions and multiplications a second: the best of short runs within ``seconds``.

    ``threads`` None means all of them. The best, not the median: it is a limit that is looked for.
    A run takes some milliseconds: what else works on the machine at the time can only lower it.
    """
    threads = threads or numba.get_num_threads()
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    x, y, count = np.float32(0.5), np.float32(1), 1_000_000
    try:
        _on_threads(threads, x, y, 1)  # compiles
        best, begin = float("inf"), time.perf_counter()
        while time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            _on_threads(threads, x, y, count)
            best = min(best, time.perf_counter() - start)
    finally:
        numba.set_num_threads(before)
    return 2 * lanes(np.float32) * CHAINS * count * threads / best / 1e9
