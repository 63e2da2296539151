"""Runs of jobs: ranges of numbers from which threads take one after the other, without a lock.

Each thread takes the numbers of its own run from the front, so that neighbours, which often share
lines of the cache, fall to one thread; and when none is left, those of another's run from the back.
So a thread whose processor is slow, or does something else as well, keeps nobody waiting for much
more than the job it has begun. (Of many small jobs a few stay with their thread, which has what
they need in its cache: to wait for them takes less.)

A run is one number, so that it changes at once: the next job in its lower half, the end above.

Source: Blumofe and Leiserson, "Scheduling Multithreaded Computations by Work Stealing", JACM 1999;
here no job makes another, so a run only ever shrinks.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minifcn.kernels.compiled import serial
from minifcn.kernels.vector import INT64

HALF = 32  # bits of a run
STAYS = 32  # of so many jobs of a run one is not left to others
LINE = 64  # bytes from one run to the next, a line of the cache
N = types.int64


@serial
def begin(runs, team, count):  # type: ignore[no-untyped-def]
    """Numbers 0 … ``count`` − 1 in ``team`` even runs, at the address ``runs``."""
    for own in range(team):
        _write(runs + own * LINE, count * (own + 1) // team << HALF | count * own // team)


@serial
def taken(run, front, left):  # type: ignore[no-untyped-def]
    """A number from one end of a run, which nobody else gets; −1 if ``left`` or fewer are there."""
    while True:
        found = _read(run)
        first, end = found & ((1 << HALF) - 1), found >> HALF
        if end - first <= left:
            return np.int64(-1)
        if _exchanged(run, found, found + 1 if front else found - (1 << HALF)):
            return first if front else end - 1


@intrinsic
def on_stack(typing, team):  # type: ignore[no-untyped-def]
    """The address of room for so many runs, until the function returns."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = builder.alloca(INT64, builder.mul(args[0], ir.Constant(INT64, LINE // 8)))
        place.align = LINE
        return builder.ptrtoint(place, INT64)

    return N(N), code


@intrinsic
def _read(typing, address):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(builder.inttoptr(args[0], INT64.as_pointer()), "acquire", 8)

    return N(N), code


@intrinsic
def _write(typing, address, value):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[1], builder.inttoptr(args[0], INT64.as_pointer()))
        return context.get_dummy_value()

    return types.void(N, N), code


@intrinsic
def _exchanged(typing, address, found, value):  # type: ignore[no-untyped-def]
    """Whether ``found`` stood there still, and now ``value`` does."""

    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        place = builder.inttoptr(args[0], INT64.as_pointer())
        pair = builder.cmpxchg(place, args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(N, N, N), code
