"""The facts of a fault (``faults.h``) in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

OUT_OF_BOUNDS, MISALIGNED, UNINITIALISED, RACE = 0, 1, 2, 3
BARRIER_LINES, BARRIER_EXITED, DEADLOCK = 4, 5, 6
LANE_OUTSIDE_MASK, LANE_MISSING, SHUFFLE_OUTSIDE_MASK = 7, 8, 9
OVERFLOW, SHIFT, DIVISION, INDEX = 10, 11, 12, 13


def sentence(
    f: Any,
    source: Callable[[int], tuple[str, int]],
    names: Sequence[str],
    block: tuple[int, int, int],
) -> str:
    """File, line, what happened, thread, block.

    Args:
        f: a `machine.Fault`.
        source: file and line of an address in the program.
        names: of the buffers.
        block: threads of a block along x, y and z.
    """
    file, line = source(f.code) if f.code else (f.file.decode() if f.file else "?", f.line)
    words = _words(f, source, names, block)
    again = f" ({f.count} times)" if f.count > 1 else ""
    return f"{file}:{line}: {words}, by thread {tuple(f.thread)} of block {tuple(f.block)}{again}"


def _words(
    f: Any,
    source: Callable[[int], tuple[str, int]],
    names: Sequence[str],
    block: tuple[int, int, int],
) -> str:
    where = _place(f, names)
    did = "write" if f.written else "read"
    if f.kind == OUT_OF_BOUNDS:
        return f"out of bounds: {did} of {f.size} bytes {where}"
    if f.kind == MISALIGNED:
        return f"misaligned: {did} of {f.size} bytes {where}, which is no multiple of {f.size}"
    if f.kind == UNINITIALISED:
        return f"uninitialised: read of {f.size} bytes {where}, which nothing has written"
    if f.kind == RACE:
        file, line = source(f.other_code)
        t, (x, y, _) = f.other_thread, block
        other = (t % x, t // x % y, t // x // y)
        same = f.other_block == f.this_block
        return (
            f"race: {did} of {f.size} bytes {where} and, with nothing to order them, "
            f"{'write' if f.other_written else 'read'} at {file}:{line} by thread {other} of "
            + ("the same block" if same else "another block")
        )
    if f.kind == BARRIER_LINES:
        return (
            f"divergent barrier: some threads wait at this __syncthreads() and others at line "
            f"{f.other_line}"
        )
    if f.kind == BARRIER_EXITED:
        return (
            f"divergent barrier: {f.offset} threads of the block ended before this __syncthreads()"
        )
    if f.kind == DEADLOCK:
        elsewhere = f"others at line {f.other_line}" if f.other_line else "others have ended"
        return f"deadlock: some threads wait here for ever, {elsewhere}"
    if f.kind == LANE_OUTSIDE_MASK:
        return f"bad mask: lane {f.offset} takes part and the mask does not name it"
    if f.kind == LANE_MISSING:
        return f"bad mask: it names lane {f.offset}, which has ended or does not exist"
    if f.kind == SHUFFLE_OUTSIDE_MASK:
        return f"bad shuffle: reads lane {f.offset}, which takes no part"
    text = f.text.decode()
    what = {OVERFLOW: "integer overflow", SHIFT: "shift out of range", DIVISION: "division by zero"}
    return f"{what.get(f.kind, 'array index out of range')}: {text}"


def _place(f: Any, names: Sequence[str]) -> str:
    if f.space < 0:
        return f"at address {f.offset & (2**64 - 1):#x}, far from every array"
    whose = "shared memory" if f.space == 0 else names[f.space - 1]
    return f"at byte {f.offset} of {whose}"
