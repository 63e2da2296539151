"""The weight gradient of a convolution of few channels, from the same lines as its forward pass.

    dw[r, i, k] = Σ_{n, p, q} L[q·stride·C + i] · dy[n, p, q, k]        i = 0 … S·C − 1

`lines` tells what L is: a row of the picture between its zeros, or some interleaved. A thread takes
some lines under the kernel and sums over the rows of the result, a few at a time. A result too
small to share out that way is summed in a fixed number of parts of the rows, added in order at the
end: the bits do not depend on the number of threads.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from minifcn.kernels import workspace
from minifcn.kernels.channel_sums import STRIP, add_rows
from minifcn.kernels.compiled import kernel, serial
from minifcn.kernels.gathered import summing_code, summing_strip
from minifcn.kernels.jobs import share_out, threads
from minifcn.kernels.lines import interleaved, lay, windows
from minifcn.kernels.parts import add_bias, add_parts
from minifcn.kernels.rooms import Rooms, own
from minifcn.kernels.row import clear, copy, copy_row
from minifcn.kernels.taps import Taps
from minifcn.kernels.tiling import TALL, half_vectors, narrow_columns, rows
from minifcn.kernels.vector import lanes

PIXELS = 2 * STRIP  # of dy that stay in the first cache while all taps meet them
PIECES = 4  # of work for a thread
SMALL = 1 << 15  # elements of a result that is summed in parts …
PARTS = 16  # … so many, of about `LEAST` pixels or more
LEAST = 192


def weight_along_taps(
    x: np.ndarray, dy: np.ndarray, taps: Taps, bias: bool = False
) -> tuple[np.ndarray, np.ndarray | None]:
    """dL/dw by tap (R·S, C, K) from x (N, H, W, C) and dL/dy (N, P, Q, K), of a convolution's taps.

    With it, if ``bias`` is asked for and K are whole vectors, dL/db (K,), summed of the same rows
    of dy while they are in the cache; else None.
    """
    c, k = x.shape[3], dy.shape[3]
    plan = _plan(taps, len(dy), c, k, x.dtype, threads())
    rooms = plan.rooms.arrays()
    summed = bias and k % lanes(x.dtype) == 0
    by_tap = workspace.empty((len(taps.order), c, k), x.dtype)
    db = np.empty(k if summed else 0, x.dtype)
    arguments = x, dy, *rooms, summed, *plan.settings
    _weight_loop(len(plan.work), arguments, *rooms[:2], plan.high, by_tap, db)
    return by_tap, db if summed else None


class Plan(NamedTuple):
    """What `weight_along_taps` decides by the shapes alone.

    ``rooms`` for the sums, (parts, lines, rows, columns), for those for the bias, and for the
    threads: the lines of one piece, its gradients in blocks, and the addresses of its pixels; the
    ``work``: (part, first and last + 1 of lines, of all pictures' rows) each; ``high`` rows of the
    window are interleaved in a line; and ``settings`` that `_weight_piece` is given.
    """

    rooms: Rooms
    work: np.ndarray
    high: int
    settings: tuple[Any, ...]


@lru_cache(maxsize=1024)
def _plan(taps: Taps, n: int, c: int, k: int, dtype: Any, threads: int) -> Plan:
    (window,) = windows(taps) or ()
    _, _, height, width = taps.phases[0, :4].tolist()
    high = window.high if interleaved(window, c) else 1
    lines, length = window.high // high, window.wide * high * c
    wide = narrow_columns(dtype, k)
    across, pixels = -(-k // wide) * wide, n * height * width
    small = lines * rows(length) * across <= SMALL
    parts = max(1, min(PARTS, pixels // LEAST, n * height)) if small else 1
    shares = min(lines, -(-PIECES * threads // parts))
    cuts = [n * height * part // parts for part in range(parts + 1)]
    ends = [lines * share // shares for share in range(shares + 1)]
    work = [
        (part, low, high, begin, end)
        for part, (begin, end) in enumerate(zip(cuts, cuts[1:]))
        for low, high in zip(ends, ends[1:])
    ]
    line = ((width - 1) * taps.in_stride[1] + window.wide) * high * c
    together = max(1, PIXELS // width)
    rooms = Rooms(
        threads,
        (dtype, (parts, lines, rows(length), across)),
        (np.float64, (parts, 1, workspace.whole_lines(k, np.float64))),
        (dtype, (together * line + TALL + lanes(dtype),), True),
        (dtype, (PIXELS * across + k,), True),
        (np.int64, (PIXELS,), True),
    )
    table = np.array(work)
    settings = (
        taps.in_stride, table, tuple(window), high, wide, half_vectors(dtype, wide), lanes(dtype),
        summing_code(dtype),
    )  # fmt: skip
    return Plan(rooms, table, high, settings)


@serial
def _weight_piece(  # type: ignore[no-untyped-def]
    item, x, dy, all_sums, bias_sums, room, gradients, places, bias, steps, work, window, high,
    wide, halves, side, code,
):  # fmt: skip
    """One piece of the work, with ``high`` rows of the window interleaved in a line."""
    _, p, q, k = dy.shape
    sums, (_, _, sum_rows, across) = all_sums.reshape(-1), all_sums.shape
    part, low, up, begin, end = work[item]
    top, left, all_high, seen, apart = window
    lines, column, flat_dy = all_high // high, high * x.shape[3], dy.reshape(-1)
    length, columns = seen * column, (q - 1) * steps[1] + seen
    panel, gradient, at = own(room), own(gradients), own(places)
    row_sums = len(gradient) - k
    base = part * lines * sum_rows * across
    clear(sums, base + low * sum_rows * across, (up - low) * sum_rows * across)
    clear(panel, 0, len(panel))  # the last tile hangs over what is laid there
    if low == 0 and bias:
        bias_sums[part, 0, :k] = 0
    number, first = begin, 0  # of the row, and in it
    while number < end:
        together = min(max(1, PIXELS // q), end - number)  # rows, or part of one
        pieces = (q + PIXELS - 1) // PIXELS
        size = q if pieces == 1 else min((q + pieces - 1) // pieces, q - first)
        count = together * size
        for i in range(together):
            for j in range(size):
                at[i * size + j] = (i * columns + (first + j) * steps[1]) * column
        pixel = number * q + first
        source, start, step = flat_dy, pixel * k, k
        if across != k:  # a block of columns together, zeros beyond the last
            source, start, step = gradient, 0, across
            for m in range(count):
                copy_row(gradient, m * across, flat_dy, (pixel + m) * k, k)
                clear(gradient, m * across + k, across - k)
        if low == 0 and bias:
            strip = gradient[row_sums:]
            add_rows(flat_dy, pixel * k, k, k, count, side, strip, bias_sums[part, 0])
        for n in range(low, up):
            if first == 0 or lines > 1:
                for i in range(together):
                    row = (number + i) % p * steps[0] + top + n * apart
                    image, to = (number + i) // p, i * columns * column
                    lay(x, image, row, apart, high, left, columns, panel, to, side)
            for j in range(across // wide):
                to = base + n * sum_rows * across + j * wide
                summing_strip(
                    code, panel, 0, at, 0, source, start + j * wide, step, sums, to, across, count,
                    length, halves,
                )  # fmt: skip
        first += size
        if first >= q:
            number, first = number + together, 0


@kernel
def _weight_loop(count, arguments, all_sums, bias_sums, high, by_tap, db):  # type: ignore[no-untyped-def]
    share_out(_weight_piece, count, arguments)
    sums, flat = all_sums.reshape(-1), by_tap.reshape(-1)
    if len(all_sums) > 1:
        add_parts(sums, len(all_sums), sums)
    _, lines, sum_rows, across = all_sums.shape
    taps, c, k = by_tap.shape
    wide = taps // (lines * high)
    for n in range(lines):  # S · rows of a line · C: more rows hang over
        for s in range(wide):
            for r in range(high):
                at, to = (s * high + r) * c, ((n * high + r) * wide + s) * c
                for channel in range(c):
                    source = (n * sum_rows + at + channel) * across
                    copy(flat, (to + channel) * k, sums, source, k)
    add_bias(bias_sums, db)
